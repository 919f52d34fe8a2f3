#!/usr/bin/python3
"""Waits for a time go on with what remains of it, after a reboot too: the monotonic clock begins anew, unseen."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *
from timens import uptime

DAY = 86400


def clocks(t, *extra):
    port = free_port()
    program = t.program([subject("clocks"), str(port), *extra], start=False)
    if not program.bare:
        program.before_exec = uptime(DAY)
    try:
        program.start()
    except subprocess.SubprocessError:
        raise Skip("no time namespaces here")
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    return program, dialog, dialog.ask("names").split()


def in_time(dialog, name, ms):
    answer = dialog.ask(f"wait {name} {ms}")
    check(answer == f"{name} in time", answer)


def reboots(t, *extra):
    """One reboot, killed between waits; each way works in both boots."""
    program, dialog, names = clocks(t, *extra)
    for name in names:
        in_time(dialog, name, 5)
    if not program.bare:
        program.kill9()
        program.before_exec = None
        program.restart()
    for name in names:
        in_time(dialog, name, 5)


def killed_in_waits(t, *extra):
    """Killed in the middle of each wait, rebooted each second time."""
    program, dialog, names = clocks(t, *extra)
    ahead = DAY
    for name in names:
        waiting = threading.Timer(0.1, lambda: None)
        if not program.bare:
            ahead -= 600 if t.random.random() < 0.7 else 0
            waiting = threading.Timer(0.1, killed_and_rebooted, (program, ahead))
        waiting.start()
        try:
            in_time(dialog, name, 250)
        finally:
            waiting.join()


def killed_beside_waits(t):
    """Threads wait, each in its way, while another one goes on committing: none of them was in the commit that is resumed."""
    program, dialog, names = clocks(t, "thread")
    check(dialog.ask("begin 4000") == "begun", "it did not begin")
    for wait, ahead in ((0.5, DAY - 600), (0.2, 7200), (3, None)):
        time.sleep(wait)
        dialog.ask("names")
        if not program.bare:
            program.kill9()
            program.before_exec = ahead and uptime(ahead)
            program.restart()
    answer = dialog.ask("end")
    check(answer == "all in time", answer)


def cpu_time(t):
    """What the process, each thread and the children have used goes on from where it was; so do timers and sleeps on it."""
    port = free_port()
    program = t.program([subject("cpu_time"), str(port)])
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)

    def commands():
        while True:
            yield f"work {t.random.randrange(1, 15)}"
            yield from t.random.choice((["arm 8", "ring"], [f"nap {t.random.randrange(1, 8)}"], ["work 1", "work 1"]))

    t.killed_while(program, Traffic(dialog, commands(), lambda command: command.split()[0]))


def killed_and_rebooted(program, ahead):
    program.kill9()
    program.before_exec = uptime(ahead)
    program.restart()


for threads in ((), ("thread",)):
    kind = "threads" if threads else "alone"
    add_case(f"reboot_{kind}", lambda t, a=threads: reboots(t, *a))
    add_case(f"killed_in_waits_{kind}", lambda t, a=threads: killed_in_waits(t, *a))

add_case("cpu_time", cpu_time)
add_case("killed_beside_waits", killed_beside_waits)

main()
