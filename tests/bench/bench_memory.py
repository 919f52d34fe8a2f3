"""What libken costs in memory: the resident set of an idle python3, with and without, and after a resume.

    bench_memory.py [ROUNDS]

Resident: VmRSS, which counts the pages of libken's own libraries and of the image that it has mapped.
"""
import sys

from measure import *

FACTOR, PLUS_KIB = 1.5, 16 * 1024
IDLE = ["/usr/bin/python3", "-c", "import json, socket, time\nwhile True: time.sleep(1000)"]


def settled(server):
    """VmRSS once it has not moved for a while."""
    last, since, deadline = 0, 0, time.monotonic() + 20
    while since < 5 and time.monotonic() < deadline:
        time.sleep(0.1)
        now = rss_kib(server.process.pid)
        since, last = (since + 1, last) if abs(now - last) <= 16 and now > 1000 else (0, now)
    return last


def parts(pid):
    """KiB resident: anonymous, file, shared."""
    status = dict(line.split(":", 1) for line in open(f"/proc/{pid}/status"))
    return ", ".join(f"{key[3:].lower()} {int(status[key].split()[0])} KiB" for key in ("RssAnon", "RssFile", "RssShmem"))


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    prepare()
    place = scratch()
    samples = {"bare": [], "fresh": [], "resumed": []}
    for turn in range(rounds):
        bare = Server(IDLE)
        kept = Server(IDLE, store=f"{place}/{turn}")
        samples["bare"].append(settled(bare))
        samples["fresh"].append(settled(kept))
        first = parts(kept.process.pid)
        kept.stop()
        kept.start()
        samples["resumed"].append(settled(kept))
        if turn == 0:
            note(f"without libken: {parts(bare.process.pid)}")
            note(f"under libken:   {first}")
            note(f"resumed:        {parts(kept.process.pid)}")
        kept.stop()
        bare.stop()
    bare = median(samples["bare"])
    for name, figure in (("idle python3, resident", "fresh"), ("idle python3, resident after a resume", "resumed")):
        measured = median(samples[figure])
        report(name, measured, f"{bare:.0f} KiB bare", budget=FACTOR * bare + PLUS_KIB, unit="KiB")
        note(f"{measured / bare:.2f} x; the budget is {FACTOR} x + 16 MiB")


main()
