#!/usr/bin/python3
"""Lets each system call of libken's own fail with each error that it can answer: what comes of it is a retry or one clear line,
never a lost answer, a store that is damaged, or a program that hangs.

Each workload is run once with a list of the calls that it makes (heap/fault.h), in its first process and in the one that
resumes: a call is a place in the source and the way that led there. Then it is run again for each call and each error
(call_errors.py), which comes once, or from then on.

    test_errors.py                               as many as fit into KEN_SECONDS (default 65; long suite 300): each call that a look
                                                 at the source finds comes once before any comes again
    test_errors.py WORKLOAD START CALL [TIMES]   one case: KEN_FAULT_CALL for the given start of the program

Environment: KEN_BUILD (a build with -Dfaults=true), KEN_SEED, KEN_LONG=1 (which ones, the seed says), KEN_JOBS, KEN_ONLY (a pattern for
`workload start call`), KEN_VERBOSE=1 (each case, and the calls in the source that no workload reaches).
"""
import collections
import multiprocessing
import os
import random
import re
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
os.environ.setdefault("KEN_PATIENCE", "8")
import call_errors
import erring
import mortal
import unreached
from harness import BUILD, LIB, SEED, Case, Skip, require_aslr
from programs import WORKLOADS

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
LONG = os.environ.get("KEN_LONG") == "1"
VERBOSE = os.environ.get("KEN_VERBOSE") == "1"
# In the short suite the same sample each time: a failure there is one of the change at hand.
SEED = SEED if LONG or "KEN_SEED" in os.environ else 1
ONLY = os.environ.get("KEN_ONLY", ".")
SECONDS = float(os.environ.get("KEN_SECONDS", "300" if LONG else "65"))
JOBS = int(os.environ.get("KEN_JOBS", "2"))
LASTING = "EIO", "ENOSPC", "EDQUOT", "EMFILE", "ENOMEM"  # troubles that stay


# Each read of the store by a process that resumes: one of them, when it failed, made it begin afresh over a good store.
ALWAYS = [("counter", 1, f"pread64:{n}:EIO") for n in range(1, 9)]


def plan_of(name, start, call):
    _, _, first, second = WORKLOADS[name]
    return [(None, first), (call, second)] if start else [(call, first)]


def run(name, plan, lists=None):
    function, env, _, _ = WORKLOADS[name]
    return erring.run(name, function, env, plan, lists)


def reached(name):
    """The calls that each start makes: [{(site, number, command): times}, ...]."""
    with tempfile.TemporaryDirectory() as place:
        lists = os.path.join(place, "calls")
        try:
            wrong, _, _ = run(name, plan_of(name, 1, None), lists)
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
        calls = []
        for start in (0, 1):
            path = f"{lists}.{start}"
            lines = open(path).read().splitlines() if os.path.exists(path) else []
            calls.append(collections.Counter((site, int(number), int(command))
                                             for site, number, command in (line.split() for line in lines)))
    return name, calls, wrong


def one(spec):
    name, start, call = spec
    began = time.monotonic()
    try:
        wrong, failed, outcome = run(name, plan_of(name, start, call))
    except Exception as error:  # the case itself is broken: that is no pass
        wrong, failed, outcome = f"{type(error).__name__}: {error}", 0, "broken"
    return name, start, call, wrong, failed, outcome, time.monotonic() - began


def occurrences(times):
    """The first, one in the middle, and for a long run the second and the last."""
    chosen = [1] if times < 4 else [1, times // 2 + 1]
    return sorted(set(chosen + ([2, times] if LONG and times > 1 else [])))


def choose(rng, reach):
    """All cases, each call in one workload: [(workload, start, call)], and the calls that no table tells of."""
    cases, untold, seen = [], set(), set()
    names = list(reach)
    rng.shuffle(names)
    names.sort(key=lambda name: name in ("fresh", "unsent_heard"))  # what they reach that others do as well is better seen there
    for name in names:
        for start, calls in enumerate(reach[name]):
            for (site, number, command), times in calls.items():
                errors = call_errors.errors_of(site, number, command)
                if errors is None:
                    untold.add(f"{site.split('@')[0]}: {call_errors.NAMES.get(number, number)}")
                if (site, start) in seen or not errors or (name == "fresh" and start):
                    continue
                seen.add((site, start))
                for error in errors:
                    if error in ("EAGAIN", "ENOMEM") and name in ("edge", "kinds", "half_done") and call_errors.receives(number):
                        continue  # the kernel never says EAGAIN with input there; and these do not tell one error from another
                    cases += [(name, start, f"{site}:{n}:{error}") for n in occurrences(times)]
                    if error in LASTING:
                        cases.append((name, start, f"{site}:1:{error}:{erring.FOR_GOOD}"))
    rng.shuffle(cases)
    # Each place in the source comes once before any comes again, so that a sample has seen nearly all of them. The store's disk
    # has one place for all who use it: there each way counts.
    turns = collections.Counter()
    ordered = []
    for case in cases:
        place = case[1], case[2].split(":" if case[2].startswith("heap/disk.c") else "@")[0]
        ordered.append((turns[place], case))
        turns[place] += 1
    return [case for _, case in sorted(ordered, key=lambda entry: entry[0])], untold


def of_the_source():
    """Every place that makes a call, and its line, as far as a look at the text tells."""
    found = {}
    for room in ("heap", "net", "shim"):
        for name in os.listdir(os.path.join(ROOT, room)):
            if name.endswith((".c", ".h")) and not name.startswith(("kenctl", "fault", "sys.h")):
                with open(os.path.join(ROOT, room, name)) as f:
                    found.update({f"{room}/{name}#{n}": line for n, line in enumerate(f, 1)
                                  if re.search(r"\bsys\(SYS_(?!exit|getpid|gettid)|FAULT_CALL\(", line)})
    return found


def judge_reach(sites):
    """What is wrong with the calls that nothing reached, and how many there are for each reason."""
    source, reasons, wrong = of_the_source(), collections.Counter(), []
    for site in sorted(set(source) - sites):
        file, text = site.split("#")[0], source[site]
        reason = unreached.reason_of(file, text) if unreached.can_fail(text) else "cannot fail"
        reasons[reason] += 1
        if not reason:
            wrong.append(f"{site}: no workload reaches `{text.strip()}`, and unreached.py gives no reason")
    by_file = collections.defaultdict(list)
    for site, text in source.items():
        by_file[site.split("#")[0]].append(text)
    return wrong + [f"unreached.py: there is no such line any more: {entry}" for entry in unreached.stale(by_file)], reasons


def show(result):
    name, start, call, wrong, failed, outcome, seconds = result
    if wrong:
        print(f"FAIL {name}, start {start}, {call} ({seconds:.1f} s): {wrong}\n    repeat it: KEN_BUILD={BUILD} "
              f"{sys.executable} {os.path.abspath(__file__)} {name} {start} {call}", flush=True)
    elif VERBOSE:
        print(f"{outcome if failed else 'missed':8} {name} {start} {call} ({seconds:.1f} s)", flush=True)


def sweep(pool, cases, until):
    results = []
    size = JOBS * 8
    for at in range(0, len(cases), size):
        if time.monotonic() > until:
            break
        for result in pool.imap_unordered(one, cases[at:at + size], chunksize=1):
            show(result)
            results.append(result)
    return [confirmed(result) for result in results]


def confirmed(result):
    """A failure counts when it comes again, alone on the machine, in one of three tries: a datagram that a busy loopback lost
    looks the same as one that libken lost. One that does not come again is shown all the same."""
    name, start, call, wrong, *_ = result
    if not wrong:
        return result
    for _ in range(3):
        again = one((name, start, call))
        if again[3]:
            return result
    print(f"ONCE {name}, start {start}, {call}: not in three further runs", flush=True)
    return again


def repeat(workload, start, call, times=1):
    for _ in range(int(times)):
        result = one((workload, int(start), call))
        show(result)
        if result[3] or not result[4]:
            break
    print(f"{'a call failed' if result[4] else 'no call failed'}; it {result[5]} ({result[6]:.1f} s)")
    sys.exit(1 if result[3] else 0 if result[4] else 2)


def impossible():
    """The workloads that cannot run here."""
    names = []
    for name, (function, *_) in WORKLOADS.items():
        t = Case(name)
        try:
            getattr(function, "needs", lambda t: None)(t)
        except Skip as reason:
            print(f"SKIP {name}: {reason}")
            names.append(name)
        t.finish(False)
    return names


def main():
    require_aslr()
    if not os.path.exists(LIB):
        print(f"{LIB} does not exist: build it first, with -Dfaults=true\n0 passed, 1 failed, 0 skipped")
        sys.exit(1)
    mortal.models()
    skipped = impossible()
    for name in skipped:
        del WORKLOADS[name]
    for function, *_ in WORKLOADS.values():
        getattr(function, "prepare", lambda: None)()
    if sys.argv[1:]:
        repeat(*sys.argv[1:])
    started, reach, broken = time.monotonic(), {}, 0
    with multiprocessing.Pool(JOBS) as pool:
        for name, calls, wrong in pool.imap_unordered(reached, WORKLOADS, chunksize=1):
            reach[name] = calls
            if wrong:
                broken += 1
                print(f"FAIL {name}, without a fault: {wrong}")
        cases, untold = choose(random.Random(SEED), {name: reach[name] for name in WORKLOADS})
        chosen = ALWAYS + [c for c in cases if re.search(ONLY, f"{c[0]} {c[1]} {c[2]}")]
        results = sweep(pool, chosen, time.monotonic() + SECONDS)
    for call in sorted(untold):
        print(f"FAIL {call}: call_errors.py does not say what it can answer")
    sites = {site.split("@")[0] for calls in reach.values() for start in calls for site, _, _ in start}
    ways = {site for calls in reach.values() for start in calls for site, _, _ in start}
    if VERBOSE:
        print("no workload reaches:", " ".join(sorted(set(of_the_source()) - sites)))
    wrong_reach, reasons = judge_reach(sites)
    judged = LONG and not skipped  # the short suite's sample is too small for what is reached now and then
    for line in wrong_reach if judged else ():
        print(f"FAIL {line}")
    broken += len(wrong_reach) if judged else 0
    print("NOTE not reached:", "; ".join(f"{n} {reason}" for reason, n in reasons.most_common()))
    kenrun = erring.under_kenrun()
    if kenrun:
        print(f"FAIL a program in trouble under kenrun: {kenrun}")
    wrong, missed = sum(bool(r[3]) for r in results), sum(not r[4] for r in results)
    outcomes = collections.Counter(r[5] for r in results if r[4] and not r[3])
    print(f"NOTE {len(sites & set(of_the_source()))} calls of {len(of_the_source())} in the source, reached in {len(ways)} ways by {len(reach)} workloads; "
          f"{len(cases)} cases, {len(results)} of them run: {dict(outcomes)}, in {missed} the call did not come; "
          f"{time.monotonic() - started:.0f} s, seed {SEED}")
    failed = wrong + broken + len(untold) + bool(kenrun)
    print(f"{len(results) - wrong + (not kenrun)} passed, {failed} failed, {len(skipped)} skipped", flush=True)
    sys.exit(1 if failed or not outcomes else 0)


if __name__ == "__main__":
    main()
