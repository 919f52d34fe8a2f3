#!/usr/bin/python3
"""kenrun by itself, with a stand-in for libken: statuses, restarts, signals, descriptors. That a program resumes is
the other system tests' business."""
import os
import pty
import signal
import subprocess
import sys
import time

os.environ["KEN_BARE"] = "1"  # the harness need not look for libken
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *
from kenruns import *

FAULTS = ("SEGV", "BUS", "ILL", "FPE", "ABRT", "SYS")


@case
def status_is_the_commands(t):
    k = Kenrun(t)
    for code in (0, 1, 7, 126, 127, 255):
        expect(k.run("sh", "-c", f"exit {code}"), code)
    expect(k.run("sh", "-c", "kill -TERM $$"), 143)
    expect(k.run("sh", "-c", "kill -PIPE $$"), 141)
    check(len(k.lines()) == 8, "something was started more often than once")


@case
def descriptors_pass_through(t):
    k = Kenrun(t)
    code, out, err = k.run("sh", "-c", "cat; echo error >&2", input="line 1\nline 2\n")
    check((code, out, err) == (0, "line 1\nline 2\n", "error\n"), f"{code} {out!r} {err!r}")
    read, write = os.pipe()
    os.dup2(write, 9)  # kenrun needs a spare descriptor: not one that is in use
    code, out, err = k.run("sh", "-c", "cat; echo nine >&9", input="in\n", pass_fds=(9,))
    check((code, out, os.read(read, 99)) == (0, "in\n", b"nine\n"), f"descriptor 9: {code} {out!r} {err!r}")
    listing = "import os; print(*[d for d in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + d)])"
    _, out, _ = k.run(PYTHON, "-c", listing)
    check(out == "0 1 2\n", f"the program has descriptors {out!r}")
    code, out, err = k.run("sh", "-c", "[ -e /proc/$$/fd/0 ] || echo closed", preexec_fn=lambda: os.close(0))
    check((code, out) == (0, "closed\n"), f"closed input: {code} {out!r} {err!r}")


@case
def arguments_pass_through(t):
    k = Kenrun(t)
    odd = ["", "a b", "*", "new\nline", "--store", "$HOME", "x=y", "'"]
    code, out, err = k.run("--", PYTHON, "-c", "import sys; print(sys.argv[1:])", *odd)
    check((code, out) == (0, f"{odd}\n"), f"{code} {out!r} {err!r}")
    os.symlink(k.script("echo ran $1"), os.path.join(t.dir, "a=b"))
    check(k.run("./a=b", "--fresh")[1] == "ran --fresh\n", "a command with = in its name")


@case
def killed_is_started_again_at_once(t):
    k = Kenrun(t)
    began = time.monotonic()
    result = k.run("--store", "st", "--fresh", "--sync", "process", k.script(DYING), "KILL", "6", "5")
    expect(result, 5, "was killed; starting it again")
    check(time.monotonic() - began < 2, "it took its time")
    check(len(result[2].splitlines()) == 5, f"not one message for each restart: {result[2]!r}")
    lines = k.lines()
    check(len(lines) == 6, f"{len(lines)} starts")
    check("fresh=1" in lines[0] and not any("fresh=1" in x for x in lines[1:]), "fresh is for the first start only")
    check(all(f"store={t.dir}/st sync=process" in x for x in lines), f"the settings: {lines}")


@case
def faults_are_started_again_after_a_pause(t):
    k = Kenrun(t)
    for fault in FAULTS:
        began = time.monotonic()
        expect(k.run(k.script(DYING), fault, "3", "0"), 0, f"crashed (SIG{fault}); starting it again")
        check(time.monotonic() - began > 0.3, f"no pauses after {fault}")
        os.unlink(os.path.join(t.dir, "runs"))


@case
def three_faults_at_one_turn_end_it(t):
    k = Kenrun(t)
    k.fake_kenctl(turn="12")
    expect(k.run("--store", "st", k.script(DYING), "SEGV", "99", "0"), 139, "for the third time at turn 12", "st is kept")
    check(len(k.lines("runs")) == 3, "not three runs")


@case
def faults_at_other_turns_do_not_add_up(t):
    k = Kenrun(t)
    k.fake_kenctl()
    program = k.script("echo run >>runs; n=$(wc -l <runs); echo $n >turn; [ $n -lt 7 ] || exit 4; kill -ABRT $$\n")
    began = time.monotonic()
    expect(k.run(program), 4)
    check(time.monotonic() - began < 2, "the pause grew although the program got further")


@case
def a_kill_between_faults_is_no_fault(t):
    k = Kenrun(t)
    k.fake_kenctl()
    program = k.script("echo run >>runs; case $(wc -l <runs) in 1|3) kill -SEGV $$;; 2|4|5) kill -KILL $$;; esac; exit 3\n")
    expect(k.run(program), 3)
    check(len(k.lines("runs")) == 6, "not six runs")


# In trouble in its first $1 runs, then it exits with $2.
TROUBLED = 'echo run >>runs; [ $(wc -l <runs) -gt $1 ] && exit $2; exit 75\n'


@case
def trouble_is_waited_for(t):
    k = Kenrun(t)
    k.fake_kenctl()
    began = time.monotonic()
    result = k.run("--store", "st", k.script(TROUBLED), "3", "4")
    expect(result, 4, "libken ended it in trouble; starting it again")
    check(time.monotonic() - began > 0.6, "the pauses do not grow")
    check(len(k.lines("runs")) == 4 and len(result[2].splitlines()) == 3, f"{k.lines('runs')}: {result[2]!r}")
    os.unlink(os.path.join(t.dir, "runs"))
    expect(k.run("--restarts", "2", "--store", "st", k.script(TROUBLED), "9", "4"), 75, "no restart is left")
    check(len(k.lines("runs")) == 3, "the limit of restarts is not for trouble")


@case
def trouble_that_stays_ends_it(t):
    k = Kenrun(t)
    k.fake_kenctl()
    k.script("echo $1 >>pauses\n", name="sleep")
    k.env["PATH"] = f"{t.dir}:{k.env['PATH']}"
    expect(k.run("--store", "st", k.script(TROUBLED), "99", "0"), 75, "for the 10th time at turn 1; giving up", "st is kept")
    check(k.lines("pauses") == ["0.1", "0.2", "0.4", "0.8", "1.6", "3.2", "5.0", "5.0", "5.0"], f"{k.lines('pauses')}")
    os.unlink(os.path.join(t.dir, "runs"))
    program = k.script("echo run >>runs; n=$(wc -l <runs); echo $n >turn; [ $n -lt 30 ] || exit 4; exit 75\n")
    expect(k.run("--store", "st", program), 4)
    check(set(k.lines("pauses")[9:]) == {"0.1"}, "the pause grew although the program got further")


@case
def an_exit_with_75_is_no_trouble(t):
    k = Kenrun(t)
    k.fake_kenctl(show="state: finished, status 75")
    expect(k.run("--store", "st", "sh", "-c", "echo run >>runs; exit 75"), 75)
    check(len(k.lines("runs")) == 1, "a program that exited was started again")
    k.say("show", "state: finished, status 3")
    expect(k.run("--store", "st", k.script(TROUBLED), "3", "3"), 3)
    check(len(k.lines("runs")) == 4, "the end of the run before was taken for this one's")


@case
def fresh_until_there_is_a_fresh_store(t):
    """Who dies before it put the old store aside begins afresh the next time."""
    k = Kenrun(t)
    k.fake_kenctl()
    os.mkdir(os.path.join(t.dir, "st"))
    program = k.script("echo run >>runs; case $(wc -l <runs) in 1) exit 75;; 2) kill -9 $$;; 3) mv st old; mkdir st; exit 75;; "
                       "4) kill -9 $$;; esac; exit 5\n")
    expect(k.run("--fresh", "--store", "st", program), 5)
    fresh = ["fresh=1" in line for line in k.lines() if line.startswith("program ") or line.startswith("sh ")]
    check(fresh == [True, True, True, False, False], f"{k.lines()}")


@case
def an_exit_with_137_is_no_death(t):
    k = Kenrun(t)
    k.fake_kenctl(show="program: sh\nstate: finished, status 137")
    expect(k.run("sh", "-c", "echo run >>runs; exit 137"), 137)
    check(len(k.lines("runs")) == 1, "a program that exited was started again")


@case
def a_kill_behind_the_last_turn_changes_nothing(t):
    k = Kenrun(t)
    k.fake_kenctl(show="state: finished, status 3")
    expect(k.run("sh", "-c", "echo run >>runs; kill -9 $$"), 3)
    check(len(k.lines("runs")) == 1, "a program that exited was started again")


@case
def restarts_are_limited(t):
    k = Kenrun(t)
    expect(k.run("--restarts", "2", k.script(DYING), "KILL", "99", "0"), 137, "no restart is left")
    check(len(k.lines("runs")) == 3, f"{len(k.lines('runs'))} runs")
    expect(k.run("--restarts=0", k.script(DYING), "SEGV", "99", "0"), 139, "no restart is left")
    check(len(k.lines("runs")) == 4, "started again without leave")


@case
def signals_are_passed_on_and_end_it(t):
    k = Kenrun(t)
    for name in ("SIGTERM", "SIGINT", "SIGHUP"):
        for handled in (True, False):
            p = listener(k, "0", *([name] if handled else []))
            p.send_signal(getattr(signal, name))
            number = getattr(signal, name)
            want = 9 if handled else 1 if name == "SIGINT" else 128 + number
            if name == "SIGINT" and not handled:  # python turns it into an exception, then dies of it
                want = 130
            got = ended(p)
            check(got == want, f"{name}, {'handled' if handled else 'not handled'}: status {got}, not {want}")
            check(k.lines("signals") == ([name] if handled else []), f"the program got {k.lines('signals')}")
            for file in ("ready", "signals"):
                if os.path.exists(os.path.join(t.dir, file)):
                    os.unlink(os.path.join(t.dir, file))
    check(len(k.lines()) == 6, "something was started again")


@case
def a_program_that_takes_its_time_is_waited_for(t):
    k = Kenrun(t)
    p = listener(k, "2", "SIGTERM", "SIGUSR1")
    p.send_signal(signal.SIGUSR1)
    k.wait_for("signals")
    for n in range(3):
        p.send_signal(signal.SIGTERM)
        k.wait_for("signals", n + 2)
    check(p.poll() is None, "kenrun did not wait")
    check(ended(p) == 9, f"status {p.returncode}")
    check(k.lines("signals") == ["SIGUSR1"] + ["SIGTERM"] * 3, f"the program got {k.lines('signals')}")


@case
def killed_after_sigterm_is_not_started_again(t):
    k = Kenrun(t)
    p = k.popen(k.script("trap 'echo x >>signals; kill -9 $$' TERM; echo >>ready; while :; do sleep 0.05; done\n"))
    k.wait_for("ready")
    p.send_signal(signal.SIGTERM)
    check(ended(p) == 137, f"status {p.returncode}")
    check(len(k.lines()) == 1, "started again")


@case
def an_ignored_signal_stays_ignored(t):
    k = Kenrun(t)
    text = "import signal; print(*[signal.getsignal(s) is signal.SIG_IGN for s in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)])"
    check(k.run(PYTHON, "-c", text)[1] == "False False False\n", "the program ignores what nobody told it to")
    for number, want in ((signal.SIGINT, "True False False"), (signal.SIGQUIT, "False True False"),
                         (signal.SIGHUP, "False False True")):
        out = k.run(PYTHON, "-c", text, preexec_fn=lambda: signal.signal(number, signal.SIG_IGN))[1]
        check(out == want + "\n", f"with {number.name} ignored: {out!r}")


@case
def a_signal_ends_the_pause(t):
    k = Kenrun(t)
    k.env["KEN_CTL"] = k.script("case $1 in turn) exit 1 ;; *) exec '%s' \"$@\" ;; esac\n" % KENCTL, name="ctl")
    p = k.popen(k.script(DYING), "SEGV", "99", "0")
    k.wait_for("runs", 5)  # the pause is 1.6 seconds now
    time.sleep(0.3)
    began = time.monotonic()
    p.send_signal(signal.SIGTERM)
    check(ended(p) == 139, f"status {p.returncode}")
    check(time.monotonic() - began < 1.1, "it slept on")
    check(len(k.lines("runs")) == 5, "started again")


def left_over(session):
    """A process of that session which lives, other than a sleep that a program left."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as f:
                name, fields = f.read().rsplit(")", 1)
        except OSError:
            continue
        fields = fields.split()
        if int(fields[3]) == session and fields[0] not in "ZX" and "sleep" not in name:
            return pid
    return None


@case
def sigterm_at_any_moment_ends_it(t):
    """While the program dies and is started again all the time; nothing may be left running."""
    k = Kenrun(t)
    for i in range(40):
        p = k.popen(k.script("sleep 0.0$1; kill -9 $$\n"), str(t.random.randrange(4)),
                    stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(t.random.uniform(0.03, 0.15))
        p.send_signal(signal.SIGTERM)
        code = ended(p)
        check(code in (143, 137, -15), f"status {code}")
        deadline = time.monotonic() + PATIENCE
        while left := left_over(p.pid):  # its sleep, before it is one, on a busy machine
            check(time.monotonic() < deadline, f"process {left} is left over")
            time.sleep(0.05)


@case
def an_early_signal_waits_for_the_command(t):
    """While the command is not there yet, what would become it ignores SIGINT: it must not be lost."""
    k = Kenrun(t)
    k.fake_kenctl()
    with open(k.env["KEN_CTL"], "w") as f:
        f.write(SLOW_KENCTL.format(python=PYTHON, kenctl=KENCTL))
    for number in (signal.SIGINT, signal.SIGTERM):
        p = k.popen("sleep", "30")
        k.wait_for("launching", 1 + (number == signal.SIGTERM))
        p.send_signal(number)
        check(ended(p) == 128 + number, f"status {p.returncode} after signal {number}")


@case
def a_terminals_interrupt_arrives_once(t):
    k = Kenrun(t)
    master, slave = pty.openpty()
    t.at_end(lambda: os.close(master))

    def own_terminal():
        os.setsid()
        import fcntl, termios
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    p = listener(k, "1", "SIGINT", stdin=slave, stdout=slave, stderr=slave, preexec_fn=own_terminal)
    os.close(slave)
    os.write(master, b"\x03")
    k.wait_for("signals")
    check(ended(p) == 9, f"status {p.returncode}")
    check(k.lines("signals") == ["SIGINT"], f"the program got {k.lines('signals')}")
    check(len(k.lines()) == 1, "started again")


@case
def a_terminal_can_be_read(t):
    k = Kenrun(t)
    master, slave = pty.openpty()
    t.at_end(lambda: os.close(master))
    p = k.popen("sh", "-c", "read x; echo got $x", stdin=slave)
    os.write(master, b"word\n")
    check(p.communicate(timeout=10)[0] == "got word\n", "the program cannot read its terminal")


main()
