#!/usr/bin/python3
"""kenctl over real stores, and kenrun with libken itself: what they tell about a program that runs, was
killed, was resumed, crashed, or finished."""
import hashlib
import os
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *
from kenruns import KENRUN, compile_c


# Counts the lines it is given, deep in its calls; some lines are orders.
WAITER = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <signal.h>
static long count;
__attribute__((noinline)) void wait_inside(char *line, int size)
{
    if (!fgets(line, size, stdin))
        exit(0);
    count++;
}
__attribute__((noinline)) int crash_inside(volatile int *where) { return *where = 1; }
__attribute__((noinline)) int serve(int depth)
{
    char line[100];
    if (depth)
        return serve(depth - 1) + 1;
    for (;;) {
        wait_inside(line, sizeof line);
        if (!strncmp(line, "crash", 5))
            return crash_inside(NULL);
        if (!strncmp(line, "abort", 5))
            abort();
        if (!strncmp(line, "raise", 5))
            raise(SIGFPE);
        if (!strncmp(line, "exit", 4))
            exit(atoi(line + 4));
        printf("%ld %s", count, line);
        fflush(stdout);
    }
}
int main(void) { return serve(3); }
"""


class Waiter:
    """The program with a FIFO for its input and a file for its output, which outlive it."""

    def __init__(self, t, kenrun=False):
        if not os.path.exists(KENCTL):
            raise Skip(f"{KENCTL} is not built")
        self.t, self.dir = t, t.dir
        self.path = compile_c(t, "waiter", WAITER, "-fno-optimize-sibling-calls")
        os.mkfifo(os.path.join(t.dir, "in"))
        self.input = os.open(os.path.join(t.dir, "in"), os.O_RDWR)
        self.output = os.open(os.path.join(t.dir, "out"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        t.at_end(lambda: (os.close(self.input), os.close(self.output)))
        self.sent = 0
        self.store = os.path.join(t.dir, "store")
        # kenrun's messages are appended: a resumed program takes an inherited file back to where it was.
        argv = ["sh", "-c", 'exec "$@" 2>>messages', "sh", KENRUN, "--store", self.store, self.path]
        argv = argv if kenrun else [self.path]
        self.program = t.program(argv, store=self.store, stdin=self.input, stdout=self.output, bare=kenrun,
                                 env={"KEN_CTL": KENCTL, "KEN_LIB": LIB})
        self.program.expected_messages += [r"^ken: SIG", r"^ken:   "]

    def send(self, line):
        os.write(self.input, line.encode() + b"\n")

    def lines(self):
        with open(os.path.join(self.dir, "out")) as f:
            return f.read().splitlines()

    def say(self, text="hello"):
        """A line that it answers; true answers count up."""
        self.sent += 1
        self.send(text)
        deadline = time.monotonic() + PATIENCE
        while len(self.lines()) < self.sent:
            check(time.monotonic() < deadline, f"no answer to line {self.sent}: {self.program.tail()}")
            time.sleep(0.005)
        check(self.lines()[-1] == f"{self.sent} {text}", f"a wrong answer: {self.lines()[-3:]}")

    def ctl(self, *args, status=0):
        done = subprocess.run([KENCTL, *args, self.store], capture_output=True, text=True, timeout=20)
        check(done.returncode == status, f"kenctl {args[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout if status == 0 else done.stderr

    def messages(self):
        with open(os.path.join(self.program.cwd, "messages")) as f:
            return f.read()

    def turn(self):
        return int(self.ctl("turn"))

    def settled(self):
        """The turn, once it does not change any more: an idle program commits in a bounded time."""
        deadline, last = time.monotonic() + PATIENCE, None
        while time.monotonic() < deadline:
            now = self.turn()
            if now and now == last:
                return now
            last = now
            time.sleep(0.3)
        raise Failure("it commits without end")


def functions(text):
    return re.findall(r"#\d+ 0x[0-9a-f]+ (\S+?)\+0x[0-9a-f]+ \((\S+)\)", text)


def check_waiting(w):
    frames = functions(w.ctl("backtrace"))
    names = [name for name, where in frames if where == "waiter"]
    check(names[:5] == ["wait_inside"] + ["serve"] * 4 and names[5] == "main", f"the frames are {frames}")
    check(any("fgets" in name for name, _ in frames), f"not seen in fgets: {frames}")
    check([where for _, where in frames].count("libken.so") <= 1, f"libken's own frames: {frames}")


def digest(directory):
    found = {}
    for place, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(place, name)
            with open(path, "rb") as f:
                found[path] = (os.stat(path).st_mtime_ns, hashlib.sha1(f.read()).hexdigest())
    return found


@case
def a_running_program(t):
    w = Waiter(t)
    w.say()
    first = w.settled()
    w.say()
    check(w.settled() > first, "the turn does not rise")
    before = digest(w.store)
    shown = w.ctl("show")
    for wanted in (r"^program: waiter$", rf"^state: running, process {w.program.pid()}$",
                   r"^descriptors: 0 fifo, 1 file, 2 file$", rf"^turn: {w.turn()}$", r"^age: \d+ s$", r"^memory: [\d.]+ [KM]iB in \d+ pages"):
        check(re.search(wanted, shown, re.M), f"no {wanted} in {shown}")
    check_waiting(w)
    check("nothing is wrong" in w.ctl("check"), "check")
    check(digest(w.store) == before, "kenctl changed the store")
    w.say()


@case
def a_killed_and_a_resumed_program(t):
    w = Waiter(t)
    for i in range(3):
        w.say()
        w.settled()
        w.program.kill9()
        before = digest(w.store)
        check("state: stopped" in w.ctl("show"), w.ctl("show"))
        check_waiting(w)
        w.ctl("check")
        check(digest(w.store) == before, "kenctl changed the store")
        w.program.restart()
        w.say()
        check_waiting(w)


@case
def kenctl_while_it_commits(t):
    """Whatever the moment, the store is never called damaged."""
    w = Waiter(t)
    w.say()
    w.settled()  # a file takes the answer before the first commit
    end = time.monotonic() + 3
    asked = 0
    while time.monotonic() < end:
        for _ in range(20):
            w.send("more")
            w.sent += 1
        for command in ("turn", "check", "show", "backtrace"):
            w.ctl(command)
            asked += 1
    t.note(f"asked {asked} times")
    deadline = time.monotonic() + PATIENCE
    while len(w.lines()) < w.sent and time.monotonic() < deadline:
        time.sleep(0.01)
    w.say()


@case
def a_finished_program(t):
    w = Waiter(t)
    w.say()
    w.send("exit 7")
    check(w.program.wait_gone() == 7, f"status {w.program.status}")
    check(re.search("^state: finished, status 7$", w.ctl("show"), re.M), w.ctl("show"))
    check("has finished" in w.ctl("backtrace", status=1), "backtrace")
    w.ctl("check")


@case
def a_crash_is_reported(t):
    for resumed in (False, True):
        for order, number in (("crash", signal.SIGSEGV), ("abort", signal.SIGABRT), ("raise", signal.SIGFPE)):
            shutil.rmtree(os.path.join(t.dir, "store"), ignore_errors=True)
            for name in ("in", "out"):
                if os.path.exists(os.path.join(t.dir, name)):
                    os.unlink(os.path.join(t.dir, name))
            w = Waiter(t)
            w.say()
            turn = w.settled()
            if resumed:
                w.program.kill9()
                w.program.restart()
                w.say()
                turn = w.settled()
            w.send(order)
            check(w.program.wait_gone() == -number, f"{order}: status {w.program.status}")
            text = w.program.stderr()
            what = f"{order}, {'resumed' if resumed else 'fresh'}: {text}"
            check(re.search(rf"^ken: {number.name} in turn {turn}, program waiter \(pid \d+\)$", text, re.M), what)
            frames = functions(text)
            names = [name for name, where in frames if where == "waiter"]
            want = (["crash_inside"] if order == "crash" else []) + ["serve"] * 4 + ["main"]
            check(names[:len(want)] == want, what)
            check(not any(where == "libken.so" for _, where in frames), what)
            check(re.search("^state: stopped", w.ctl("show"), re.M), "the crash ended the store")


@case
def what_is_no_store(t):
    w = Waiter(t)
    for _ in range(3):
        w.say()
        w.settled()
    w.program.kill9()
    good = w.store

    def copy(name):
        w.store = os.path.join(t.dir, name)
        shutil.rmtree(w.store, ignore_errors=True)
        subprocess.run(["cp", "-a", good, w.store], check=True)
        return w.store

    def flip(path, offset):
        with open(path, "r+b") as f:
            f.seek(offset)
            byte = f.read(1)
            f.seek(offset)
            f.write(bytes([byte[0] ^ 64]))

    place = copy("super")
    flip(os.path.join(place, "super"), 100)
    for command in ("check", "show", "turn", "backtrace"):
        check("damaged" in w.ctl(command, status=1), command)
    place = copy("log")
    flip(os.path.join(place, "log.0"), 4096 + 300)  # in the first record
    check("log.0" in w.ctl("check", status=1), "the damaged log")
    place = copy("pin")
    for name in os.listdir(os.path.join(place, "pin")):
        os.unlink(os.path.join(place, "pin", name))
    check("pin" in w.ctl("check", status=1), "the missing pins")
    w.store = os.path.join(t.dir, "missing")
    check(w.ctl("turn") == "0\n", "turn of nothing")
    check("no store" in w.ctl("show", status=1), "show of nothing")
    check(not os.path.exists(w.store), "kenctl made a store")


@case
def kenrun_resumes(t):
    w = Waiter(t, kenrun=True)
    w.say()
    w.settled()
    for i in range(5):
        w.say()
        pid = int(re.search(r"process (\d+)$", w.ctl("show"), re.M)[1])
        os.kill(pid, signal.SIGKILL)
        w.say()
    check(w.messages().count("was killed; starting it again") == 5, w.messages())
    w.send("exit 137")
    check(w.program.wait_gone() == 137, f"status {w.program.status}")
    check(w.messages().count("starting it again") == 5, "an exit with 137 was taken for a death")


@case
def the_default_store_is_where_libken_puts_it(t):
    """kenctl works out beforehand, for commands and for scripts, what libken finds in the process."""
    with open(os.path.join(t.dir, "script"), "w") as f:
        f.write(f"#!{PYTHON} -u\nimport time\ntime.sleep(60)\n")
    os.chmod(os.path.join(t.dir, "script"), 0o755)
    env = {k: v for k, v in os.environ.items() if not k.startswith("KEN_")}
    env.update(LD_PRELOAD=LIB, KEN_CTL=KENCTL)
    for command in (["sleep", "61"], ["/bin/sleep", "62"], ["./script"], ["./script", "", "a b"],
                    [PYTHON, "-u", "script", "c"]):
        store = subprocess.run([KENCTL, "store", *command], cwd=t.dir, capture_output=True, text=True).stdout.strip()
        check(not os.path.exists(store), f"{command}: there is a store already")
        p = subprocess.Popen(command, cwd=t.dir, env=env, stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        t.at_end(p.kill)
        deadline = time.monotonic() + PATIENCE
        while not os.path.exists(os.path.join(store, "super")):
            made = os.listdir(os.path.join(t.dir, ".ken")) if os.path.exists(os.path.join(t.dir, ".ken")) else []
            check(time.monotonic() < deadline, f"{command}: not {store}, but {made}")
            time.sleep(0.02)
        p.kill()
        p.wait()


@case
def kenrun_ends_a_crash_loop(t):
    w = Waiter(t, kenrun=True)
    w.say()
    turn = w.settled()
    for crashes in range(1, 4):
        w.send("crash")
        deadline = time.monotonic() + PATIENCE
        while w.messages().count("crashed (SIGSEGV)") < crashes:
            check(time.monotonic() < deadline, f"no crash number {crashes}: {w.messages()}")
            time.sleep(0.01)
    check(w.program.wait_gone() == 139, f"status {w.program.status}")
    text = w.messages()
    check(f"for the third time at turn {turn}" in text, text)
    check(text.count("starting it again") == 2, text)


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


main()
