"""The cost of a turn: a UDP counter with one request outstanding.

    bench_turn.py [ROUNDS [REQUESTS]]

The reference is its round trip without libken and one durable 4 KiB write on the same file system. All of
them are running at once and asked in turn, so that a drift of the machine or the disk meets each.
Pinned: client and server on one processor; the two wake-ups between idle processors otherwise hide much.
"""
import sys

from measure import *

BUDGET = 1.5


def measure(cpu, rounds, requests, place):
    kinds = {"bare": {}, "power": {"store": f"{place}/power-{cpu}"},
             "process": {"store": f"{place}/process-{cpu}", "KEN_SYNC": "process"}}
    ports = {kind: free_port() for kind in kinds}
    servers = [Server([subject("udp_counter"), str(ports[kind])], cpu=cpu, **how) for kind, how in kinds.items()]
    samples = {"bare": [], "disk": [], "power": [], "process": []}
    for kind in kinds:
        figures([bench("udp_client"), str(ports[kind]), "300"], cpu)
    for _ in range(rounds):
        for kind in kinds:
            samples[kind].append(figures([bench("udp_client"), str(ports[kind]), str(requests)], cpu)[0])
        samples["disk"].append(figures([bench("durable_write"), f"{place}/blocks", str(requests)], cpu)[0])
    for server in servers:
        server.stop()
    return samples


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 25
    requests = int(sys.argv[2]) if len(sys.argv) > 2 else 150
    prepare()
    place = scratch()
    for name, cpu in (("pinned", CPU), ("unpinned", None)):
        all = measure(cpu, rounds, requests, place)
        m = {kind: median(values) for kind, values in all.items()}
        report(f"turn, {name}", m["power"], f"{m['bare']:.1f} bare + {m['disk']:.1f} disk",
               ratio_of(all["power"], all["bare"], all["disk"]), BUDGET)
        report(f"turn, KEN_SYNC=process, {name}", m["process"], f"{m['bare']:.1f} bare",
               ratio_of(all["process"], all["bare"]))
        added = median(p - b - d for p, b, d in zip(all["power"], all["bare"], all["disk"]))
        note(f"libken adds {added:.1f} us to the disk's, {m['process'] - m['bare']:.1f} us with KEN_SYNC=process")


main()
