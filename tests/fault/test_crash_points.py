#!/usr/bin/python3
"""Dies at every named point of libken, and at its first occurrences; a restart must go on as if nothing had been.

The points are read from the source. Each workload is run once to see which points it reaches, in its first process and
in the one that resumes; then it is run again for each death, and for pairs: it dies, and dies again while it recovers, or
while it begins once more because nothing was durable. A point that no death came to fails the suite.

    test_crash_points.py [WORKLOAD FAULT [FAULT...]]     one case: what each start of the program dies of; the exit status
                                                         is 2 when it ended before that

Environment: KEN_BUILD (a build with -Dfaults=true), KEN_SEED, KEN_LONG=1 (every workload for every point, and every pair, as
many of each as fit into KEN_SECONDS, default 240; without it each point is once the first death and once the second), KEN_JOBS.
"""
import collections
import multiprocessing
import os
import random
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import companions
import mortal
import points
from harness import BUILD, LIB, SEED, require_aslr

LONG = os.environ.get("KEN_LONG") == "1"
OCCURRENCES = 5 if LONG else 3
SECONDS = float(os.environ.get("KEN_SECONDS", "240"))
TRIES = 3  # of a run that ends before its death: which turn an output shares with others is the scheduler's
JOBS = int(os.environ.get("KEN_JOBS", "2"))
# Where the first process dies when it is the second one that is looked at.
FIRST_DEATH = {"nameless": "commit.captured:7", "leave": "release.noted:20", "leave_again": "turn.released:1", "told": "turn.released:1", "copy": "release.noted:40",
               "lines": "turn.applied:3", "fresh": None, "unsent": "turn.applied:1", "unsent_heard": "turn.applied:1", "threads": "release.noted:6"}
ONLY = {"fresh": ("aside.",)}
# One of two that talk dies, the other one never.
mortal.WORKLOADS.update({
    "stream_server": (companions.talk("stream", 30, "server"), {}, {}),
    "stream_client": (companions.talk("stream", 30, "client"), {}, {}),
})


def reached(name):
    """The points that the workload comes to, in order: [those of the first process, of the second]."""
    counts = []
    with tempfile.TemporaryDirectory() as place:
        log = os.path.join(place, "log")
        death = FIRST_DEATH.get(name, "turn.applied:5")
        for schedule in ([], [death]) if death else ([],):
            wrong, _ = mortal.run(name, schedule, log=log)
            path = f"{log}.{len(schedule)}"
            lines = open(path).read().split() if os.path.exists(path) else []
            wanted = ONLY.get(name, ("",))
            counts.append([line for line in lines if line.startswith(wanted)])
            if wrong:
                return name, counts, wrong
            for n in range(3):
                if os.path.exists(f"{log}.{n}"):
                    os.unlink(f"{log}.{n}")
    return name, counts, None


def one(spec):
    name, schedule = spec
    started = time.monotonic()
    for _ in range(TRIES):
        try:
            wrong, hits = mortal.run(name, schedule)
        except Exception as error:  # the case itself is broken: that is no pass
            wrong, hits = f"{type(error).__name__}: {error}", []
        if wrong or len(hits) == len(schedule):
            break
    return name, schedule, wrong, hits, time.monotonic() - started


def choose(rng, counts, names):
    """Which deaths to die: (workload, schedule). Each occurrence in another workload, as far as there are any; and all that are
    left."""
    cases, more = [], []
    for point in names:
        cells = [(name, start) for name in counts for start in range(len(counts[name])) if counts[name][start][point]]
        rng.shuffle(cells)
        for occurrence in range(1, OCCURRENCES + 1):
            fit = [c for c in cells if counts[c[0]][c[1]][point] >= occurrence]
            chosen = fit[occurrence - 1:occurrence] or fit[:1]
            for name, start in fit:
                before = [FIRST_DEATH.get(name, "turn.applied:5")] if start else []
                (cases if (name, start) in chosen else more).append((name, before + [f"{point}:{occurrence}"]))
    rng.shuffle(more)
    return cases, more if LONG else []


def deaths_of(first, second):
    """The deaths that make a pair: ([(first death, ...], [(second death, ...]) for a process that has something to recover,
    and the same for one that begins again."""
    durable = first.index("commit.durable") if "commit.durable" in first else len(first)
    begins, later = first[:durable], collections.Counter(first[:durable])
    running = []
    for point in first[durable:]:
        later[point] += 1
        if not any(death.startswith(point + ":") for death in running):
            running.append(f"{point}:{later[point]}")
    end = second.index("resume.done") + 1 if "resume.done" in second else 0
    recovering = [f"{point}:{n}" for point, times in collections.Counter(second[:end]).items() for n in {1, min(times, 2)}]
    begins = [f"{point}:1" for point in dict.fromkeys(begins)]
    return (running, recovering), (begins, begins)


def choose_pairs(rng, paths):
    """(workload, [first death, second]), each pair of points in one workload; in the short suite so many that each death comes."""
    pairs, seen = [], set()
    names = [name for name in paths if len(paths[name]) == 2]
    rng.shuffle(names)
    for name in names:
        for firsts, seconds in deaths_of(*paths[name]):
            product = [(a, b) for a in firsts for b in seconds]
            rng.shuffle(product)
            for pair in product:
                points = tuple(death.split(":")[0] for death in pair)
                if points not in seen:
                    seen.add(points)
                    pairs.append((name, list(pair)))
    rng.shuffle(pairs)
    if LONG:
        return pairs
    chosen, met = [], set()
    for name, pair in pairs:
        new = {(n, death.split(":")[0]) for n, death in enumerate(pair)} - met
        if new:
            met |= new
            chosen.append((name, pair))
    return chosen


def run_some(pool, cases):
    """As many as the time is for."""
    results, until, size = [], time.monotonic() + SECONDS, JOBS * 8
    for at in range(0, len(cases), size):
        if time.monotonic() > until:
            break
        results += pool.imap_unordered(one, cases[at:at + size], chunksize=1)
    return results


def hunt(pool, names, results):
    """Points that a workload reaches only now and then (a sync that is late, a thread that happens to commit): tried in
    all of them, again and again."""
    for attempt in range(1, 9):
        died = {hit.split(":")[0] for _, _, _, hits, _ in results for hit in hits}
        missing = [point for point in names if point not in died]
        if not missing:
            return
        cases = []
        for point in missing:
            for name in mortal.WORKLOADS:
                if name not in ONLY:
                    cases.append((name, [f"turn.released:{attempt + 1}", point] if attempt % 2 else [point]))
        results += pool.imap_unordered(one, cases, chunksize=1)


def report(results, names):
    deaths, failed = collections.Counter(), 0
    for name, schedule, wrong, hits, seconds in results:
        deaths.update(hit.split(":")[0] for hit in hits)
        if wrong:
            failed += 1
            print(f"FAIL {name}, dying at {' then '.join(schedule)} ({seconds:.1f} s): {wrong}\n"
                  f"    repeat it: KEN_BUILD={BUILD} {sys.executable} {os.path.abspath(__file__)} {name} {' '.join(schedule)}")
    unreached = [point for point in names if not deaths[point]]
    for point in unreached:
        print(f"FAIL {point}: no run died there")
    return deaths, failed + len(unreached)


def main():
    require_aslr()
    if not os.path.exists(LIB):
        print(f"{LIB} does not exist: build it first, with -Dfaults=true\n0 passed, 1 failed, 0 skipped")
        sys.exit(1)
    mortal.models()
    if sys.argv[1:]:
        _, schedule, wrong, hits, seconds = one((sys.argv[1], sys.argv[2:]))
        print(f"died at {hits} in {seconds:.2f} s: {wrong or 'in order'}")
        sys.exit(1 if wrong else 2 if len(hits) < len(schedule) else 0)
    started = time.monotonic()
    names, rng = points.names("FAULT"), random.Random(SEED)
    with multiprocessing.Pool(JOBS) as pool:
        paths, failed = {}, 0
        for name, path, wrong in pool.imap_unordered(reached, mortal.WORKLOADS, chunksize=1):
            paths[name] = path
            if wrong:
                failed += 1
                print(f"FAIL {name}, without a fault: {wrong}")
        paths = {name: paths[name] for name in mortal.WORKLOADS}
        counts = {name: [collections.Counter(path) for path in paths[name]] for name in paths}
        cases, more = choose(rng, counts, names)
        results = list(pool.imap_unordered(one, cases, chunksize=1))
        results += run_some(pool, more)
        hunt(pool, names, results)
        pairs = choose_pairs(rng, paths)
        twice = run_some(pool, pairs)
    deaths, wrong = report(results + twice, names)
    failed += wrong
    both = sum(len(hits) == 2 for _, _, _, hits, _ in twice)
    further = len(results) - len(cases)
    results += twice
    whole = sum(len(hits) == len(schedule) and not wrong for _, schedule, wrong, hits, _ in results)
    missed = sum(len(hits) < len(schedule) and not wrong for _, schedule, wrong, hits, _ in results)
    slow = max(results, key=lambda r: r[4])
    print(f"NOTE {len(names)} points, {len(results)} runs, {sum(deaths.values())} deaths; {further} of "
          f"{len(more)} further ones and {len(twice)} of {len(pairs)} pairs were tried, of these {both} died twice; {time.monotonic() - started:.0f} s, slowest {slow[4]:.1f} s ({slow[0]} {slow[1]}), seed {SEED}")
    if missed:
        print(f"NOTE {missed} runs ended well before all of their deaths; they count as nothing")
    print(f"{whole} passed, {failed} failed, 0 skipped", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
