"""kenrun by itself: a stand-in library takes libken's place, small commands that of programs."""
import os
import subprocess
import time

from harness import *

KENRUN = os.path.join(ROOT, "scripts", "kenrun")

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


# Counts its runs in `runs`; dies by $1 as long as they are fewer than $2, then exits with $3.
DYING = 'echo run >>runs; [ $(wc -l <runs) -ge $2 ] && exit $3; kill -$1 $$\n'


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
