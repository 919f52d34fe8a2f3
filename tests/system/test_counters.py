#!/usr/bin/python3
"""Key-value counters over UDP and TCP, in C and in Python: no count is ever taken back."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *


class Counters:
    """What a right server answers."""

    def __init__(self, rng, keys=("alpha", "beta", "gamma", "delta")):
        self.random, self.keys, self.values = rng, keys, {}

    def commands(self):
        while True:
            verb = "GET" if self.random.random() < 0.2 else "INC"
            yield f"{verb} {self.random.choice(self.keys)}"

    def answer(self, command):
        verb, key = command.split()
        value = self.values.get(key, 0) + (verb == "INC")
        self.values[key] = value
        return f"{key} {value}"

    def traffic(self, dialog):
        return Traffic(dialog, self.commands(), self.answer)


def run_counter(t, argv, dialog_class, **kw):
    port = free_port()
    program = t.program(argv + [str(port)], **kw)
    dialog = dialog_class(program, port)
    t.at_end(dialog.close)
    counters = Counters(t.random)
    t.killed_while(program, counters.traffic(dialog))
    for key in counters.keys:  # and at the end every count is what the model says
        command = f"GET {key}"
        check(dialog.ask(command) == counters.answer(command), f"the final {key} is wrong")


@case
def udp_counter(t):
    run_counter(t, [subject("udp_counter")], UdpDialog)


@case
def udp_counter_two_clients(t):
    """Two clients with keys of their own: requests queue up in the socket while a turn runs."""
    port = free_port()
    program = t.program([subject("udp_counter"), str(port)])
    other = Counters(random.Random(t.random.random()), keys=("one", "two")).traffic(UdpDialog(program, port))
    t.at_end(other.dialog.close)
    other.start()
    mine = Counters(t.random).traffic(UdpDialog(program, port))
    t.at_end(mine.dialog.close)
    t.killed_while(program, mine)
    other.finish()


@case
def udp_counter_process_sync(t):
    """KEN_SYNC=process survives the death of the process all the same."""
    run_counter(t, [subject("udp_counter")], UdpDialog, env={"KEN_SYNC": "process"})


@case
def tcp_counter(t):
    run_counter(t, [subject("tcp_counter")], TcpDialog)


@case
def python_udp(t):
    run_counter(t, [PYTHON, subject("kv_udp.py")], UdpDialog)


@case
def python_tcp(t):
    run_counter(t, [PYTHON, subject("kv_tcp.py")], TcpDialog)


@case
def poller(t):
    """Never blocks, yet its answers get out; UDP with MSG_DONTWAIT."""
    port = free_port()
    program = t.program([subject("poller"), str(port)])
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    count = 0

    def model(command):
        nonlocal count
        count += command == "inc"
        return "1" if command == "spins" else str(count)

    t.killed_while(program, Traffic(dialog, (t.random.choice(("inc", "inc", "get", "spins"))
                                             for _ in iter(int, 1)), model))


main()
