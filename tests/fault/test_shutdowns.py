#!/usr/bin/python3
"""Loss of power on real file systems: XFS and ext4 on a loop device are shut down under load by their own ioctl, as if
the machine stopped there; the programs are killed, the file system is mounted again, its journal replayed, and the
programs are resumed. No answer that a client has seen may be lost, and no byte between two of them.

What the file system had not written is gone; the disk's own cache is not part of this (test_power.c is about that).
Environment: as harness.py; KEN_CUTS (cuts of each file system; with KEN_LONG=1 it is 150).
"""
import fcntl
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *
from pairs import Output, is_open, wait_until

CUTS = int(os.environ.get("KEN_CUTS", "150" if LONG else "8"))
COPY_CUTS, MEGABYTES = max(3, CUTS // 2), 24
SHUTDOWN = 0x8004587D  # XFS_IOC_GOINGDOWN, EXT4_IOC_SHUTDOWN
WAYS = {"flushed": 0, "journal flushed": 1, "at once": 2}
CLONE_NEWNS = 0x20000
# As small as a segment may be, so that segments switch and the image is written all the time.
SMALL = {"KEN_MUTANT": ",".join(filter(None, ("small.segments", os.environ.get("KEN_MUTANT"))))}
KITCHEN = "global arena block hole grow library sort jump deep up misc switch check".split()


def run(*argv):
    return subprocess.run(argv, capture_output=True, text=True)


class Disk:
    """A file system in a file, at t.dir/mnt."""

    def __init__(self, t, kind, megabytes):
        mkfs = shutil.which(f"mkfs.{kind}", path="/usr/sbin:/sbin:/usr/bin:/bin")
        if not mkfs:
            raise Skip(f"mkfs.{kind} is not installed")
        self.t, self.kind, self.mounted = t, kind, False
        self.file, self.at = os.path.join(t.dir, kind), os.path.join(t.dir, "mnt")
        os.mkdir(self.at)
        with open(self.file, "wb") as f:
            f.truncate(megabytes << 20)
        made = run(mkfs, "-q", self.file)
        check(made.returncode == 0, f"{mkfs}: {made.stderr}")
        t.at_end(self.unmount)
        problem = self.mount()
        if problem:
            raise Skip(f"{kind} cannot be mounted here: {problem}")

    def mount(self):
        done = run("mount", "-o", "loop", "-t", self.kind, self.file, self.at)
        self.mounted = done.returncode == 0
        return None if self.mounted else done.stderr.strip() or f"status {done.returncode}"

    def unmount(self):
        """What a killed process had in an io_uring is let go of a moment after the process is gone."""
        deadline = time.monotonic() + 5
        while self.mounted:
            done = run("umount", self.at)
            self.mounted = done.returncode != 0
            check(not self.mounted or time.monotonic() < deadline, done.stderr)
            time.sleep(0.005 if self.mounted else 0)

    def shut_down(self, way):
        fd = os.open(self.at, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", WAYS[way]))
        except OSError as error:
            raise Skip(f"{self.kind} cannot be shut down here: {error.strerror}") from None
        finally:
            os.close(fd)

    def cut(self, programs, rng):
        """The power fails, and comes back; the programs go on a little before they notice."""
        way = rng.choice(list(WAYS))
        self.shut_down(way)
        time.sleep(rng.choice((0, rng.uniform(0, 0.02))))
        for p in programs:
            p.process.kill()
            p.kills += 1
        for p in programs:
            p.wait_gone()
        self.unmount()
        problem = self.mount()
        check(not problem, f"after a shutdown ({way}): {problem}")
        for p in programs:
            p.restart()


def counters(rng):
    values = {}

    def commands():
        while True:
            yield f"{rng.choice(('INC', 'INC', 'GET'))} {rng.choice('abcd')}"

    def answer(command):
        verb, key = command.split()
        values[key] = values.get(key, 0) + (verb == "INC")
        return f"{key} {values[key]}"
    return commands(), answer


def program(t, disk, name, argv):
    p = t.program(argv, start=False, store=os.path.join(disk.at, name), env=SMALL)
    p.expected_messages = ["^ken: "]  # it may complain about its disk; what counts is what it does afterwards
    return p.start()


class PowerDialog(UdpDialog):
    """Which answers of the last turn had left was noted in memory alone: they may come again, in the same words, but only
    those, and only after a cut."""

    def judge(self, seq, answer):
        if seq < self.answered and self.answers.get(seq) == answer and self.answered - seq < 16 and self.program.kills:
            return
        super().judge(seq, answer)


def traffic_of(t, p, port, commands, model):
    dialog = PowerDialog(p, port)
    dialog.retry = 0.05
    t.at_end(dialog.close)
    return Traffic(dialog, commands, model)


counted = {}


def count(kind, cuts):
    counted[kind] = counted.get(kind, 0) + cuts


def under_load(t, kind):
    """Two programs: one with small turns, one that changes its memory in every way."""
    disk = Disk(t, kind, 512)
    twin = Twin(t, lambda port: [subject("kitchen"), str(port)])
    rng = random.Random(t.random.random())
    both = []
    for name, commands, model in (("udp_counter", *counters(rng)),
                                  ("kitchen", (f"{rng.choice(KITCHEN)} {rng.randrange(100000)}" for _ in iter(int, 1)), twin.answer)):
        port = free_port()
        p = program(t, disk, name, [subject(name), str(port)])
        both.append((p, traffic_of(t, p, port, commands, model)))
    for _, traffic in both:
        traffic.start()
    for n in range(CUTS):
        for p, traffic in both:
            traffic.wait_for(t.random.randrange(1, 40))
            p.check_messages(answered=True)
        disk.cut([p for p, _ in both], t.random)
    for _, traffic in both:
        traffic.wait_for(3)
        traffic.finish()
    t.note(f"{CUTS} cuts, {sum(traffic.count for _, traffic in both)} answers")
    count(kind, CUTS)


def at_the_beginning(t, kind):
    """While the store is being made: the program begins anew, or goes on; a broken store is neither."""
    disk, resumed = Disk(t, kind, 512), 0
    cuts = max(3, CUTS // 4)
    for n in range(cuts):
        port = free_port()
        p = program(t, disk, f"store{n}", [subject("udp_counter"), str(port)])
        time.sleep(t.random.uniform(0, 0.08))
        disk.cut([p], t.random)
        traffic = traffic_of(t, p, port, *counters(t.random))
        traffic.start()
        traffic.wait_for(3)
        resumed += any(RESUME.match(line) for line in p.messages())
        disk.cut([p], t.random)
        traffic.wait_for(3)
        p.check_messages(answered=True)
        traffic.finish()
        p.stop()
        shutil.rmtree(p.store)
    t.note(f"{2 * cuts} cuts, {resumed} stores were whole already")
    count(kind, 2 * cuts)


def copying(t, kind):
    """Peers, one of which sends much to the other: what it has sent and the other has not acknowledged is in the log, and comes into
    the image when the log is to be used again, if it is still needed (heap/loose.h)."""
    disk, cuts, copies, within = Disk(t, kind, 512), 0, 0, 0

    def start(name, *argv):
        o = Output(t, f"{name}{copies}", [PYTHON, subject(f"{name}.py"), *map(str, argv)], store=os.path.join(disk.at, f"{name}{copies}"),
                   env=SMALL)
        o.program.expected_messages = ["^ken: "]
        return o
    while cuts < COPY_CUTS:
        copies, port = copies + 1, free_port()
        receiver = start("copy_to", port)
        wait_until(lambda: is_open(port, "tcp"), "the receiver's port")
        sender = start("copy_from", port, MEGABYTES, copies)
        wait_until(receiver.lines, "the connection")  # or the sender might begin anew, and its connection be reset
        while cuts < COPY_CUTS and not sender.lines():
            time.sleep(t.random.uniform(0, 0.3))
            within += not sender.lines()
            cuts += 1
            disk.cut([receiver.program, sender.program], t.random)
        status = sender.program.wait_gone()
        check(status == 0, f"the sender ended with {status}: {sender.program.tail()}; {receiver.program.tail()}")
        said = sender.lines()
        check(set(said) == {"same"} and len(said) <= 1 + sender.program.kills, f"copy {copies}: {said}")
        receiver.program.stop()
        for o in (receiver, sender):
            shutil.rmtree(o.program.store)
    t.note(f"{cuts} cuts, {within} of them within one of {copies} copies")
    count(kind, cuts)


def private_mounts():
    """What is mounted here is seen by nobody else, and gone with this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() != 0 or libc.unshare(CLONE_NEWNS) or run("mount", "--make-rprivate", "/").returncode:
        return "mounting needs root and mount namespaces"
    return None


problem = private_mounts()


def permitted(function):
    def run_it(t, kind):
        if problem:
            raise Skip(problem)
        function(t, kind)
    return run_it


for kind in ("xfs", "ext4"):
    add_case(f"{kind}_under_load", lambda t, k=kind: permitted(under_load)(t, k), 180)
    add_case(f"{kind}_copying", lambda t, k=kind: permitted(copying)(t, k), 180)
    add_case(f"{kind}_at_the_beginning", lambda t, k=kind: permitted(at_the_beginning)(t, k), 180)

atexit.register(lambda: counted and print("NOTE " + ", ".join(f"{cuts} shutdowns of {kind}" for kind, cuts in counted.items())))
main()
