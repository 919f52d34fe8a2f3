#!/usr/bin/python3
"""Programs under libken on two hosts whose link loses a fifth of the packets, doubles, swaps and delays them, and is cut,
while both ends are killed. What the programs see: nothing, except that it takes time."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *
from hosts import *
from pairs import Output

BAD = "loss 20; double 5; swap 10; delay 1 6"
ADDRESSES = {"v4": ("10.77.0.1", "10.77.0.2", "0.0.0.0"), "v6": ("fd77::1", "fd77::2", "::")}


class Teller(Output):
    """A program on a host whose lines on stdout count."""

    def __init__(self, t, hosts, host, name, argv, key, **kw):
        self.path, self.over = os.path.join(t.dir, name), False
        with open(self.path, "wb") as out:
            self.program = hosts.program(host, argv, key, out=os.dup(out.fileno()), **kw)
        t.at_end(lambda: os.close(self.program.stdout))

    def lines(self):
        return lines_of(self.path)


def kill(victims, pause=lambda: None):
    """All at once; `pause` before each restart. Returns how many died of it."""
    victims = [v for v in victims if not isinstance(v, Teller) or not v.ended()]
    programs = [v.program if isinstance(v, Teller) else v for v in victims]
    died = 0
    for p in programs:
        p.process.kill()
        p.kills += 1
    for v, p in zip(victims, programs):
        if p.wait_gone() != 0:
            died += 1
            pause()
            v.restart()
        elif isinstance(v, Teller):
            v.over = True
    return died


def disturb(t, hosts, tellers, servers, kills, outages, seconds):
    """Until the tellers are done: kills one or several, and cuts the link now and then, kills within the outage included."""
    deadline, died, cuts, outages = time.monotonic() + seconds, 0, 0, list(outages)
    while not all(teller.ended() for teller in tellers):
        check(time.monotonic() < deadline, "no progress: " + "; ".join(f"{x.lines()[-1:]} {x.program.tail()}" for x in tellers) +
              "; servers: " + "; ".join(s.tail() for s in servers))
        time.sleep(t.random.uniform(0.05, 0.3))
        victims = [v for v in servers + tellers if t.random.random() < 0.5]
        if outages and (not cuts or t.random.random() < 0.4):
            hosts.order("cut")
            started, length = time.monotonic(), outages.pop(0)
            time.sleep(t.random.uniform(0, length))
            died += kill(victims)
            time.sleep(max(0, started + length - time.monotonic()))
            hosts.order("heal")
            cuts += 1
        elif died < kills and time.monotonic() < deadline - seconds / 2:
            died += kill(victims, lambda: time.sleep(t.random.uniform(0, 0.1)))
    for teller in tellers:
        teller.finish()
    check(cuts and died, f"done after {died} kills and {cuts} outages: too little work")
    t.note(f"{died} kills, {cuts} outages, packets: {hosts.order('counts')}")


def outages(t, minute):
    return [61] * minute + [t.random.uniform(0.2, 1) for _ in range(6)] if LONG else [1.5]


def take_numbers(t, kind, version):
    """Clients on one host take numbers from a server on the other. UDP sees an outage of a minute."""
    hosts, key, count = Hosts(t, bad=BAD), make_key(t), 100 if LONG else 15
    _, address, wildcard = ADDRESSES[version]
    server = hosts.program(1, [PYTHON, subject("far_server.py"), kind, wildcard, "7001"], key)
    time.sleep(0.3)
    tellers = [Teller(t, hosts, 0, f"client{c}", [PYTHON, subject("far_client.py"), kind, address, "7001", str(count), f"c{c}"], key)
               for c in range(4)]
    disturb(t, hosts, tellers, [server], KILLS if LONG else 5, outages(t, (kind, version) == VARIANTS[0]), 600 if LONG else 60)
    numbers = []
    for teller in tellers:
        *own, last = teller.lines()
        own = [int(n) for n in own]
        check(last == "done" and len(own) == count and own == sorted(own), f"{len(own)} answers, the last line is {last}")
        numbers += own
    check(sorted(numbers) == list(range(1, len(tellers) * count + 1)), "a number is missing or was given twice")


def bank(t, kind, version):
    """Four branches, two on a host: no money is lost or made, no transfer doubled or out of order. TCP sees an outage of a
    minute."""
    hosts, key, transfers = Hosts(t, bad=BAD), make_key(t), 400 if LONG else 150
    names = [f"{ADDRESSES[version][n // 2]},{7001 + n}" for n in range(4)]
    tellers = [Teller(t, hosts, n // 2, f"branch{n}", [PYTHON, subject("far_bank.py"), kind, str(transfers), name] +
                      [other for other in names if other != name], key) for n, name in enumerate(names)]
    for teller in tellers:
        wait_until(teller.lines, "the start")
    disturb(t, hosts, tellers, [], KILLS if LONG else 5, outages(t, (kind, version) == VARIANTS[1]), 600 if LONG else 60)
    total = sum(int(teller.lines()[1]) for teller in tellers)
    check(total == 4000, f"the total is {total}, it was 4000")


# All of it over UDP and TCP, IPv4 and IPv6; in the short suite each once.
VARIANTS = [("udp", "v4"), ("tcp", "v6")] + ([("udp", "v6"), ("tcp", "v4")] if LONG else [])
for kind, version in VARIANTS:
    add_case(f"numbers_{kind}_{version}", lambda t, k=kind, v=version: take_numbers(t, k, v), 130)
    add_case(f"bank_{kind}_{version}", lambda t, k=kind, v=version: bank(t, k, v), 130)


def moved(t, kind, version):
    """The server's host gets another address, and the name another meaning: after a restart of both, they meet again."""
    hosts, key = Hosts(t, bad="delay 1 2"), make_key(t)
    new = {"v4": "10.77.0.3", "v6": "fd77::3"}[version]
    names = os.path.join(t.dir, "hosts")

    def resolve(address):
        with open(names, "w") as f:
            f.write(f"127.0.0.1 localhost\n{address} server\n{ADDRESSES[version][0]} client\n")
    resolve(ADDRESSES[version][1])
    server = hosts.program(1, [PYTHON, subject("far_server.py"), kind, ADDRESSES[version][2], "7001"], key, peers="client",
                           names=names)
    time.sleep(0.3)
    count = 400
    client = Teller(t, hosts, 0, "client", [PYTHON, subject("far_client.py"), kind, "server", "7001", str(count), "c"], key,
                    peers="server", names=names)
    wait_until(lambda: len(client.lines()) > 20, "the first answers")
    old = ADDRESSES[version][1]
    for move in range(6 if LONG else 3):
        programs = [client.program, server]
        t.random.shuffle(programs)
        for p in programs:
            p.kill9()
        hosts.remove_address(1, old)
        hosts.add_address(1, new)
        old, new = new, old
        resolve(old)
        for p in programs:
            p.restart()
        before = len(client.lines())
        wait_until(lambda: client.ended() or len(client.lines()) > before + 20, f"answers from the new address (move {move + 1})")
    wait_until(client.ended, "the end", 60)
    client.finish()
    *numbers, last = client.lines()
    check(last == "done" and [int(n) for n in numbers] == list(range(1, count + 1)), "a number is missing, doubled or out of order")
    t.note(f"{server.kills + client.program.kills} kills")


for kind, version in VARIANTS:
    add_case(f"address_changes_{kind}_{version}", lambda t, k=kind, v=version: moved(t, k, v), 90)


@case(limit=120)
def last_words(t):
    """Runs of one store that end after KEN_LINGER, short for this link, some of them while it is cut: what the peer had not
    taken then is delivered by the runs that follow, once, in order."""
    hosts, key, runs = Hosts(t, bad=BAD), make_key(t), 20 if LONG else 3
    collector = hosts.program(1, [PYTHON, subject("collector.py"), "0.0.0.0:7001"], key)
    time.sleep(0.3)
    store, left = os.path.join(t.dir, "teller-store"), 0

    def tell(n, linger, *words):
        words = (f"{20 * n + 1}-{20 * n + 20}", f"tcp:{n}") + words
        o = Teller(t, hosts, 0, f"teller{n}", [PYTHON, subject("teller.py"), "10.77.0.2:7001", *words], key, linger=linger, store=store)
        o.program.expected_messages = ["the rest stays in the store"]
        return o
    first = tell(0, "40", "hello")
    wait_until(first.ended, "the first run", 60)
    first.finish()
    for n in range(1, runs):
        cut = n == 1 or t.random.random() < 0.3
        o = tell(n, t.random.choice(("0", "0", "1")), "end")
        wait_until(lambda: o.lines() or o.ended(), "the run's last step", 60)
        if cut:
            hosts.order("cut")
        if t.random.random() < 0.3:
            collector.kill9()
            collector.restart()
        wait_until(o.ended, "the run's end", 60)
        o.finish()
        left += os.path.exists(os.path.join(store, "unsent"))
        hosts.order("heal")
    last = tell(runs, "40", "tell")
    wait_until(last.ended, "the last run", 90)
    last.finish()
    kept = last.lines()[-1].split(",")
    numbers = [int(n) for n in kept if not n.startswith("[")]
    check(numbers == list(range(1, 20 * (runs + 1) + 1)), f"the collector has {kept}")
    check({f"[{n}]" for n in range(runs)} <= set(kept) and len(set(kept)) == len(kept), f"connections: {kept}")
    check(left, "each run had the time to say everything: nothing was tested")
    t.note(f"{runs + 1} runs, {left} left something, {collector.kills} kills")


def plain_datagrams(hosts, settings, count=200):
    """What a plain program's datagrams suffer on the link."""
    hosts.order("loss 0", "double 0", "swap 0", "delay 0 0", *settings.split(";"))
    a, b = (hosts.within(host, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for host in (0, 1))
    b.bind(("10.77.0.2", 7001))
    b.settimeout(0.5)
    for n in range(count):
        a.sendto(str(n).encode(), ("10.77.0.2", 7001))
        time.sleep(0.001)
    got = []
    try:
        while True:
            got.append(int(b.recv(100)))
    except TimeoutError:
        pass
    a.close(), b.close()
    return got


@case
def the_link_is_bad(t):
    """The emulator does what it says: else all the rest would be tested over a good network."""
    hosts = Hosts(t, bad="loss 0")
    got = plain_datagrams(hosts, "loss 0")
    check(got == list(range(200)), f"a good link is not: {got}, {hosts.order('counts')}")
    got = plain_datagrams(hosts, "loss 20")
    check(120 < len(got) < 195 and got == sorted(set(got)), f"{len(got)} of 200 at a loss of 20 %")
    got = plain_datagrams(hosts, "double 20")
    check(len(got) > 208 and set(got) == set(range(200)), f"{len(got)} of 200 with 20 % doubled")
    got = plain_datagrams(hosts, "swap 20; delay 1 5")
    check(len(got) == 200 and got != sorted(got), f"{len(got)} of 200, in order")
    check(plain_datagrams(hosts, "cut") == [], "a cut link lets something through")


main()
