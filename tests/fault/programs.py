"""The workloads of test_errors.py: those of mortal.py, whose answers are known, and more."""
import os
import tty

import companions
import copies
import corners
import mortal  # knows where the next ones are
import line_server
import places
import ports
from erring import Told
from harness import PYTHON, Case, Failure, Program, TcpDialog, UdpDialog, free_port, subject
from mortal import ask, udp_dialog

known_answers = {}


def command_line(name, port, arguments, place):
    start = [PYTHON, subject(name)] if name.endswith(".py") else [subject(name)]
    where = [] if "{port}" in arguments else [str(port)]
    return start + where + [a.format(dir=place, port=port) for a in arguments]


def lay(files, place):
    for name, text in files.items():
        path = os.path.join(place, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)


def answers(name, commands, arguments, files):
    """What the program answers that runs alone: asked once, before the cases."""
    if (name, commands, arguments) not in known_answers:
        t, port = Case(name), free_port()
        lay(files, t.dir)
        p = Program(command_line(name, port, arguments, t.dir), t.dir, t.dir, bare=True).start()
        dialog = UdpDialog(p, port)
        known_answers[name, commands, arguments] = [dialog.ask(command) for command in commands]
        dialog.close()
        p.stop()
        t.finish(False)
    return known_answers[name, commands, arguments]


def service(name, text, *arguments, files={}, roots=()):
    """A workload of a subject that answers datagrams, with the answers that a run of it alone gives."""
    commands = tuple(text.split(", "))

    def run(t, p):
        port, right_ones = free_port(), answers(name, commands, arguments, files)
        lay(files, t.dir)
        p.roots = [os.path.join(t.dir, root) for root in roots]
        p.argv = command_line(name, port, arguments, t.dir)
        p.dialog = dialog = UdpDialog(p, port)
        dialog.retry = 0.04
        t.at_end(dialog.close)
        p.start()
        for command, right in zip(commands, right_ones):
            ask(p, dialog, command, right)
    run.prepare = lambda: answers(name, commands, arguments, files)
    return run


def tcp(t, p, argv=None, requests=12):
    port = free_port()
    p.argv = (argv or [subject("tcp_counter")]) + [str(port)] + (["edge"] if argv else [])
    p.dialog = dialog = TcpDialog(p, port)
    t.at_end(dialog.close)
    p.start()
    for n in range(1, requests + 1):
        ask(p, dialog, f"text-{n}" if argv else "INC key", f"{n} text-{n}" if argv else f"key {n}")


def edge(t, p):
    tcp(t, p, [subject("echo_loop")])


def daemon(t, p):
    p.closes_stderr = True
    mortal.daemon(t, p)


def children(t, p):
    dialog = udp_dialog(t, p, [PYTHON, subject("children.py")])
    for n in range(1, 5):
        ask(p, dialog, "text", f"TEXT {n} none {n}")


def wrapper(t, p):
    path = os.path.join(t.dir, "wrapper.sh")
    with open(path, "w") as f:
        f.write(f"#!/bin/sh\numask 027\necho a | grep -q a\nunset KEN_FAULT KEN_FAULT_CALL KEN_FAULT_CALLS\nexec {subject('udp_counter')} $1\n")
    os.chmod(path, 0o755)
    dialog = udp_dialog(t, p, [path])
    for n in range(1, 8):
        ask(p, dialog, "INC key", f"key {n}")


def terminal(t, p):
    """The line server at a terminal, whose modes it has set."""
    master, slave = os.openpty()
    tty.setraw(slave)
    dialog = line_server.serve_lines(t, p, master, master, slave, slave)
    for command, right in line_server.additions(f"{n * n}." for n in range(1, 7)):
        try:
            ask(p, dialog, command, right)
        except Failure:
            asked = any(call and call.split(":")[2] == "EIO" for call, _ in p.plan)
            if asked and (p.failed or p.did_fail()) and p.ended == 0:  # what reading from a terminal that hung up answers
                p.outcome = "told"
                raise Told(p.tail()) from None
            raise


FILES = "read 100, line, log a, pread 77, seek 40, read 33, line, log b, where, read 200, line, where"
PIPES = ("put one, send two, event 3, put four, take, send five, dup, event 6, get, put seven, count, take, get, put eight, dup, "
         "take")
SIGNALS = ("cd /usr, handle 10, handle 12, stack, itimer 50, block 10, raise 10, umask 077, limit 500, raise 12, unblock 10, "
           "limit 900, cd /tmp, umask 022, block 12, raise 12, unblock 12")
KINDS = ", ".join("eventfd signal timer inotify pair message memfd unix epoll dup option pipe move lock vfork".split() * 3)
PTHREADS = ("mutex 0, mutex 2, robust, timer, rwlock, worker, pipe, mutex 3, robust, timer, clock, worker, timeout, cancel, timer, "
            "mutex 1, barrier, robust, pipe, detach, timer")
# What the first eight have made, the next ones change in another process.
MEMORY = ("vault 1, arena 3, arena 4, grow 900, block 5, vault 2, arena 6, grow 901, hole 3, arena 36, vault 9, grow 90000, hole 6, stack 8, "
          "vault 4, hole 4, arena 3")
WAITING = ", ".join("a" * 26)
QUEUED = ("queue sleeper 100 1, kill sleeper 10, queue process 101 2, queue main 102 3, show, kill process 10, queue sleeper 100 4, "
          "queue process 100 5, kill main 10, hit sleeper, show, queue process 102 6, queue sleeper 101 7, show")


def nameless(text):
    return service("nameless", text, "{dir}/files", "{port}", files={"files/any": ""})


# Whichever turn is lost has renamed something: the directory of an open file, or the file.
renames = nameless("steady, " + "inside, " * 9 + "steady")
moves = nameless("moved, " * 11 + "moved")

JAIL = {f"{place}file": letter * 100000 for place, letter in (("", "a"), ("program/", "a"), ("root/", "b"), ("root/cell/", "c"))}
JAIL.update({"root/cell/corner/any": "", "root/cell/here": ""})
HALF = ", ".join("pair message unix dup pipe epoll lock memfd timer".split() * 3)
EARLY, LATER = "turn.applied:5", "turn.applied:4"

# name: (function, environment, where its first start dies when the second is looked at, where the one looked at dies)
WORKLOADS = {name: (function, env, mortal_death, LATER) for name, function, env, mortal_death in (
    ("counter", mortal.counter, {}, EARLY),
    ("compare", mortal.counter, {"KEN_TRACKER": "compare"}, EARLY),
    ("softly", mortal.counter, {"KEN_SYNC": "process"}, EARLY),
    ("kitchen", mortal.kitchen, {}, EARLY),
    ("remap", mortal.remap, {}, EARLY),
    ("threads", mortal.threads, {}, "release.noted:6"),
    ("lines", mortal.lines, {}, "turn.applied:3"),
    ("leave", mortal.leave, {}, "release.noted:20"),
    ("leave_again", mortal.leave_again, {}, "turn.released:1"),
    ("copy", mortal.copy, {}, "release.noted:40"),
    ("fresh", mortal.fresh, {"KEN_FRESH": "1"}, None),
    ("tcp", tcp, {}, EARLY),
    ("edge", edge, {}, "turn.applied:7"),
    ("pipes", service("pipes", PIPES), {}, "turn.applied:8"),
    ("signals", service("signals", SIGNALS), {}, "turn.applied:9"),
    ("files", service("files", FILES, "/proc/cpuinfo", "{dir}/log"), {}, "turn.applied:6"),
    ("number_server", companions.talk("number", 40, "server"), {}, "turn.applied:15"),
    ("number_client", companions.talk("number", 40, "client"), {}, "turn.applied:15"),
    ("stream_server", companions.talk("stream", 60, "server"), {}, "turn.applied:20"),
    ("stream_client", companions.talk("stream", 60, "client"), {}, "turn.applied:20"),
    ("copy_sender", copies.sender, {}, EARLY),
    ("kinds", service("descriptor_kinds", KINDS), {}, "turn.applied:24"),
    ("pthreads", service("pthread_kinds", PTHREADS), {}, "turn.applied:12"),
    ("user", service("drops_root", "who, count, count, who, count, who, count, who"), {}, EARLY),
    ("terminal", terminal, {}, "turn.applied:3"),
    ("daemon", daemon, {}, EARLY),
    ("pidfds", service("pidfds", "self, begin, other, spawn, self, begin, other, spawn, self, other, begin, self, spawn, other", "together"), {}, EARLY),
    ("forking", companions.forking, {}, None),
    ("workers", companions.workers, {}, None),
    ("unsent", mortal.unsent, {}, "turn.applied:2"),
    ("unsent_heard", mortal.unsent_heard, {}, "turn.applied:1"),
    ("far_server", companions.far("tcp", 20, "server"), {}, "turn.applied:10"),
    ("far_client", companions.far("udp", 20, "client"), {}, "turn.applied:10"),
    ("children", children, {}, EARLY),
    ("wrapper", wrapper, {}, EARLY),
    ("nameless", mortal.nameless, {}, "commit.captured:7"),
    ("in_memory", places.in_memory, {}, EARLY),
    ("relative", places.relative, {}, EARLY),
    ("by_default", places.by_default, {}, EARLY),
    ("older_kernel", places.older_kernel, {}, EARLY),
    ("memory", service("kitchen", MEMORY), {}, "turn.applied:9"),
    ("shared", service("shared_memory", WAITING), {}, EARLY),
    ("waits", service("waits", WAITING), {}, "turn.applied:9"),
    ("queued", service("pending", QUEUED), {}, "turn.applied:9"),
    ("half_done", service("descriptor_kinds", HALF), {}, "turn.applied:10"),
    ("spliced", service("spliced", "pump 900, file, pump 5000, pump 70, file, pump 12345, file, pump 1, pump 8000", "{dir}/text",
                        files={"text": "f" * 300000}), {}, EARLY),
    ("inside", service("drops_root", "who, count, count, who, count, who, count, who", "{dir}/root", files={"root/here": ""}, roots=("root",)), {}, EARLY),
    ("jailed", service("jailed", "where, count, where, count, count, where, count, where", "{dir}/root", files=JAIL, roots=("root", "root/cell")), {}, EARLY),
    ("nameless_over", mortal.nameless, {}, "turn.captured:10"),
    ("renames", corners.renamed(renames), {}, "turn.captured:6"),
    ("moves", moves, {}, "turn.captured:6"),
    ("binds", corners.binds, {}, "turn.captured:6"),
    ("rebooted", corners.rebooted, {}, EARLY),
    ("without_stdin", corners.without_stdin, {}, EARLY),
    ("no_execution", corners.no_execution, {}, EARLY),
    ("shorter_journal", corners.shorter_journal, {}, EARLY),
    ("company", corners.company, {}, EARLY),
    ("pages", corners.pages, {}, "turn.applied:3"),
    ("resets", corners.resets("client"), {}, "turn.applied:9"),
    ("by_name", companions.far("tcp", 12, "client", peers="localhost 10.77.0.0/24"), {}, "turn.applied:6"),
    ("outer_address", companions.far("udp", 12, "client", host=1, late=0.2), {}, "turn.applied:6"),
    ("informed", companions.far("info", 12, "server", table="udp", address="fd77::2", peers="fd77::/64"), {}, "turn.applied:6"),
    ("options_server", ports.options("server"), {}, "turn.applied:8"),
    ("options_client", ports.options("client"), {}, "turn.applied:8"),
    ("former_port", ports.former_port, {}, "turn.applied:6"),
    ("far_port", ports.far_port, {}, "turn.applied:6"),
    ("apart", ports.apart, {}, "turn.applied:8"),
    ("allocations", service("malloc_kinds", ", ".join(f"step {n * 7919}" for n in range(1, 21))), {}, "turn.applied:9"),
)}
