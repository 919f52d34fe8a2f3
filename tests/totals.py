#!/usr/bin/python3
"""Adds up the cases of all tests of `meson test` runs: totals.py TESTLOG.JSON MESON-STATUS [TESTLOG.JSON MESON-STATUS]...

Every test says itself how many cases it had: a system test by its last line `N passed, N failed,
N skipped`, a Criterion test by its synthesis line. A test that says nothing counts as one case, and
one that failed without telling of a failed case (a crash, a time limit) counts as one failed case.

Lines that begin with MUTANT (who caught which), NOTE (what a test counts besides), ONCE (a failure that did not come again) or SKIP are
shown, whether their test passed or not: what a run has tried, and what it has not, is in its log. KILLS, how often programs of a
script died of SIGKILL, is added up.
"""
import json
import re
import sys

OURS = re.compile(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", re.M)
CRITERION = re.compile(r"Synthesis: Tested: (\d+) \| Passing: (\d+) \| Failing: (\d+) \| Crashing: (\d+)")


def cases(test):
    output = re.sub(r"\x1b\[[0-9;]*m", "", test.get("stdout", "") + "\n" + test.get("stderr", ""))
    good, skipped = test["result"] in ("OK", "EXPECTEDFAIL"), test["result"] == "SKIP"
    ours, criterion = OURS.findall(output), CRITERION.findall(output)
    if ours:
        counts = [int(n) for n in ours[-1]]
    elif criterion:
        tested, passing, failing, crashing = (int(n) for n in criterion[-1])
        counts = [passing, failing + crashing, max(0, tested - passing - failing - crashing)]
    else:
        return [int(good), int(not good and not skipped), int(skipped)]
    if not good and not skipped and not counts[1]:
        counts[1] = 1
    return counts


def read(log):
    try:
        return [json.loads(line) for line in open(log) if line.strip()]
    except FileNotFoundError:
        return []


def main():
    totals, failed, shown, kills = [0, 0, 0], [], [], {}
    for log, status in zip(sys.argv[1::2], map(int, sys.argv[2::2])):
        tests = read(log)
        failed_before = len(failed)
        for test in tests:
            counts = cases(test)
            totals = [a + b for a, b in zip(totals, counts)]
            if counts[1]:
                failed.append(test["name"])
            name = test["name"].split(" / ")[-1]
            shown += [(kind, f"{kind} {name}: {text}")
                      for kind, text in re.findall(r"^(MUTANT|NOTE|ONCE|SKIP) +(.*)$", test.get("stdout", ""), re.M)]
            killed = sum(map(int, re.findall(r"^KILLS (\d+)$", test.get("stdout", ""), re.M)))
            if killed:
                kills[name] = kills.get(name, 0) + killed
        if not tests or (status and len(failed) == failed_before):
            failed.append("meson test")
            totals[1] += 1
    for _, line in sorted(shown, key=lambda entry: ("MUTANT", "NOTE", "ONCE", "SKIP").index(entry[0])):
        print(line)
    if kills:
        print(f"{sum(kills.values())} kills in all:", ", ".join(f"{name} {n}" for name, n in sorted(kills.items(), key=lambda k: -k[1])))
    if failed:
        print("failed:", ", ".join(failed))
    print("%d passed, %d failed, %d skipped" % tuple(totals))
    sys.exit(1 if totals[1] else 0)


main()
