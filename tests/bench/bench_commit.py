"""What a commit costs before its durable write, and how long its record is, for 20 dirty pages.

    bench_commit.py [ROUNDS]

The reference is what comparing and copying those 20 pages takes when one knows which they are.
"""
import shutil
import sys

from measure import *

RECORD = 4096
#        name                      MB   mappings  budget in us
CASES = (("10 MB", 10, 1, 40), ("100 MB", 100, 1, 400), ("1 GiB", 1024, 1, 400), ("10 MB in 200 mappings", 10, 200, None))


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    prepare()
    place = scratch()
    samples = {name: [] for name, *_ in CASES}
    for turn in range(rounds):
        for name, megabytes, mappings, _ in CASES:
            if megabytes > 500 and turn >= 2:
                continue  # it fills a GiB of page cache each time
            store = f"{place}/store"
            samples[name].append(figures([bench("bench_commit"), store, str(megabytes), str(mappings)], CPU))
            shutil.rmtree(store)
    for name, _, _, budget in CASES:
        took, record, least = (median(s[i] for s in samples[name]) for i in range(3))
        report(f"commit before the write, {name}", took, f"{least:.1f} compare and copy alone", None, budget)
        if budget == 40:
            report("record of 20 lines in 20 pages", record, unit="bytes", budget=RECORD)


main()
