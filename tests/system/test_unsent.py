#!/usr/bin/python3
"""What a run had said when it ended, and its peers had not taken: the next run delivers it, before anything new."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *
from pairs import *

LEFT = "the rest stays in the store"


class Scene:
    """A collector, and a teller that runs again and again in one store."""

    def __init__(self, t, linger="0"):
        self.t, self.port, self.go = t, free_port(), os.path.join(t.dir, "go")
        self.collector = t.program([PYTHON, subject("collector.py"), str(self.port)])
        wait_until(lambda: is_open(self.port), "the collector's port")
        self.store, self.linger, self.runs = os.path.join(t.dir, "teller-store"), linger, 0

    def tell(self, *words, **env):
        """One run of the teller."""
        self.runs += 1
        o = Output(self.t, f"teller{self.runs}", [PYTHON, subject("teller.py"), str(self.port), *words], store=self.store,
                   env=dict({"KEN_LINGER": self.linger}, **env))
        o.program.expected_messages.append(LEFT)
        return o

    def kill(self):
        self.collector.kill9()

    def leave(self, *words):
        """A run that ends while the collector is down."""
        o = self.tell("hello", f"wait:{self.go}", *words)
        wait_until(o.lines, "the first answer")
        self.kill()
        open(self.go, "w").close()
        o.finish()
        return o

    def kept(self):
        """What the collector has: a plain program asks."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.connect(("127.0.0.1", self.port))
            s.settimeout(PATIENCE)
            s.send(b"tell")
            return s.recv(65536).decode()

    def unsent(self):
        return os.path.join(self.store, "unsent")


def numbers(first, last):
    return ",".join(str(n) for n in range(first, last + 1))


@case
def delivered_by_the_next_run(t):
    """The next run finds its peer still down; what both said arrives in order when it is back."""
    scene = Scene(t)
    first = scene.leave("1-20")
    check(any(LEFT in m for m in first.program.messages(1)), "it does not say that something was left")
    second = scene.tell("21-40", "tell", KEN_LINGER="10")
    time.sleep(0.3)
    check(not second.ended(), "it did not wait for the peer")
    scene.collector.restart()
    second.finish()
    check(second.lines() == [numbers(1, 40)], f"the collector has {second.lines()}")
    check(not os.path.exists(scene.unsent()), "the file is still there")
    third = scene.tell("41-50", "tell", KEN_LINGER="10")
    third.finish()
    check(third.lines() == [numbers(1, 50)], f"the collector has {third.lines()}")


@case
def left_again_and_again(t):
    """Several runs end without the peer; each is heard out before the next."""
    scene = Scene(t)
    scene.leave("1-10")
    for n in range(1, 4):
        scene.tell(f"{10 * n + 1}-{10 * n + 10}").finish()
    last = scene.tell("41-50", "tell")
    time.sleep(0.2)
    scene.collector.restart()
    last.finish()
    check(last.lines() == [numbers(1, 50)], f"the collector has {last.lines()}")


@case
def a_short_run_delivers(t):
    """The peer is there again: a run that has nothing to say itself delivers what was left, while it ends."""
    scene = Scene(t)
    scene.leave("1-20")
    scene.collector.restart()
    wait_until(lambda: is_open(scene.port), "the collector's port")
    scene.tell(KEN_LINGER="10").finish()
    check(scene.kept() == numbers(1, 20), f"the collector has {scene.kept()}")


@case
def connections_are_left_too(t):
    """A connection with bytes and its end in flight: the peer reads them, then the end."""
    scene = Scene(t)
    listener_port = free_port()
    script = ("import socket, sys, os, time\n"
              f"s = socket.create_connection(('127.0.0.1', {scene.port}))\n"
              f"s.sendall(b'one ')\nprint('met', flush=True)\n"
              f"while not os.path.exists({scene.go!r}): time.sleep(0.01)\n"
              "s.sendall(b'two ' * 5000 + b'three')\ns.close()\n")
    o = Output(t, "sender", [PYTHON, "-c", script], store=scene.store, env={"KEN_LINGER": "0"})
    o.program.expected_messages.append(LEFT)
    wait_until(o.lines, "the connection")
    time.sleep(0.1)
    scene.kill()
    open(scene.go, "w").close()
    o.finish()
    scene.collector.restart()
    wait_until(lambda: is_open(scene.port), "the collector's port")
    scene.tell(KEN_LINGER="10").finish()
    right = "[one " + "two " * 5000 + "three]"
    check(scene.kept() == right, f"the collector has {scene.kept()[:60]}")


@case(limit=120)
def killed_while_it_delivers(t):
    """Both are killed all the time while one run after the other ends without waiting."""
    scene = Scene(t)
    last, kills = scene.leave("1-30"), 0
    scene.collector.restart()
    for n in range(1, 7):
        o = scene.tell(f"{30 * n + 1}-{30 * n + 30}", *(["tell"] if n == 6 else []), "end", KEN_LINGER="0" if n < 6 else "10")
        for _ in range(3):
            time.sleep(t.random.uniform(0, 0.15))
            for v in t.random.sample([o, scene.collector], t.random.randrange(1, 3)):
                p = v.program if isinstance(v, Output) else v
                if not (isinstance(v, Output) and v.ended()) and p.process.poll() is None:
                    p.process.kill()
                    kills += p.wait_gone() == -9
                    v.restart()
                    if v is o and o.over and not o.lines():  # what finished was the run before
                        o.over = False
                        p.restart()
        wait_until(o.ended, "the run's end")
        o.finish()
    lines = [line for line in o.lines() if line != "end"]
    check(lines[-1] == numbers(1, 210), f"the collector has {lines[-1:]}")
    t.note(f"{kills} kills")


@case
def fresh_peer(t):
    """A peer that came back with nothing: what was left for its former run is dropped, and that is said; what this run says is for it."""
    scene = Scene(t)
    scene.leave("1-20")
    shutil.rmtree(scene.collector.store)
    scene.collector.restart()
    wait_until(lambda: is_open(scene.port), "the collector's port")
    second = scene.tell("21-40", KEN_LINGER="10")
    second.program.expected_messages.append("a peer began anew")
    wait_until(second.ended, "the second run's end")
    second.finish()
    check(any("a peer began anew" in m for m in second.program.messages(1)), f"it says {second.program.tail()}")
    check(not os.path.exists(scene.unsent()), "the file is still there")
    third = scene.tell("hello", "41-50", "tell", KEN_LINGER="10")
    third.finish()
    check(third.lines() == ["met", numbers(21, 50)], f"it says {third.lines()}")


@case
def damaged(t):
    """Any byte of the file that is wrong, or missing: an error that names it, and nothing is touched; --fresh goes on."""
    scene = Scene(t)
    scene.leave("1-20")
    with open(scene.unsent(), "rb") as f:
        whole = f.read()
    places = [t.random.randrange(len(whole)) for _ in range(6)]
    broken = [whole[:at] + bytes([whole[at] ^ (1 << t.random.randrange(8))]) + whole[at + 1:] for at in places]
    for text in broken + [whole[:-1], whole + b"x", whole[:30], b""]:
        with open(scene.unsent(), "wb") as f:
            f.write(text)
        p = t.program([PYTHON, subject("teller.py"), str(scene.port)], store=scene.store)
        p.expected_messages.append("unsent")
        check(p.wait_gone() == 70, f"{len(text)} bytes: status {p.status}")
        check("unsent" in p.stderr(), f"it says {p.tail()}")
        with open(scene.unsent(), "rb") as f:
            check(f.read() == text, "the file was changed")
    with open(scene.unsent(), "wb") as f:
        f.write(whole)
    scene.collector.restart()
    wait_until(lambda: is_open(scene.port), "the collector's port")
    scene.tell(KEN_LINGER="10").finish()
    check(scene.kept() == numbers(1, 20), f"the collector has {scene.kept()}")


main()
