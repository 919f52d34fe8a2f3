"""Stopping eight threads for a commit: from the start of the stop until the last one stands.

    bench_stop.py [ROUNDS [TURNS]]

Eight that compute, eight that sleep (in a futex, in poll), four of each. The reference stops the same eight by signals
alone, sleeping or not, in the same round and as far apart. Threads that compute are more than there are processors: on a busy
machine a stop waits until each has had its turn on one, in both.
"""
import sys

from measure import *

BUDGET = 100


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    turns = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    prepare()
    place = scratch()
    for kind in ("compute", "sleep", "mixed"):
        ken, bare, most, most_bare = [], [], [], []
        for n in range(rounds):
            store = f"{place}/{kind}-{n}"
            count = str(turns // 5 if kind == "mixed" else turns)  # its turns are far apart
            done = subprocess.run([bench("bench_stop"), kind, count, store], capture_output=True, text=True, timeout=120,
                                  env=environment(store))
            if done.returncode:
                raise SystemExit(f"bench_stop: status {done.returncode}: {done.stderr.strip()}")
            middle, high, _, apart = map(float, done.stdout.split())
            ken.append(middle)
            most.append(high)
            middle, high, *_ = figures([bench("bench_stop"), kind, count, str(int(apart))])
            bare.append(middle)
            most_bare.append(high)
        report(f"stop 8 threads, {kind}", median(ken), f"{median(bare):.1f} by signals alone", budget=BUDGET)
        note(f"{ratio_of(ken, bare):.2f} of the reference; 90th percentile {median(most):.1f} us, reference {median(most_bare):.1f} us")


main()
