#!/usr/bin/python3
"""libken broken on purpose, one way at a time: for each MUTANT() of the source, the quickest test that must fail.

One build with -Dfaults=true has them all; KEN_MUTANT chooses one when a program starts. First every test is run on
libken as it is, and must pass; then each mutant's, which must fail. A mutant that no test is named for, or that its
tests let pass, is a failure of the tests.

    test_mutants.py [MUTANT...]

The table of who caught what is one line for each, `MUTANT name caught by test`, which tests/totals.py shows at the end of every
run of scripts/check.

Environment: KEN_BUILD, KEN_JOBS, KEN_LONG=1 (a mutant has to be caught by each of its tests, not by the first).
"""
import multiprocessing
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")
sys.path.insert(0, HERE)
import points

BUILD = os.path.abspath(os.environ.get("KEN_BUILD", os.path.join(ROOT, "build")))
JOBS = int(os.environ.get("KEN_JOBS", "2"))
LIMIT = 60
SKIPPED = 77
PASSES = (0, 2, SKIPPED)  # 2: it did not come to die where it should


def unit(name, *chosen):
    return ["unit " + " ".join((name,) + chosen), os.path.join(BUILD, "tests", "test_" + name), "--jobs=1", "--timeout=10",
            *(f"--filter={c}" for c in chosen)]


def power(cuts=20000):
    return ["power", os.path.join(BUILD, "tests", "test_power"), "1", str(cuts)]


def crash(workload, *deaths):
    return [f"crash {workload} {' '.join(deaths)}", sys.executable, os.path.join(HERE, "test_crash_points.py"), workload, *deaths]


def system(name, case, kills=5):
    return [f"system {name} {case} {kills}", "/usr/bin/env", f"KEN_KILLS={kills}", sys.executable, os.path.join(HERE, "..", "system", f"test_{name}.py"), case]


CAUGHT_BY = {
    "log.not_flushed": [power()],
    "log.recycled_before_sync": [power()],
    "log.recycled_without_note": [power()],
    "log.claims_unsynced": [power()],
    "sync.left_out": [power()],
    "recover.no_checksum": [power()],
    "recover.any_run": [unit("recover", "*/records_of_another_run")],
    "recover.any_sequence": [power()],
    "recover.no_look_behind": [unit("recover", "*/flipped_bits")],
    "recover.any_boot": [unit("recover", "*/*boot*"), unit("recover")],
    "recover.last_forgotten": [power()],
    "recover.nothing_owed": [unit("loose", "*/a_killed*")],
    "loose.never_settled": [unit("loose", "*/so_it_has*"), power()],
    "loose.settled_late": [power()],
    "bulk.not_recalled": [unit("lending", "*/what_went_again*")],
    "bulk.taken_early": [unit("channel", "*/bulk*")],
    "apply.left_out": [power()],
    "apply.stale_twin": [unit("log", "*/applies_to_the_twin"), crash("kitchen", "turn.applied:9")],
    "apply.no_punch": [power()],
    "apply.no_sum": [power()],
    "verify.left_out": [unit("verify", "*/a_flipped_bit*"), system("badstore", "rotten_page_read")],
    "verify.no_meta": [unit("verify", "*/metadata*")],
    "image.drop_forgotten": [crash("remap")],
    "image.not_present": [crash("counter", "turn.applied:5")],
    "credentials.root_lost": [system("privileges", "is_jailed")],
    "tracker.page_missed": [crash("counter", "turn.applied:8")],
    "tracker.hot_forgotten": [unit("tracker_apart", "*/hot_pages*")],
    "tracker.untouched_forgotten": [unit("tracker_apart", "*/what_holds_nothing*")],
    "wait.nobody_ends_the_turn": [system("servers", "tickets_busy")],
    "diff.line_missed": [crash("kitchen", "turn.applied:14")],
    "format.aside_unsynced": [power()],
    "format.super_unsynced": [power()],
    "format.image_unsynced": [power()],
    "store.no_lock": [unit("store", "*/lock_tells_the_holder")],
    "refusal.forgotten": [system("sockets", "a_port_that_is_open_again_while_its_peer_is_down")],
    "pidfd.child_lives": [system("process", "children_by_pidfds")],
    "moved.not_undone": [system("names", "new_names"), system("names", "nameless")],
    "nameless.not_looked_for": [system("names", "renamed_by_others")],
    "time.vdso_left_alone": [system("clocks", "reboot_alone")],
    "altstack.unused": [system("process", "stacks_without_room")],
    "stack.below_is_dead": [system("process", "alternate_stack_within_the_main_one")],
    "restore.pin_unused": [system("store_place", "replaced_executable")],
    "turn.released_before_commit": [crash("counter", "commit.captured:6")],
    "exit.not_finished": [system("ends", "end_return")],
    "boot.old_progress": [crash("leave_again")],
    "threads.wrong_tls": [crash("threads", "turn.applied:9")],
    "threads.registers_lost": [crash("threads", "turn.applied:9")],
    "channel.no_deduplication": [unit("channel")],
    "channel.acknowledged_early": [unit("channel")],
    "channel.sent_early": [unit("channel")],
    "landing.left_in_the_window": [unit("landing", "*/what_is_unread*")],
    "release.progress_ignored": [crash("leave", "release.noted:9")],
    "inbox.position_lost": [crash("copy", "inbox.taken:6")],
    "inbox.none": [crash("copy", "commit.captured:3")],
    "write.unclaimed": [crash("told", "commit.captured:1")],
    "nameless.not_kept": [system("names", "nameless")],
    "reopen.no_offset": [system("process", "files")],
    "signals.mask_lost": [system("process", "signals", 40)],
    "signals.pending_lost": [system("process", "signals", 40)],
    "signals.deferred_lost": [unit("signal_wrapper", "*/what_comes_while_busy*")],
    "bind.impatient": [system("restarts", "a_port_that_is_not_free_yet")],
    "nameless.not_found": [crash("nameless", "commit.captured:7")],
    "nameless.not_given_back": [crash("nameless", "turn.captured:6")],
    "nameless.dropped": [crash("nameless", "turn.applied:9")],
    "reopen.deadline_lost": [system("conformance", "descriptors_killed", 20)],
    "reopen.count_lost": [system("conformance", "descriptors_killed", 20)],
    "reopen.watches_lost": [system("events", "waits")],
    "reopen.pipe_empty": [system("process", "pipes", 20)],
    "locks.lost": [system("conformance", "descriptors_killed", 20)],
    "stream.bell_silent": [system("motion", "bank_over_tcp", 3)],
    "door.shut": [crash("door_server", "turn.applied:12")],
    "stream.never_plain": [system("sockets", "a_port_that_another_takes")],
    "stream.patient": [system("sockets", "the_same_endings_over_ipv4")],
    "stream.queue_unbounded": [system("crowds", "a_queue_that_is_full")],
    "alert.silent": [system("crowds", "threads_that_wait_apart")],
    "transport.lent_again": [unit("lending", "*/what_another*")],
    "transport.stranded": [unit("transport", "*/one_that_cannot_end*")],
    "refusal.silent": [system("hosts", "ports_that_a_living_peer_has_closed")],
    "stream.window_shut": [system("sockets", "the_same_over_ipv4")],
    "loan.loss_untold": [system("sockets", "what_a_child_had_is_reset")],
    "terminal.modes_lost": [system("process", "terminal")],
    "unsent.forgotten": [crash("unsent")],
    "heir.outlives": [crash("daemon", "heir.offered:1")],
    "commit.shared_missed": [system("memory", "shared_memory")],
    "commit.closed_missed": [system("memory", "kitchen_each_alone")],
    "credentials.lost": [system("privileges", "drops_root")],
    "time.timer_lost": [system("clocks", "killed_beside_waits")],
    "time.itimer_lost": [system("process", "alarm")],
    "heir.settles_early": [system("daemons", "way_lingers")],
    "heir.unfollowed": [system("daemons", "a_leader_that_is_slow")],
    "heir.lead_forgotten": [system("daemons", "a_killed_first_child")],
    "heir.lock_tells_all": [system("daemons", "parts_slowly")],
    "limits.umask_lost": [system("process", "signals")],
}


def run(spec):
    """Runs a test on a mutant ("" for libken as it is). Returns (mutant, test, status, seconds, output)."""
    mutant, (title, *command) = spec
    environment = dict(os.environ, KEN_BUILD=BUILD, KEN_PATIENCE="5", KEN_SEED="1", PYTHONDONTWRITEBYTECODE="1")
    environment.pop("KEN_LIB", None)
    if mutant:
        environment["KEN_MUTANT"] = mutant
    started = time.monotonic()
    try:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT)
        status, output = done.returncode, done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired:
        status, output = "time limit", f"it did not end within {LIMIT} s"
    return mutant, title, status, time.monotonic() - started, output


TRIES = 5


def hunt(mutant):
    """The first test that fails for the mutant."""
    results = []
    for test in CAUGHT_BY.get(mutant, []):
        for _ in range(TRIES):  # what threads do between two kills differs from run to run
            result = run((mutant, test))
            if result[2] not in (0, 2):
                break
        results.append(result)
        if results[-1][2] not in PASSES and os.environ.get("KEN_LONG") != "1":
            break
    return mutant, results


def word_of(output):
    """The line that says what was wrong."""
    for line in output.splitlines():
        if any(word in line for word in ("FAIL", "died at", "Assertion", "[----]", "CRASH")):
            return line.strip()[:110]
    return output.strip().splitlines()[-1][:110] if output.strip() else ""


def main():
    started, names = time.monotonic(), points.names("MUTANT")
    chosen = [name for name in names if not sys.argv[1:] or name in sys.argv[1:]]
    passed = failed = skipped = 0
    impossible = set()  # tests that cannot run here
    with multiprocessing.Pool(JOBS) as pool:
        tests = {test[0]: test for name in chosen for test in CAUGHT_BY.get(name, [])}
        for _, title, status, seconds, output in pool.imap(run, [("", test) for test in tests.values()], chunksize=1):
            if status == SKIPPED:
                impossible.add(title)
                print(f"SKIP {title}: {word_of(output)}")
            elif status:
                failed += 1
                print(f"FAIL {title}: status {status} on libken as it is, so it catches nothing: {output[-600:]}")
        for name, results in pool.imap(hunt, chosen, chunksize=1):
            if results and all(title in impossible for _, title, *_ in results):
                skipped += 1
                continue
            caught = [r for r in results if r[2] not in PASSES]
            good = len(caught) == len(results) if os.environ.get("KEN_LONG") == "1" else bool(caught)
            passed += bool(results and good)
            failed += not (results and good)
            for _, title, status, seconds, output in caught or [(name, "nothing", 0, 0, "")]:
                print(f"{'MUTANT' if results and good else 'FAIL'} {name:28} caught by {title:42} {seconds:5.1f} s  {word_of(output)}",
                      flush=True)
    for name in set(CAUGHT_BY) - set(names):
        failed += 1
        print(f"FAIL {name} is no mutant of the source")
    print(f"NOTE {len(chosen)} mutants, {passed} caught, {time.monotonic() - started:.0f} s")
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
