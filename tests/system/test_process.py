#!/usr/bin/python3
"""What belongs to a process besides memory: offsets, pipes, signals, timers, limits, sleeps."""
import itertools
import os
import signal
import pty
import resource
import sys
import termios

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *
from twins import endless, killed_with_twin


@case
def files(t):
    """Offsets and flags come back, of read() and of stdio; nothing that was logged is lost."""
    text = os.path.join(t.dir, "input")
    with open(text, "w") as f:
        f.writelines(f"{n} {'x' * t.random.randrange(60)}\n" for n in range(2000))

    def one():
        verb = t.random.choice(("read", "read", "seek", "pread", "line", "line", "log", "where"))
        return f"{verb} {t.random.randrange(20000)}"

    def argv(port, who):
        return [subject("files"), str(port), text, os.path.join(t.dir, f"log-{who}")]

    killed_with_twin(t, argv, endless(one))
    logs = [open(os.path.join(t.dir, f"log-{who}")).read().splitlines() for who in ("twin", "program")]
    check(list(dict.fromkeys(logs[1]))[:len(logs[0])] == logs[0], "the log has lost lines, or their order")


@case
def wrong_ends(t):
    """Each is refused as it is without libken."""
    said = []
    for bare in (True, False):
        place = os.path.join(t.dir, f"place-{bare}")
        os.mkdir(place)
        p = Program([PYTHON, subject("wrong_ends.py"), place], os.path.join(t.dir, f"store-{bare}"), t.dir, bare=bare, stdout=subprocess.PIPE)
        t.programs.append(p)
        p.start()
        said.append(p.process.communicate(timeout=PATIENCE)[0].decode().splitlines())
    check(len(said[0]) == 26 and said[0] == said[1], f"{[pair for pair in zip(*said) if pair[0] != pair[1]]} of {len(said[1])}")


@case
def pipes(t):
    """What lies in the program's own pipes, socketpairs and eventfds is still there."""
    def one():
        verb = t.random.choice(("put", "put", "take", "send", "send", "get", "event", "count", "dup"))
        return f"{verb} {t.random.randrange(1, 1000)}{'y' * t.random.randrange(20) if verb in ('put', 'send') else ''}"

    killed_with_twin(t, lambda port, who: [subject("pipes"), str(port)], endless(one))


def inner(t, **kw):
    """The subject `inner` with a file; returns its dialog."""
    text, port = os.path.join(t.dir, "text"), free_port()
    with open(text, "w") as f:
        f.write("0123456789" * 10)
    dialog = UdpDialog(t.program([subject("inner"), str(port), text], **kw), port)
    t.at_end(dialog.close)
    return dialog


def after_a_turn(dialog, command, answer, question, right):
    """The command's effect comes after its own turn has ended: the next one has to know of it."""
    check(dialog.ask(command) == answer, f"{command}: {dialog.answers[dialog.seq]}")
    time.sleep(0.1)  # the turn that waits for the next request
    if not dialog.program.bare:
        dialog.program.kill9()
        dialog.program.restart()
    check(dialog.ask(question) == right, f"{question}: {dialog.answers[dialog.seq]}, not {right}")


@case
def moved_after_the_turn(t):
    """A write to an own pipe that let outputs go first, a timer that was waited for, a file sent to an output, a memfd."""
    reader, writer = os.pipe()
    t.at_end(lambda: [os.close(reader), os.close(writer)])
    dialog = inner(t, stdout=writer)
    for n in range(1, 4):
        after_a_turn(dialog, "late", "late", "drained", "drained 5000")
        after_a_turn(dialog, "tick", "rang 1", "ticked", "ticked 0")
        after_a_turn(dialog, "tail", "sent 10", "where", f"at {10 * n}")
        after_a_turn(dialog, "place", "place 5", "placed", "placed 5 " + ("tower" if dialog.seq % 2 == 0 else "house"))


@case
def threads_that_talk(t):
    """What threads send each other over the program's own pipes and socketpairs arrives once and in order."""
    dialog = inner(t)
    t.killed_while(dialog.program, Traffic(dialog, endless(lambda: "talk"), lambda _: "wrong 0"))


@case
def threads_that_splice(t):
    """splice, tee, vmsplice and sendfile between the program's own pipes: nothing is lost, doubled or counted wrongly."""
    text, port, total = os.path.join(t.dir, "text"), free_port(), 0
    with open(text, "w") as f:
        f.write("f" * 300000)
    dialog = UdpDialog(t.program([subject("spliced"), str(port), text]), port)
    t.at_end(dialog.close)

    def model(command):
        nonlocal total
        if command == "file":
            return "right file"
        total += int(command.split()[1])
        return f"right {total}: 1 1 1"

    def one():
        return "file" if t.random.random() < 0.2 else f"pump {t.random.randrange(1, 20000)}"

    t.killed_while(dialog.program, Traffic(dialog, endless(one), model))


@case
def threads_and_an_alarm(t):
    """A timer's only signal, which a thread takes while another one commits."""
    dialog = inner(t)
    model = {"talk": "wrong 0", "ring": "rang", "await": "awaited"}
    commands = itertools.chain(["talk"], itertools.cycle(["ring", "await"]))
    t.killed_while(dialog.program, Traffic(dialog, commands, model.get))


@case
def stacks_without_room(t):
    """Raw system calls, stops and signals on stacks of 1 KiB: nothing is written beside them."""
    commands = (("alt", "inc", "inc", "child")[n % 4] for n in range(1 << 30))
    killed_with_twin(t, lambda port, who: [subject("tiny_stacks"), str(port)], commands)


@case
def alternate_stack_within_the_main_one(t):
    """What a handler on it interrupted lies below it, and is alive."""
    killed_with_twin(t, lambda port, who: [subject("tiny_stacks"), str(port), "deep"], iter(lambda: "deep", None), kills=5)


@case
def signals(t):
    """Dispositions, mask, pending signals, interval timer, alternate stack, cwd, umask, limits."""
    places = []
    for name in ("here", "there"):
        places.append(os.path.join(t.dir, name))
        os.mkdir(places[-1])
    usual = (1, 10, 12, 15)

    def commands():
        yield f"cd {places[0]}"
        for n in usual:
            yield f"handle {n}"
        while True:
            verb = t.random.choice(("raise", "raise", "raise", "block", "unblock", "unblock", "handle",
                                    "itimer", "stack", "cd", "umask", "limit", "show"))
            yield verb + " " + str({"itimer": t.random.choice((0, 20, 50)), "cd": t.random.choice(places),
                                    "umask": t.random.choice(("022", "077", "000")),
                                    "limit": t.random.randrange(100, 4000)
                                    }.get(verb, t.random.choice(usual)))

    killed_with_twin(t, lambda port, who: [subject("signals"), str(port)], commands())


ACTORS = ("main", "sleeper", "spinner")


def pending_commands(t):
    """Each `show` begins anew: no more than a few wait at a time, of each number in its order."""
    while True:
        yield f"spin {t.random.randrange(2)}"
        silent = t.random.sample(ACTORS, len(ACTORS))  # a timer whose signal waits may send it twice, as the kernel likes
        for _ in range(t.random.randrange(1, 8)):
            who = t.random.choice(ACTORS + ("process",))
            number = t.random.choice((10, 100, 101, 102))
            yield t.random.choice((f"kill {who} {number}", f"queue {who} {number} {t.random.randrange(1000)}",
                                   f"queue {who} {number} {t.random.randrange(1000)}",
                                   f"hit {t.random.choice(ACTORS)}", f"ring {silent.pop()}" if silent else "spin 0"))
        yield "show"


@case
def pending_signals(t):
    """What waits for a thread waits for that one after a kill, with its values, and what waits for all of them for all."""
    killed_with_twin(t, lambda port, who: [subject("pending"), str(port)], pending_commands(t))


def crowded(t, soft, hard):
    """A program with as many descriptors as it may have."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < hard:
        raise Skip(f"the limit of descriptors here is below {hard}")
    port = free_port()
    program = t.program([PYTHON, subject("crowded.py"), str(port)],
                        before_exec=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)))
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    right = dialog.ask("check")
    check(right.startswith("right ") and int(right.split()[1]) > soft * 0.8, right)
    t.killed_while(program, Traffic(dialog, itertools.cycle(("check", "more")), lambda _: right), min(KILLS, 8))


@case
def no_room_for_its_descriptors(t):
    """Started again under a limit that is too low it says so, and touches nothing."""
    port = free_port()
    limits = lambda soft, hard: lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    program = t.program([PYTHON, subject("crowded.py"), str(port)], before_exec=limits(600, 600))
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    right = dialog.ask("check")
    if program.bare:
        return
    program.kill9()
    program.before_exec = limits(400, 400)
    program.expected_messages.append("descriptors up to 5.., and 400 are allowed")
    program.restart()
    check(program.wait_gone() not in (0, -9) and program.messages(), f"it ended with {program.status}: {program.tail()}")
    program.before_exec = limits(300, 600)
    program.restart()
    check(dialog.ask("check") == right, "it is not what it was")


@case
def crowded_below_the_hard_limit(t):
    crowded(t, 1024, 4096)


@case
def crowded_at_the_hard_limit(t):
    crowded(t, 1024, 1024)


@case
def crowded_by_its_own_will(t):
    """A program that lowers its hard limit has every descriptor that it would have without libken, and so do its children; which
    peer an address belongs to is still found out when all are taken."""
    commands = itertools.cycle(("check", "greet", "more", "greet"))
    killed_with_twin(t, lambda port, who: [PYTHON, subject("crowded.py"), str(port), "400"], commands, kills=min(KILLS, 8))


@case
def ignored_signal(t):
    """A signal that is ignored stays ignored; one with the default action ends the program."""
    port = free_port()
    program = t.program([subject("signals"), str(port)])
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    dialog.ask("ignore 10")
    if not program.bare:
        program.kill9()
        program.restart()
    dialog.ask("show")
    os.kill(program.pid(), 10)
    check("10i" in dialog.ask("show"), "SIGUSR1 is no longer ignored")
    os.kill(program.pid(), 12)
    check(program.wait_gone() == -12, f"SIGUSR2 ended it with {program.status}")


@case
def alarm(t):
    """An alarm that was set before a kill rings after it, an interval timer goes on."""
    port = free_port()
    program = t.program([subject("signals"), str(port)])
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    dialog.ask("alarm 1")
    check(dialog.ask("rings") == "0", "the alarm rang at once")
    if not program.bare:
        program.kill9()
        program.restart()
    deadline = time.monotonic() + 5
    while dialog.ask("rings") != "1":
        check(time.monotonic() < deadline, "the alarm of 1 s did not ring in 5 s")
        time.sleep(0.1)


@case
def children(t):
    """It works with children (fork, exec, wait, popen), which are plain programs."""
    port = free_port()
    program = t.program([PYTHON, subject("children.py"), str(port)])
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    count = 0

    def model(text):
        nonlocal count
        count += 1
        return f"{text.upper()} {count} none {count % 100}"

    t.killed_while(program, Traffic(dialog, endless(lambda: f"text{t.random.randrange(1000)}"), model))


@case
def children_by_pidfds(t):
    """Those that died with the process are readable, and killed; its own, and others', are of processes that live."""
    port = free_port()
    dialog = UdpDialog(t.program([subject("pidfds"), str(port)]), port)
    t.at_end(dialog.close)
    t.at_end(lambda: [os.kill(pid, signal.SIGKILL) for pid in processes(dialog.program.argv)])  # if it fails half-way
    alive = 0
    for n in range(40):
        command = t.random.choice(("begin", "begin", "spawn", "end", "self", "other"))
        answer = dialog.ask(command)
        if command == "end":
            check(answer == ("killed 9" if alive else "none"), answer)
            alive -= alive > 0
        elif command in ("begin", "spawn"):
            alive += 1
            check(answer == str(alive), f"{answer} children, not {alive}")
        else:
            check(answer == "1", f"{command}: {answer}")
        if n % 4 == 3 and not dialog.program.bare:
            time.sleep(0.05)
            dialog.program.kill9()
            orphans = processes(dialog.program.argv)  # nobody's, and to the program they are dead
            dialog.program.restart()
            answer = dialog.ask("all")
            for pid in orphans:
                os.kill(pid, signal.SIGKILL)
            check(answer == f"{alive} of {alive}, 0 left", f"{alive} children died with it: {answer}")
            alive = 0
    while alive:
        dialog.ask("end")
        alive -= 1


@case
def any_child(t):
    """Who waits for whichever child ends first hears, after a restart, of one that ended with the process."""
    path = os.path.join(t.dir, "out")
    script = ("import os, time\nhere, child = os.getpid(), os.fork()\nif not child:\n"
              " while os.getppid() == here: time.sleep(0.05)\n os._exit(0)\nprint('made', flush=True)\n"
              "print(os.wait() == (child, 9), flush=True)\n")
    with open(path, "wb") as out:
        program = t.program([PYTHON, "-c", script], stdout=os.dup(out.fileno()))
    t.at_end(lambda: os.close(program.stdout))
    deadline = time.monotonic() + PATIENCE
    while open(path).read() != "made\n":
        check(time.monotonic() < deadline, f"it says {open(path).read()}")
        time.sleep(0.01)
    if program.bare:
        raise Skip("nobody restarts it")
    program.kill9()
    program.restart()
    check(program.wait_gone() == 0 and open(path).read() == "made\nTrue\n", f"it says {open(path).read()}, {program.tail()}")


def judge_ticks(text, ticks, kills):
    """Ticks come in order; the last one may be repeated after a kill."""
    highest, repeats = 0, 0
    for number, way in PipeDialog.tokens(text):
        check(number in (highest, highest + 1), f"tick {number} came after tick {highest}")
        repeats += number == highest
        highest = number
    check(highest == ticks, f"the last tick is {highest}, not {ticks}")
    check(repeats <= kills, f"{repeats} ticks came twice, with {kills} kills")


@case
def sleeper(t):
    """nanosleep, usleep, poll, select: each sleep ends a turn, and after a kill sleeping goes on."""
    ticks = 200
    reader, writer = os.pipe()
    t.at_end(lambda: os.close(reader))
    program = t.program([subject("sleeper"), str(ticks)], stdout=writer)
    kills = 0 if program.bare else KILLS
    for _ in range(kills):
        time.sleep(t.random.uniform(0, 0.08))
        if program.process.poll() is not None:
            break
        program.kill9()
        if program.finished() is not None:
            break
        program.restart()
    status = program.finished() if program.process is None else program.wait_gone()
    check(status == 0, f"status {status}")
    os.close(writer)
    with open(reader, closefd=False) as f:
        judge_ticks(f.read(), ticks, program.kills)
    t.note(f"{program.kills} kills")


KEYS = """import os, signal, sys, tty
signal.signal(signal.SIGWINCH, lambda *_: os.write(1, b"[drawn]"))
tty.setraw(0)
os.write(1, b"[ready]")
keys = 0
while (key := os.read(0, 1)) != b"q":
    keys += 1
    os.write(1, b"<%s %d>" % (key, keys))
"""


@case
def terminal(t):
    """A program that reads single keys from a terminal in raw mode; a shell sets the modes to its own after each kill."""
    master, slave = pty.openpty()
    t.at_end(lambda: [os.close(master), os.close(slave)])
    modes, screen = termios.tcgetattr(slave), ""
    program = t.program([PYTHON, "-c", KEYS], stdin=slave, stdout=slave)

    def shows(text):
        nonlocal screen
        deadline = time.monotonic() + PATIENCE
        while text not in screen:
            check(time.monotonic() < deadline, f"no '{text}' on the screen: '{screen[-80:]}': {program.tail()}")
            if select.select([master], [], [], 0.2)[0]:
                screen += os.read(master, 1000).decode()

    shows("[ready]")
    for keys in range(1, 12):
        os.write(master, b"k")
        shows(f"<k {keys}>")
        if not program.bare:
            program.kill9()
            termios.tcsetattr(slave, termios.TCSANOW, modes)
            screen = ""
            program.restart()
            shows("[drawn]")
    os.write(master, b"q")
    check(program.wait_gone() == 0, f"status {program.status}")
    check("\n" not in screen, "the terminal was not raw")


@case
def a_device_is_told_of(t):
    """What libken does not know to make again is said when it is used; the kernel's own sources and sinks are not."""
    try:
        os.close(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK))
    except OSError as error:
        raise Skip(f"/dev/kmsg: {error}")
    script = ("import os\nfor name in ('null', 'zero', 'full', 'urandom', 'kmsg'):\n"
              "    device = os.open('/dev/' + name, os.O_RDONLY | os.O_NONBLOCK)\n"
              "    try: os.read(device, 4096)\n    except OSError: pass")
    program = t.program(["/usr/bin/python3", "-c", script], bare=False)
    check(program.process.wait(PATIENCE) == 0, "the program failed: " + program.tail())
    check(len(program.messages()) == 1 and "/dev/kmsg is a device" in program.messages()[0], f"{program.messages()}")


main()
