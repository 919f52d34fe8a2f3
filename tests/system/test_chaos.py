#!/usr/bin/python3
"""kenrun --chaos: kills at random and at boundaries, its report, and that a run is repeated."""
import os
import re
import socket
import sys
import time

os.environ["KEN_BARE"] = "1"  # the harness need not look for libken
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *
from kenruns import *

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
