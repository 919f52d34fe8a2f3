#!/usr/bin/python3
"""One store, a hundred restarts: number 100 is like number 1, in time, size and descriptors."""
import os
import statistics
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *
from pairs import wait_until


def disk_bytes(directory):
    return sum(os.stat(os.path.join(place, name)).st_blocks * 512
               for place, _, names in os.walk(directory) for name in names)


def look_at(pid):
    """Descriptors, mapped areas, resident KiB, where the program's own text lies."""
    maps = open(f"/proc/{pid}/maps").read().splitlines()
    rss = re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{pid}/status").read())
    return len(os.listdir(f"/proc/{pid}/fd")), len(maps), int(rss[1]), maps[0].split("-")[0]


def restarts(argv, times):
    def run(t):
        port = free_port()
        program = t.program(argv() + [str(port)])
        dialog = UdpDialog(program, port)
        t.at_end(dialog.close)
        dialog.ask("INC a")
        if program.bare:
            raise Skip("without libken there is nothing to restart")
        seen, seconds, size = [], [], []
        for n in range(2, times + 2):
            program.kill9()
            started = time.monotonic()
            program.restart()
            check(dialog.ask("INC a") == f"a {n}", f"restart {n - 1} miscounts")
            seconds.append(time.monotonic() - started)
            program.check_messages(answered=True)
            seen.append(look_at(program.pid()))
            size.append(disk_bytes(program.store))
        early, late = seen[1], seen[-1]
        check(late[0] == early[0], f"descriptors: {early[0]} after restart 2, {late[0]} after {times}")
        check(late[1] <= early[1] + 2, f"mapped areas: {early[1]} after restart 2, {late[1]} after {times}")
        check(late[2] <= early[2] * 1.5 + 2048, f"resident KiB: {early[2]}, then {late[2]}")
        check(size[-1] <= size[1] + (1 << 20), f"the store: {size[1]} bytes, then {size[-1]}")
        first, last = statistics.median(seconds[:10]), statistics.median(seconds[-10:])
        check(last <= 2 * first + 0.02, f"a restart takes {first:.3f} s at first and {last:.3f} s at last")
        t.note(f"{times} restarts, {first * 1000:.0f} ms each at first and {last * 1000:.0f} ms at last")
    return run


add_case("c_100", restarts(lambda: [subject("udp_counter")], 100), limit=90)
add_case("python_100", restarts(lambda: [PYTHON, subject("kv_udp.py")], 100), limit=90)


@case
def other_vdso(t):
    """The saved vdso, patched to lead to the kernel's, as after a change of the kernel: the clocks must be right."""
    port = free_port()
    program = t.program([PYTHON, subject("clock_udp.py"), str(port)], env={"KEN_VDSO": "patch"})
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    last, count = 0.0, 0
    for _ in range(1 if program.bare else 8):
        for _ in range(3):
            answer = dialog.ask("now").split()
            count += 1
            check(int(answer[0]) == count, f"answer {answer} instead of number {count}")
            check(abs(float(answer[1]) - time.time()) < 5, f"the wall clock says {answer[1]}")
            check(last <= float(answer[2]) < time.monotonic() + 1, f"monotonic {answer[2]} after {last}")
            last = float(answer[2])
        if not program.bare:
            program.kill9()
            program.restart()
    t.note("8 restarts")


@case
def aslr(t):
    """Every run has addresses of its own, and a restart has those of its run."""
    if BARE:
        raise Skip("without libken there is nothing to restart")
    bases = []
    for _ in range(3):
        port = free_port()
        program = t.program([subject("udp_counter"), str(port)])
        dialog = UdpDialog(program, port)
        t.at_end(dialog.close)
        dialog.ask("INC a")
        base = look_at(program.pid())[3]
        program.kill9()
        program.restart()
        check(dialog.ask("INC a") == "a 2", "it miscounts")
        check(look_at(program.pid())[3] == base, "the program's text moved in a restart")
        bases.append(base)
    check(len(set(bases)) > 1, f"the program always lies at {bases[0]}: no ASLR")


@case
def without_the_net(t):
    """KEN_NET=plt: without Syscall User Dispatch it still runs, and one line says what is not covered."""
    if BARE:
        raise Skip("without libken there is no net")
    port = free_port()
    program = t.program([subject("udp_counter"), str(port)], env={"KEN_NET": "plt"})
    program.expected_messages = ["Syscall User Dispatch"]
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    for n in range(1, 8):
        check(dialog.ask("INC a") == f"a {n}", "it miscounts")
        if n == 1:
            said = [m for m in program.messages() if "not covered" in m]
            check(len(said) == 1, f"what it said: {program.messages()}")
        program.kill9()
        program.restart()


LATE_SERVER = """
import socket, sys
sys.stdin.readline()
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", int(sys.argv[1])))
while True:
    s.sendto(*s.recvfrom(100))
"""


@case
def a_port_that_is_not_free_yet(t):
    """What was killed may hold its port for a moment longer than its store: a restart waits for it."""
    if BARE:
        raise Skip("without libken nobody waits")
    port = free_port()
    stdin, writer = os.pipe()
    t.at_end(lambda: [os.close(fd) for fd in (stdin, writer)])
    program = t.program([PYTHON, "-c", LATE_SERVER, str(port)], stdin=stdin)
    wait_until(lambda: os.path.exists(os.path.join(program.store, "super")), "the store")
    program.kill9()
    held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    held.bind(("127.0.0.1", port))
    threading.Timer(0.6, held.close).start()
    program.restart()
    os.write(writer, b"\n")
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    check(dialog.ask("hello") == "hello", "it answers something else")


@case(limit=90)
def store_stays_bounded(t):
    """100,000 turns do not make the store grow."""
    port = free_port()
    program = t.program([subject("udp_counter"), str(port)], env={"KEN_SYNC": "process"})
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    if program.bare:
        raise Skip("without libken there is no store")
    for _ in range(1000):
        dialog.ask("INC a")
    early = disk_bytes(program.store)
    turns = int(os.environ.get("KEN_TURNS", "20000"))
    for n in range(turns):
        dialog.ask("INC a")
    late = disk_bytes(program.store)
    check(late <= early + (40 << 20), f"the store took {early} bytes after 1000 turns and {late} after {turns}")
    program.kill9()
    program.restart()
    check(dialog.ask("GET a") == f"a {turns + 1000}", "the count is wrong after the restart")
    t.note(f"{turns} turns, {early >> 10} KiB, then {late >> 10} KiB")


main()
