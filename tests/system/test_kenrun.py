#!/usr/bin/python3
"""kenrun and kenctl by themselves: a stand-in library takes libken's place, small commands that of programs.

What is judged: options, statuses, restarts, signals, descriptors, refusals, and the backtrace of a
crash. That a program resumes is the other system tests' business.
"""
import os
import pty
import signal
import stat
import subprocess
import sys
import time

os.environ["KEN_BARE"] = "1"  # the harness need not look for libken
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *

KENRUN = os.path.join(ROOT, "scripts", "kenrun")
KENCTL = os.environ.get("KEN_CTL", os.path.join(BUILD, "scripts", "kenctl"))
FAULTS = ("SEGV", "BUS", "ILL", "FPE", "ABRT", "SYS")

# Tells a file named in the environment how it was loaded, and into which program.
STAND_IN = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
static char *get(const char *name) { char *v = getenv(name); return v ? v : "-"; }
__attribute__((constructor)) static void loaded(void)
{
    FILE *f = getenv("TRACE") ? fopen(getenv("TRACE"), "a") : NULL;
    if (!f)
        return;
    fprintf(f, "%s fresh=%s store=%s sync=%s preload=%s\n", program_invocation_short_name,
            get("KEN_FRESH"), get("KEN_STORE"), get("KEN_SYNC"), get("LD_PRELOAD"));
    fclose(f);
    unsetenv("LD_PRELOAD"); /* as libken does: the children are plain */
}
"""

# Plays kenctl where a case wants to say what the store says: files `turn` and `show` hold the answers.
FAKE_KENCTL = """#!/bin/sh
case $1 in
turn) cat turn ;;
show) cat show ;;
*) exec '{kenctl}' "$@" ;;
esac
"""


# Takes its time over `launch LIBRARY RESET COMMAND...`, which makes SIGINT what it is by default.
SLOW_KENCTL = """#!{python}
import os, signal, sys, time
if sys.argv[1] != "launch":
    os.execv("{kenctl}", sys.argv)
print(file=open("launching", "a"))
time.sleep(0.3)
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execvp(sys.argv[4], sys.argv[4:])
"""


def compile_c(t, name, source, *flags):
    need("cc")
    path = os.path.join(t.dir, name)
    done = subprocess.run(["cc", "-O1", "-x", "c", "-", "-o", path, *flags], input=source, text=True)
    check(done.returncode == 0, f"cc cannot build {name}")
    return path


class Kenrun:
    """kenrun in a case's scratch directory, with the stand-in for libken."""

    def __init__(self, t, kenrun=KENRUN, kenctl=KENCTL):
        self.t, self.kenrun, self.dir = t, kenrun, t.dir
        self.library = compile_c(t, "libstand.so", STAND_IN, "-shared", "-fPIC")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("KEN_") and k != "LD_PRELOAD"}
        self.env.update(KEN_LIB=self.library, TRACE=os.path.join(t.dir, "trace"))
        if kenctl:
            if not os.path.exists(kenctl):
                raise Skip(f"{kenctl} is not built")
            self.env["KEN_CTL"] = kenctl

    def popen(self, *args, **kw):
        kw = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **kw}
        p = subprocess.Popen([self.kenrun, *args], cwd=self.dir, env=self.env, text=True, **kw)
        self.t.at_end(p.kill)
        return p

    def run(self, *args, input="", **kw):
        """Runs it to the end: (status, output, messages)."""
        p = self.popen(*args, stdin=subprocess.PIPE, **kw)
        try:
            out, err = p.communicate(input, timeout=20)
        except subprocess.TimeoutExpired:
            raise Failure(f"kenrun {' '.join(args)} does not end")
        return p.returncode, out, err

    def script(self, text, name="program"):
        path = os.path.join(self.dir, name)
        with open(path, "w") as f:
            f.write("#!/bin/sh\n" + text)
        os.chmod(path, 0o755)
        return "./" + name

    def fake_kenctl(self, turn="1", show="state: running"):
        self.env["KEN_CTL"] = os.path.join(self.dir, self.script("", name="fake-kenctl"))
        with open(self.env["KEN_CTL"], "w") as f:
            f.write(FAKE_KENCTL.format(kenctl=KENCTL))
        self.say("turn", turn)
        self.say("show", show)

    def say(self, name, text):
        with open(os.path.join(self.dir, name), "w") as f:
            f.write(text + "\n")

    def lines(self, name="trace"):
        try:
            with open(os.path.join(self.dir, name)) as f:
                return f.read().splitlines()
        except FileNotFoundError:
            return []

    def wait_for(self, name, count=1):
        deadline = time.monotonic() + 10
        while len(self.lines(name)) < count:
            check(time.monotonic() < deadline, f"the program never wrote line {count} of {name}")
            time.sleep(0.005)
        return self.lines(name)


def expect(result, status, *messages):
    code, _, err = result
    check(code == status, f"status {code}, not {status}; it said {err!r}")
    for message in messages:
        check(message in err, f"no {message!r} in {err!r}")


# Counts its runs in `runs`; dies by $1 as long as they are fewer than $2, then exits with $3.
DYING = 'echo run >>runs; [ $(wc -l <runs) -ge $2 ] && exit $3; kill -$1 $$\n'


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


# Tells when it is ready, then writes down each signal that it gets; $1 more seconds, then it exits with 9.
LISTENER = """
import os, signal, sys, time
def note(number, frame):
    with open('signals', 'a') as f: f.write(signal.Signals(number).name + '\\n')
for name in sys.argv[2:]: signal.signal(getattr(signal, name), note)
with open('ready', 'a') as f: f.write('ready\\n')
end = time.monotonic() + 10
while time.monotonic() < end and not os.path.exists('signals'): time.sleep(0.01)
time.sleep(float(sys.argv[1]))
sys.exit(9)
"""


def listener(k, *args, **kw):
    p = k.popen(PYTHON, "-c", LISTENER, *args, **kw)
    k.wait_for("ready")
    return p


def ended(p):
    try:
        return p.wait(timeout=10)
    except subprocess.TimeoutExpired:
        raise Failure("kenrun does not end")


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


@case
def what_libken_cannot_enter_is_refused(t):
    k = Kenrun(t)
    static = compile_c(t, "static", "int main(void) { return 0; }", "-static")
    expect(k.run("./static"), 126, "kenrun: ./static: statically linked")
    compile_c(t, "static-pie", "int main(void) { return 0; }", "-static-pie")
    expect(k.run("./static-pie"), 126, "statically linked")
    compile_c(t, "setuid", "int main(void) { return 0; }")
    for bit, text in ((stat.S_ISUID, "set-uid"), (stat.S_ISGID, "set-gid")):
        os.chmod(os.path.join(t.dir, "setuid"), 0o755 | bit)
        expect(k.run("./setuid"), 126, text)
    with open(os.path.join(t.dir, "script"), "w") as f:
        f.write(f"#!{static} -x\n")
    os.chmod(os.path.join(t.dir, "script"), 0o755)
    expect(k.run("./script"), 126, f"its interpreter {static}: statically linked")
    with open(os.path.join(t.dir, "plain"), "w") as f:
        f.write("echo hello\n")
    expect(k.run("./plain"), 126, "not an executable file")
    os.chmod(os.path.join(t.dir, "plain"), 0o755)
    expect(k.run("./plain"), 126, "neither an ELF program nor a script")
    expect(k.run("/"), 126, "not an executable file")
    expect(k.run("./nothing"), 127, "kenrun: ./nothing: not found")
    expect(k.run("no-such-command"), 127, "not found")
    check(k.lines() == [], "something was run all the same")


@case
def options(t):
    k = Kenrun(t)
    for wrong in (["--wrong"], ["-x"], [], ["--store"], ["--store", "", "true"], ["--restarts", "x", "true"],
                  ["--restarts=", "true"], ["--restarts", "9" * 20, "true"], ["--sync", "never", "true"], ["--fresh"], ["--"]):
        expect(k.run(*wrong), 64, "usage: kenrun")
    code, out, _ = k.run("--help")
    check(code == 0 and out.startswith("usage: kenrun"), "--help")
    code, out, _ = k.run("--version")
    check(code == 0 and out.split()[0] == "kenrun" and out.split()[1][0].isdigit(), f"--version: {out!r}")
    expect(k.run("--store=/x/y", "--sync=power", "true"), 0)
    k.env.update(KEN_FRESH="1", KEN_STORE="rel", KEN_SYNC="process", LD_PRELOAD="")
    expect(k.run("sh", "-c", "[ -e b ] && exit 3; touch b; kill -9 $$"), 3)
    want = ["true fresh=- store=/x/y sync=power", f"sh fresh=1 store={t.dir}/rel sync=process",
            f"sh fresh=- store={t.dir}/rel sync=process"]
    for line, text in zip(k.lines(), want):
        check(line.startswith(text), f"{line!r} is not {text!r}")


NASTY = ("", " ", "a b", "*", "$(touch owned)", "`touch owned`", "; touch owned", "'", '"', "\\", "\n", "--", "--store", "-x", "=",
         "%s%n", "\udcff\udcfe", "é", "x" * 5000, "$HOME", "&", "|touch owned", "!!", "~", "-n", "\t", "#")
NO_NUMBER = tuple(text for text in NASTY if text not in ("--store", "--")) + ("-1", "1e3", "0x10", "1 2", "+5", "٣")


def random_arguments(rng):
    """Arguments of kenrun and what they mean: (options, the command's own arguments or None when kenrun must refuse)."""
    good = lambda name, value: rng.choice(([f"{name}={value}"], [name, value]))
    options, right = [], True
    for _ in range(rng.randrange(5)):
        kind = rng.randrange(4)
        if kind == 0:
            name = "".join(rng.choice(("d", " ", "$x", "*", "'", '"', "é", ";", "=")) for _ in range(rng.randrange(1, 6)))
            options += good("--store", "/nowhere/" + name)
        elif kind == 1:
            options += good("--restarts", rng.choice(("0", "7", "08", "123456789")))
        elif kind == 2:
            options += good("--sync", rng.choice(("power", "process")))
        else:
            options += ["--fresh"]
    if rng.random() < 0.5:
        right = False
        at = rng.choice(("--restarts", "--kills", "--every", "--chaos", "--sync", "--store", "unknown"))
        if at == "unknown":
            options += [rng.choice(("-", "--")) + rng.choice(("x", "Store", "fresh=1", "restart", "storee=/x", "\udcff", "$(touch owned)"))]
        elif at == "--store":
            options += rng.choice((["--store="], ["--store", ""]))
        elif at == "--sync":
            options += good(at, rng.choice([text for text in NO_NUMBER if text] + ["Power", "power "]))
        else:
            options += [f"{at}={rng.choice(NO_NUMBER)}"]
    if rng.random() < 0.5:
        options.append("--")
    return options, [rng.choice(NASTY) for _ in range(rng.randrange(6))] if right else None


@case(limit=600)
def any_arguments(t):
    """Random ones: they are refused with the usage, or the command gets its own byte for byte; nothing else is run."""
    k = Kenrun(t)
    show = k.script('for a; do printf "%s\\0" "$a"; done\n', "show")
    runs = 3000 if LONG else 80
    counts = [0, 0]
    for _ in range(runs):
        options, own = random_arguments(t.random)
        words = [os.fsencode(word) for word in options + [show] + (own or [])]
        done = subprocess.run([k.kenrun, *words], cwd=t.dir, env=k.env, stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
        if own is None:
            check(done.returncode == 64 and b"usage: kenrun" in done.stderr and not done.stdout,
                  f"{words} is not refused: {done.returncode} {done.stderr[:200]}")
        else:
            check(done.returncode == 0 and not done.stderr, f"{words}: {done.returncode} {done.stderr[:200]}")
            check(done.stdout == b"".join(os.fsencode(word) + b"\0" for word in own), f"{words} arrive as {done.stdout[:200]}")
        counts[own is None] += 1
        check(not os.path.exists(os.path.join(t.dir, "owned")), f"{words} ran a command of their own")
    t.note(f"{counts[0]} run, {counts[1]} refused")


@case
def the_library(t):
    k = Kenrun(t)
    other = compile_c(t, "libother.so", "int other;", "-shared", "-fPIC")
    k.env["LD_PRELOAD"] = other
    expect(k.run("true"), 0)
    check(k.lines()[-1].endswith(f"preload={k.library}:{other}"), f"LD_PRELOAD: {k.lines()}")
    del k.env["LD_PRELOAD"]
    k.env["KEN_LIB"] = "libstand.so"  # relative to where we are
    expect(k.run("true"), 0)
    check(k.lines()[-1].endswith(f"preload={k.library}"), f"LD_PRELOAD: {k.lines()}")
    k.env["KEN_LIB"] = os.path.join(t.dir, "missing.so")
    expect(k.run("true"), 69, "missing.so")
    os.mkdir(os.path.join(t.dir, "a b"))
    os.symlink(k.library, os.path.join(t.dir, "a b", "lib.so"))
    k.env["KEN_LIB"] = os.path.join(t.dir, "a b", "lib.so")
    expect(k.run("true"), 69, "space")


@case
def the_tree_and_the_installed_place(t):
    """Without KEN_LIB: ../build/libken.so of where the script really is, or where it was installed with kenrun."""
    k = Kenrun(t)
    os.makedirs(os.path.join(t.dir, "tree", "scripts"))
    os.makedirs(os.path.join(t.dir, "tree", "build"))
    shutil.copy(KENRUN, os.path.join(t.dir, "tree", "scripts", "kenrun"))
    os.symlink(os.path.join(t.dir, "tree", "scripts", "kenrun"), os.path.join(t.dir, "link"))
    k.kenrun = os.path.join(t.dir, "link")
    del k.env["KEN_LIB"]
    expect(k.run("true"), 69, "libken.so is not built")
    for place in ("lib/x86_64-linux-gnu", "lib64", "lib", "build"):
        os.makedirs(os.path.join(t.dir, "tree", place), exist_ok=True)
        shutil.copy(k.library, os.path.join(t.dir, "tree", place, "libken.so"))
        expect(k.run("true"), 0)
        check(k.lines()[-1].endswith(f"preload={t.dir}/tree/{place}/libken.so"), f"{k.lines()}")


@case
def without_kenctl(t):
    shutil.copy(KENRUN, os.path.join(t.dir, "kenrun"))
    k = Kenrun(t, kenrun=os.path.join(t.dir, "kenrun"), kenctl=None)
    expect(k.run(k.script(DYING), "KILL", "3", "5"), 5)
    expect(k.run("sh", "-c", "exit 3"), 3)
    expect(k.run("sh", "-c", "exit 75"), 75)  # whose end it is, nobody can tell
    expect(k.run("no-such-command"), 127)
    p = listener(k, "0", "SIGINT")
    p.send_signal(signal.SIGINT)
    check(ended(p) == 9, f"SIGINT: status {p.returncode}")
    if shutil.which("readelf"):
        compile_c(t, "static", "int main(void) { return 0; }", "-static")
        expect(k.run("./static"), 126, "statically linked")


def kenctl(t, *args, cwd=None):
    if not os.path.exists(KENCTL):
        raise Skip(f"{KENCTL} is not built")
    return subprocess.run([KENCTL, *args], cwd=cwd or t.dir, capture_output=True, text=True, timeout=20)


@case
def the_default_store(t):
    def store(*args, cwd=None):
        done = kenctl(t, "store", *args, cwd=cwd)
        check(done.returncode == 0, done.stderr)
        return done.stdout.strip()

    true = os.path.realpath("/usr/bin/true")
    os.symlink(true, os.path.join(t.dir, "link"))
    same = {store("true"), store("/usr/bin/true"), store("./link")}
    check(len(same) == 1, f"one program, several stores: {same}")
    path = same.pop()
    check(re.fullmatch(re.escape(t.dir) + r"/\.ken/true-[0-9a-f]{16}", path), f"not the form: {path}")
    check(len({store("true", *a) for a in ([], [""], ["ab", "c"], ["a", "bc"], ["abc"])}) == 5, "arguments do not count")
    os.mkdir(os.path.join(t.dir, "sub"))
    check(store("true", cwd=os.path.join(t.dir, "sub")) == path.replace("/.ken", "/sub/.ken"), "not under the directory")
    with open(os.path.join(t.dir, "script.py"), "w") as f:
        f.write(f"#! {PYTHON} -u \n")
    os.chmod(os.path.join(t.dir, "script.py"), 0o755)
    check(store("./script.py", "1") == store(PYTHON, "-u", "./script.py", "1"), "a script is its interpreter's argument")


def crash(t, how):
    done = kenctl(t)  # skips if it is not there
    source = open(os.path.join(HERE, "system", "crash_subject.c")).read()
    program = compile_c(t, "crash", source, "-fno-optimize-sibling-calls")
    done = subprocess.run([program, KENCTL, how], capture_output=True, text=True, timeout=20)
    lines = done.stderr.splitlines()
    return done.returncode, lines, [m[1] for m in (re.search(r"#\d+ 0x[0-9a-f]+ (\S+?)\+0x", x) for x in lines) if m]


def in_order(names, wanted):
    rest = iter(names)
    return all(any(n == w for n in rest) for w in wanted)


@case
def a_crash_shows_the_way_to_the_fault(t):
    for how in ("segv", "raw"):
        code, lines, names = crash(t, how)
        check(code == -signal.SIGSEGV, f"it did not die of its signal: {code}")
        check(re.match(r"ken: SIGSEGV in turn 12, program crash \(pid \d+\)$", lines[0]), lines[0])
        check(names[:2] == ["innermost_step", "middle_step"], f"{how}: the innermost frames are {names}")
        check(in_order(names, ["innermost_step", "middle_step", "main", "_start"]), f"{how}: frames {names}")
        check("on_fatal" not in names, "the handler's own frames are shown")
    code, lines, names = crash(t, "abort")
    check(code == -signal.SIGABRT and lines[0].startswith("ken: SIGABRT"), f"{code} {lines}")
    check(in_order(names, ["abort", "innermost_step", "middle_step", "main"]), f"frames {names}")
    check("on_fatal" not in names, "the handler's own frames are shown")


@case
def a_crash_by_a_wild_jump_or_an_endless_recursion(t):
    for how, address in (("wild", "0x1234"), ("null", "0x0")):
        code, lines, names = crash(t, how)
        check(code == -signal.SIGSEGV and names[0] == "main", f"{code} {lines}")
        check(lines[1] == f"ken:   #0 {address}", f"the wild address is not shown: {lines}")
    code, lines, names = crash(t, "endless")
    check(code == -signal.SIGSEGV and names == ["endless_step"] * 64, f"{code} {len(names)} {names[:3]}")
    check("and more" in lines[-1], lines[-1])


@case
def crash_of_nobody(t):
    done = kenctl(t, "crash", "999999999", "999999999", "11", "-")
    check(done.returncode == 1 and "no backtrace" in done.stderr, f"{done}")
    check(done.stderr.startswith("ken: SIGSEGV, program ?"), f"{done}")
    check(kenctl(t, "crash", "1").returncode == 64, "wrong use")
    check(kenctl(t, "crash", "x", "1", "11", "3").returncode == 64, "wrong use")



# Longer than any wait between two kills of these cases, then exits with $1.
PATIENT = '/bin/sleep 0.5\nexit $1\n'


@case
def chaos_kills_and_resumes(t):
    """As often as asked, whatever --restarts says; then the command goes on by itself, and its status is kenrun's."""
    k = Kenrun(t)
    done = k.run("--chaos=7", "--kills=6", "--every", "20", "--restarts", "0", k.script(PATIENT), "3")
    expect(done, 3, "chaos: seed 7, 6 kills, 0 of them at boundaries", "--chaos=7 --kills 6 --every 20 --turns 20")
    check("starting it again" not in done[2], f"its own kills count as deaths: {done[2]}")
    expect(k.run("--chaos", "--every=5000", "sh", "-c", "exit 9"), 9, "chaos: seed ", " 0 kills")
    check("chaos" not in k.run("true")[2], "it tells of chaos without being asked to")


@case
def chaos_repeats(t):
    """The same seed waits the same times between its kills, another one others."""
    k = Kenrun(t)
    k.script('echo "$1" >>"$WAITS"\nexec /bin/sleep "$1"\n', name="sleep")
    program = k.script(PATIENT)
    k.env["PATH"] = f"{t.dir}:{k.env['PATH']}"
    waits = []
    for name, seed in (("first", "5"), ("second", "5"), ("third", "6")):
        k.env["WAITS"] = os.path.join(t.dir, name)
        expect(k.run(f"--chaos={seed}", "--kills", "8", "--every", "15", "--turns", "0", program, "0"), 0, " 8 kills")
        waits.append(k.lines(name))
    check(waits[0] == waits[1] and len(waits[0]) == 8, f"seed 5 waited {waits[0]} and then {waits[1]}")
    check(waits[2] != waits[0], "seed 6 waits as seed 5 does")
    check(all(float(w) <= 0.03 for w in waits[0]), f"it waited {waits[0]}, longer than twice 15 ms")


@case
def chaos_ends_with_a_signal(t):
    k = Kenrun(t)
    p = k.popen("--chaos=1", "--kills", "3", "--every", "10", k.script("echo run >>runs\nexec sleep 20\n"))
    k.wait_for("runs", 1)
    time.sleep(0.5)  # the kills are over, or some of them
    p.terminate()
    _, err = p.communicate(timeout=10)
    expect((p.returncode, "", err), 143, "chaos: seed 1, ", "repeat it: --chaos=1 --kills 3")


@case
def chaos_wrong_use(t):
    k = Kenrun(t)
    for wrong in (("--chaos=x", "true"), ("--chaos=", "true"), ("--kills", "many", "true"), ("--every=-5", "true"),
                  ("--chaos", "--every", "0", "--turns", "0", "true"), ("--turns", "few", "true"), ("--at", "3:durable", "true"),
                  ("--chaos", "--at", "", "true"), ("--chaos", "--at", "3", "true"), ("--chaos", "--at", "3:later", "true"),
                  ("--chaos", "--at", "durable", "true"), ("--chaos", "--at=3:durable,,4:durable", "true"), ("--kills",)):
        expect(k.run(*wrong), 64, "usage: kenrun")


def under_libken(t):
    library = os.path.join(BUILD, "libken.so")
    if not os.path.exists(library):
        raise Skip(f"{library} is not built")
    k = Kenrun(t)
    k.env["KEN_LIB"] = library
    return k


AFTER_PORT = {"daemon": ("pid",)}
STEPS = ("ended", "captured", "durable", "leaving", "released", "applied")


class Served:
    """A counter under kenrun --chaos, and a client that asks it one thing after the other."""

    def __init__(self, t, name, *args, program=("udp_counter",), words="INC key", turns=60):
        self.k, port, self.words = under_libken(t), free_port(), words
        self.log = os.path.join(t.dir, name)
        with open(self.log, "w") as stderr:
            p = self.k.popen("--store", self.log + ".store", *args, subject(program[0]), *program[1:], str(port), *AFTER_PORT.get(program[0], ()),
                             stderr=stderr)
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.connect(("127.0.0.1", port))
        s.settimeout(0.02)
        for count in range(1, turns + 1):
            self.ask(s, count)
        s.close()
        p.terminate()
        check(ended(p) == 143, f"status {p.returncode}: {self.lines()[-3:]}")
        told = re.search(r"chaos: seed \d+, (\d+) kills, (\d+) of them at boundaries, turn \d+, (\d+) resumes", "\n".join(self.lines()))
        check(told, f"it told {self.lines()[-3:]}")
        self.kills, self.at_boundaries, self.resumes = map(int, told.groups())
        listed = re.search(r"--chaos --at (\S+)", "\n".join(self.lines()))
        self.died = listed[1].split(",") if listed else []

    def lines(self):
        return self.k.lines(self.log)

    def ask(self, s, count):
        """The right answer comes, and never another one."""
        deadline = time.monotonic() + PATIENCE
        while True:
            check(time.monotonic() < deadline, f"no answer to request {count}: {self.lines()[-3:]}")
            try:
                s.send(f"{count} {self.words}".encode())
                number, *answer = s.recv(100).decode().split()
            except OSError:
                continue
            check(int(number) <= count and answer[-1] == number, f"the counter is {answer} after {number} requests, of {count}")
            if int(number) == count:
                return


@case
def chaos_at_each_step(t):
    """Dies exactly where --at says, at every step of a turn's end and of a resume; the client sees delays, and nothing else."""
    wanted = [f"{5 * n + 5}:{step}" for n, step in enumerate(STEPS)]
    # And again while it resumes from that, and from there.
    wanted += ["40:durable", "40:recovered", "40:resuming", "40:leaving", "40:resuming", "40:released"]
    run = Served(t, "log", "--chaos", "--at", ",".join(wanted))
    check(run.died == wanted, f"it died at {run.died}, not at {wanted}")
    check(run.kills == run.at_boundaries == len(wanted), f"{run.kills} kills, {run.at_boundaries} at boundaries")
    # The turn that it resumes from tells on which side of the commit it died.
    turns = [int(re.search(r": turn (\d+),", line)[1]) for line in run.lines() if RESUME.match(line)]
    check(turns == [4, 9, 15, 20, 25, 30, 40, 40, 40], f"it resumed from turns {turns}")


@case
def chaos_at_boundaries_repeats(t):
    """One seed dies at the same steps of the same turns, whatever the clock says; another one elsewhere; the list again at these."""
    args = ("--kills", "10", "--every", "0", "--turns", "3")
    first, second = Served(t, "first", "--chaos=21", *args), Served(t, "second", "--chaos=21", *args)
    check(first.kills == first.at_boundaries == len(first.died) == 10, f"{first.kills} kills: {first.lines()[-3:]}")
    check(first.died == second.died, f"seed 21 died at {first.died} and then at {second.died}")
    check(Served(t, "other", "--chaos=22", *args).died != first.died, "seed 22 dies as seed 21 does")
    again = Served(t, "again", "--chaos", "--at", ",".join(first.died))
    check(again.died == first.died, f"--at {first.died} died at {again.died}")


@case
def chaos_without_root(t):
    """The report comes from a server that has become somebody else, too."""
    if os.geteuid():
        raise Skip("not root")
    os.chmod(t.dir, 0o755)
    run = Served(t, "log", "--chaos", "--at", "5:durable,9:resuming,12:released", program=("drops_root",), turns=20)
    check(run.died == ["5:durable", "9:applied", "9:resuming", "12:released"], f"it died at {run.died}")
    check(run.resumes == 3, f"{run.resumes} resumes are told of: {run.lines()}")


@case
def chaos_of_a_daemon(t):
    """It is told through its parent, and dies as the daemon."""
    run = Served(t, "log", "--chaos", "--at", "5:durable,9:leaving,9:resuming,14:captured", program=("daemon", "ready"), words="inc",
                 turns=20)
    check(run.died == ["5:durable", "9:leaving", "9:resuming", "14:captured"], f"it died at {run.died}")
    check(run.kills == 4, f"{run.kills} kills")


@case
def chaos_of_a_server(t):
    """A real one under libken: its client sees nothing but delays."""
    k, port, log = under_libken(t), free_port(), os.path.join(t.dir, "log")
    with open(log, "w") as stderr:
        p = k.popen("--chaos=11", "--kills", "1000", "--every", "150", subject("udp_counter"), str(port), stderr=stderr)
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    t.at_end(s.close)
    s.connect(("127.0.0.1", port))
    s.settimeout(0.05)

    def resumed():
        return sum(bool(RESUME.match(line)) for line in k.lines("log"))

    count, until = 0, time.monotonic() + 2
    while time.monotonic() < until or resumed() < 3:  # how many of the kills come before its first commit is chance
        count, deadline = count + 1, time.monotonic() + PATIENCE
        while True:
            check(time.monotonic() < deadline, f"no answer to request {count}: {k.lines('log')[-3:]}")
            try:
                s.send(b"%d INC key" % count)
                number, _, value = s.recv(100).decode().split()
            except OSError:
                continue
            if int(number) == count:
                break
        check(int(value) == count, f"the counter is {value} after {count} requests")
    p.terminate()
    code, lines = ended(p), k.lines("log")
    told = re.search(r"chaos: seed 11, (\d+) kills, \d+ of them at boundaries, turn \d+, (\d+) resumes.* on average", "\n".join(lines))
    check(code in (143, 137) and told, f"status {code}, it said {lines[-3:]}")  # 137: a kill was faster
    kills, resumes = int(told[1]), int(told[2])
    check(0 < resumes <= resumed() <= kills, f"{kills} kills and {resumes} resumes are told of, not {resumed()} resumes")
    t.note(f"{count} requests, {kills} kills, {resumes} resumes")


main()
