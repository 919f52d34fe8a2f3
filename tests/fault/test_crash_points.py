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
import itertools
import multiprocessing
import os
import random
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import companions
import copies
import mortal
import points
import programs
from harness import BUILD, LIB, SEED, Case, Skip, require_aslr

LONG = os.environ.get("KEN_LONG") == "1"
OCCURRENCES = 5 if LONG else 3
SECONDS = float(os.environ.get("KEN_SECONDS", "240"))
ROUNDS = 3  # of pairs
TRIES = 3  # of a run that ends before its death: which turn an output shares with others is the scheduler's
JOBS = int(os.environ.get("KEN_JOBS", "2"))
# Where the first process dies when it is the second one that is looked at.
FIRST_DEATH = {"nameless": "commit.captured:7", "leave": "release.noted:20", "leave_again": "turn.released:1", "told": "turn.released:1", "copy": "release.noted:40",
               "lines": "turn.applied:3", "fresh": None, "unsent": "turn.applied:1", "unsent_heard": "turn.applied:1", "threads": "release.noted:6",
               "renames": "turn.captured:6", "moves": "turn.captured:6", "lending": "loan.carried:2", "workers": "loan.carried:2", "door_server": "turn.applied:12", "door_client": "turn.applied:12"}
ONLY = {"fresh": ("aside.",)}
NEEDED = {"door_server": "door."}  # by the points with these names: only there are they reached
# One of two that talk dies, the other one never.
mortal.WORKLOADS.update({
    "stream_server": (companions.talk("stream", 30, "server"), {}, {}),
    "stream_client": (companions.talk("stream", 30, "client"), {}, {}),
    "renames": (programs.renames, {}, {}),
    "moves": (programs.moves, {}, {}),
    "lending": (companions.lending(), {}, {}),
    "workers": (companions.lending("workers"), {}, {}),
    "door_server": (companions.far("once", 20, "server", "tcp"), {}, {}),
    "door_client": (companions.far("once", 20, "client", "tcp"), {}, {}),
    "copy_sender": (copies.sender, {}, {}),
})


def reached(name):
    """The points that the workload comes to, in order: [those of the first process, of the second]."""
    counts = []
    with tempfile.TemporaryDirectory() as place:
        log = os.path.join(place, "log")
        death = FIRST_DEATH.get(name, "turn.applied:5")
        for schedule in ([], [death]) if death else ([],):
            wrong, _, _ = mortal.run(name, schedule, log=log)
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


Result = collections.namedtuple("Result", "name schedule wrong hits starts seconds")


def is_whole(result):
    """It died of all that it was to die of."""
    return len(result.hits) == len(result.schedule)


def earlier(schedule, missed):
    """The same with the missed death at an earlier occurrence of its point: how often a point comes is in part the scheduler's,
    and in a pair the first death's. None when there is none."""
    point, _, occurrence = schedule[missed].partition(":")
    if int(occurrence or 1) < 2:
        return None
    return schedule[:missed] + [f"{point}:{int(occurrence) // 2}"] + schedule[missed + 1:]


def one(spec):
    name, schedule = spec
    started, tries = time.monotonic(), 0
    while True:
        try:
            wrong, hits, starts = mortal.run(name, schedule)
        except Exception as error:  # the case itself is broken: that is no pass
            wrong, hits, starts = f"{type(error).__name__}: {error}", [], 0
        tries += 1
        if wrong or len(hits) == len(schedule):
            break
        if tries >= TRIES:
            sooner = earlier(schedule, len(hits))
            if not sooner:
                break
            schedule, tries = sooner, TRIES - 1
    return Result(name, schedule, wrong, hits, starts, time.monotonic() - started)


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


def all_pairs(rng, paths):
    """(workload, [first death, second]), each pair of points in one workload."""
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
    return pairs


def needed(pairs, results):
    """Of these pairs so many that each death comes once as the first one and once as the second, as far as it has not."""
    met = {(n, death.split(":")[0]) for result in results if is_whole(result) for n, death in enumerate(result.schedule)}
    chosen = []
    for name, pair in pairs:
        new = {(n, death.split(":")[0]) for n, death in enumerate(pair)} - met
        if new:
            met |= new
            chosen.append((name, pair))
    return chosen


def run_pairs(pool, pairs):
    """Whether the second start comes to a point depends on what the first one died of, and is seen when it is tried: in the
    short suite another pair takes the place of one that cannot be."""
    if LONG:
        return run_some(pool, pairs)
    results = []
    for _ in range(ROUNDS):
        chosen = needed(pairs, results)
        results += pool.imap_unordered(one, chosen, chunksize=1)
        pairs = [pair for pair in pairs if pair not in chosen]
    return results


def is_last(result):
    """It died once, and there was no start behind that: the run was over, or went on in a daemon."""
    return len(result.hits) == 1 == result.starts


def run_some(pool, cases):
    """As many as the time is for. A first death that was found to be the last one is not tried in further pairs."""
    results, until, last = [], time.monotonic() + SECONDS, set()
    cases = iter(cases)
    while time.monotonic() < until:
        chosen = itertools.islice((c for c in cases if len(c[1]) < 2 or (c[0], c[1][0]) not in last), JOBS * 8)
        done = list(pool.imap_unordered(one, chosen, chunksize=1))
        if not done:
            break
        last |= {(r.name, r.schedule[0]) for r in done if is_last(r) and not is_whole(r)}
        results += done
    return results


def hunt(pool, names, paths, results):
    """Points that a workload reaches only now and then (a sync that is late, a thread that happens to commit): tried again and
    again, in those that come near. Returns the runs that died there, and how many were made for it."""
    found, made = [], 0
    for attempt in range(1, 9):
        died = {hit.split(":")[0] for result in results + found for hit in result.hits}
        missing = [point for point in names if point not in died]
        cases = []
        for point in missing:
            near = [name for name in paths if any(at.split(".")[0] == point.split(".")[0] for path in paths[name] for at in path)]
            before = ([f"turn.released:{attempt + 1}"] if attempt % 2 else []), [f"turn.captured:{2 * attempt + 1}"]
            cases += [(name, [*first, point]) for name in near if name not in ONLY for first in before]
        made += len(cases)
        found += [result for result in pool.imap_unordered(one, cases, chunksize=1) if is_whole(result) or result.wrong]
    return found, made


def report(results, names):
    deaths, failed = collections.Counter(), 0
    for r in results:
        deaths.update(hit.split(":")[0] for hit in r.hits)
        if r.wrong:
            failed += 1
            print(f"FAIL {r.name}, dying at {' then '.join(r.schedule)} ({r.seconds:.1f} s): {r.wrong}\n"
                  f"    repeat it: KEN_BUILD={BUILD} {sys.executable} {os.path.abspath(__file__)} {r.name} {' '.join(r.schedule)}")
    unreached = [point for point in names if not deaths[point]]
    for point in unreached:
        print(f"FAIL {point}: no run died there")
    return deaths, failed + len(unreached)


def report_missed(results):
    """The runs in which not all deaths came count as nothing: why."""
    missed = [r for r in results if not is_whole(r) and not r.wrong]
    over = [r for r in missed if is_last(r)]
    for what, runs in (("there is no start behind their first death", over),
                       ("a start does not come to that point", [r for r in missed if r not in over])):
        if runs:
            print(f"NOTE {len(runs)} runs count as nothing, {what}: "
                  + "; ".join(sorted(f"{r.name} {' then '.join(r.schedule)}" for r in runs)))


def impossible():
    """{workload that cannot run here: why}."""
    reasons = {}
    for name, (function, *_) in mortal.WORKLOADS.items():
        t = Case(name)
        try:
            getattr(function, "needs", lambda t: None)(t)
        except Skip as reason:
            reasons[name] = str(reason)
        t.finish(False)
    return reasons


def without(skipped, names):
    """Leaves out the workloads that cannot run, and the points that no other one reaches. Returns how many those are."""
    left_out = []
    for name, reason in skipped.items():
        print(f"SKIP {name}: {reason}")
        del mortal.WORKLOADS[name]
        left_out += [point for point in names if point.startswith(NEEDED.get(name, "-"))]
    names[:] = [point for point in names if point not in left_out]
    return len(left_out)


def main():
    require_aslr()
    if not os.path.exists(LIB):
        print(f"{LIB} does not exist: build it first, with -Dfaults=true\n0 passed, 1 failed, 0 skipped")
        sys.exit(1)
    mortal.models()
    for function, *_ in mortal.WORKLOADS.values():
        getattr(function, "prepare", lambda: None)()
    skipped = impossible()
    if sys.argv[1:] and sys.argv[1] in skipped:
        print(f"SKIP {sys.argv[1]}: {skipped[sys.argv[1]]}")
        sys.exit(77)
    if sys.argv[1:]:
        r = one((sys.argv[1], sys.argv[2:]))
        print(f"died at {r.hits} in {r.seconds:.2f} s: {r.wrong or 'in order'}")
        sys.exit(1 if r.wrong else 0 if is_whole(r) else 2)
    started = time.monotonic()
    names, rng = points.names("FAULT"), random.Random(SEED)
    left_out = without(skipped, names)
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
        further = len(results) - len(cases)
        found, hunted = hunt(pool, names, paths, results)
        pairs = all_pairs(rng, paths)
        twice = run_pairs(pool, pairs)
    results += found + twice
    deaths, wrong = report(results, names)
    failed += wrong
    passed = sum(is_whole(r) and not r.wrong for r in results)
    slow = max(results, key=lambda r: r.seconds)
    print(f"NOTE {len(names)} points, {len(results)} runs, {sum(deaths.values())} deaths; {further} of {len(more)} further ones and "
          f"{len(twice)} of {len(pairs)} pairs were tried, of these {sum(map(is_whole, twice))} died twice; {hunted} runs to meet what is rare; "
          f"{time.monotonic() - started:.0f} s, slowest {slow.seconds:.1f} s ({slow.name} {slow.schedule}), seed {SEED}")
    report_missed(results)
    print(f"{passed} passed, {failed} failed, {left_out} skipped", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
