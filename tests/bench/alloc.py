"""Runs bench_alloc under each allocator, interleaved, and prints medians and ratios.

    alloc.py BENCH LIBRARY BENCH_DIRTY [ROUNDS]

LIBRARY is ours. The budget: not slower than glibc on any, within 1.5 x of the best of the three on churn and
larson, resident within 1.3 x of glibc. One machine in one run: only the ratios mean something.
The lines that begin with "= " are for the table of scripts/bench.
"""
import glob
import os
import statistics
import subprocess
import sys

WORKLOADS = ("fixed", "churn", "random", "resident", "larson1", "larson2", "realloc1", "realloc8", "handover")
BUDGETED = ("fixed", "churn", "random", "larson1", "larson2", "realloc1")
NEAR_BEST = ("fixed", "churn", "larson1", "larson2")
NOISE = 1.05  # medians of a few rounds differ by this much from run to run


def libraries(ours):
    found = {"glibc": ""}
    for name, pattern in (("jemalloc", "libjemalloc.so.2"), ("mimalloc", "libmimalloc.so.2*")):
        paths = sorted(glob.glob("/usr/lib/x86_64-linux-gnu/" + pattern))
        if paths:
            found[name] = paths[-1]
        else:
            print(f"SKIP {name}: not installed (packages libjemalloc2, libmimalloc2.0)")
    found["ken"] = os.path.abspath(ours)
    return found


def run(command, library):
    env = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "MALLOC_PERTURB_")}
    if library:
        env["LD_PRELOAD"] = library
    out = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    return [float(word) for word in out.stdout.split()]


def dirtied(bench_dirty, chosen):
    """What one turn of 20 (100) frees and mallocs among 20000 objects leaves changed."""
    for pairs in ("20", "100"):
        figures = {name: run([bench_dirty, "20000", pairs], library) for name, library in chosen.items()}
        print(f"dirtied by {pairs} pairs: " + ", ".join(
            f"{name} {int(pages)} pages {int(lines)} lines" for name, (pages, lines) in figures.items()))


def main():
    bench, ours, bench_dirty = sys.argv[1:4]
    rounds = int(sys.argv[4]) if len(sys.argv) > 4 else 5
    chosen = libraries(ours)
    failures, rows = [], []
    head = "".join(f"{name:>10}" for name in chosen)
    print(f"{'ns/op':10}{head}   ken/glibc  ken/best   RSS KiB:{head}  ken/glibc")
    for workload in WORKLOADS:
        samples = {name: [] for name in chosen}
        for _ in range(rounds):
            for name, library in chosen.items():
                samples[name].append(run([bench, workload], library))
        time = {n: statistics.median(s[0] for s in v) for n, v in samples.items()}
        size = {n: statistics.median(s[1] for s in v) for n, v in samples.items()}
        best = min(t for n, t in time.items() if n != "ken")
        to_glibc, to_best = time["ken"] / time["glibc"], time["ken"] / best
        to_size = size["ken"] / size["glibc"]
        print(f"{workload:10}" + "".join(f"{t:10.1f}" for t in time.values())
              + f"   {to_glibc:9.2f} {to_best:9.2f}           "
              + "".join(f"{int(k):10}" for k in size.values()) + f"  {to_size:9.2f}", flush=True)
        if workload in BUDGETED:
            rows.append((f"malloc: {workload}", f"{time['ken']:.1f} ns", f"{time['glibc']:.1f} glibc", to_glibc, NOISE))
        if workload in NEAR_BEST:
            rows.append((f"malloc: {workload}", f"{time['ken']:.1f} ns", f"{best:.1f} the best", to_best, 1.5))
        if workload in ("random", "resident"):
            rows.append((f"malloc: {workload}, resident", f"{int(size['ken'])} KiB", f"{int(size['glibc'])} glibc", to_size, 1.3))
        if workload in BUDGETED and to_glibc > NOISE:
            failures.append(f"{workload}: {to_glibc:.2f} x glibc's time")
        if workload in NEAR_BEST and to_best > 1.5:
            failures.append(f"{workload}: {to_best:.2f} x the best one's time")
        if workload in ("random", "resident") and to_size > 1.3:
            failures.append(f"{workload}: {to_size:.2f} x glibc's memory")
    dirtied(bench_dirty, chosen)
    for failure in failures:
        print("over budget:", failure)
    for name, measured, reference, ratio, budget in rows:
        print(f"= {name} | {measured} | {reference} | {ratio:.2f} | {budget:g} x | {'within' if ratio <= budget else 'OVER'}")


if __name__ == "__main__":
    main()
