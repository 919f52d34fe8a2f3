#!/usr/bin/python3
"""Servers with an event loop (select, poll, epoll level and edge triggered), many TCP clients and UDP."""
import itertools
import os
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *


def event_loop(way, dialog_class):
    def run(t):
        port = free_port()
        program = t.program([subject("echo_loop"), str(port), way])
        dialog = dialog_class(program, port)
        t.at_end(dialog.close)
        counts = itertools.count(1)
        traffic = Traffic(dialog, (f"text-{t.random.randrange(1000)}" for _ in iter(int, 1)),
                          lambda command: f"{next(counts)} {command}")
        idle = []
        t.at_end(lambda: [s.close() for s in idle])
        for _ in range(200):  # connections that say nothing, to be there when it is killed
            try:
                idle.append(socket.create_connection(("127.0.0.1", port)))
            except OSError:
                time.sleep(0.01)
            if len(idle) == 3:
                break
        check(len(idle) == 3, "three clients could not connect within two seconds")
        t.killed_while(program, traffic)
    return run


for way in ("select", "poll", "epoll", "edge"):
    add_case(f"{way}_tcp", event_loop(way, TcpDialog))
    add_case(f"{way}_udp", event_loop(way, UdpDialog))
main()
