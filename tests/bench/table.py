"""The report of a run of benchmarks, from meson's testlog.json: what each printed, then one table.

    table.py LOG

A line "= figure | measured | reference | ratio | budget | verdict" is a row (measure.py).
"""
import json
import sys

HEAD = ["figure", "measured", "reference", "ratio", "budget", "verdict"]


def main():
    rows, ended = [], []
    for line in open(sys.argv[1]):
        run = json.loads(line)
        name, status = run["name"].split(":")[-1].strip(), run["returncode"]
        print(f"--- {name}")
        for text in run.get("stdout", "").splitlines():
            if text.startswith("= "):
                rows.append([cell.strip() for cell in text[2:].split("|")])
            else:
                print(text)
        if status:
            ended.append(f"{name}: {'could not run here' if status == 77 else f'status {status}'}")
            print(run.get("stderr", ""), end="")
    widths = [max(len(row[i]) for row in rows + [HEAD]) for i in range(len(HEAD))]
    print()
    for row in [HEAD, ["-" * w for w in widths]] + rows:
        print("| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths)) + " |")
    for text in ended:
        print(text)


main()
