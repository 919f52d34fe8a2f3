"""What the benchmarks share: starting programs bare and under libken, medians, verdicts.

A benchmark prints, for each figure, one line

    figure | measured | reference | ratio | budget | verdict

and never fails because of a figure: 0 it ran, 77 it cannot run here and said why, anything else is
a defect. scripts/bench collects the lines (they begin with "= ") into one table.
"""
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import BUILD, LIB, file_system, free_port, require_aslr, scratch_root, subject  # noqa: E402,F401

CPU = min(os.sched_getaffinity(0))


def skip(reason):
    print(f"SKIP {os.path.basename(sys.argv[0])}: {reason}")
    sys.exit(77)


def bench(name):
    """The path of a program of tests/bench."""
    return os.path.join(BUILD, "tests", name)


def note(text):
    print(f"  {text}", flush=True)


def report(figure, measured, reference="", ratio=None, budget=None, unit="us"):
    """One line of the table. Without `ratio` the measured value itself is held against the budget."""
    value = measured if ratio is None else ratio
    shown = "" if ratio is None else f"{ratio:.2f}"
    verdict = "" if budget is None else "within" if value <= budget else "OVER"
    limit = "" if budget is None else f"{budget:g}" + (f" {unit}" if ratio is None else " x")
    print(f"= {figure} | {measured:.1f} {unit} | {reference} | {shown} | {limit} | {verdict}", flush=True)
    if budget is not None:
        print(f"  budget {limit}, measured {value:.2f}: {verdict.lower()}", flush=True)


def scratch():
    """A directory on a real file system, removed at the end."""
    import atexit
    place = tempfile.mkdtemp(prefix="ken-bench-", dir=scratch_root())
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


def environment(store=None, **more):
    env = {k: v for k, v in os.environ.items() if not k.startswith("KEN_") and k != "LD_PRELOAD"}
    for name in ("KEN_TRACKER",):
        if name in os.environ:
            env[name] = os.environ[name]
    if store:
        env.update(LD_PRELOAD=LIB, KEN_STORE=store)
    env.update(more)
    return env


class Server:
    """A program that serves on a port, bare or with a store; ended by `stop` or at the end of the run."""

    running = []

    def __init__(self, argv, store=None, cpu=None, **env):
        self.argv, self.store, self.cpu, self.env = argv, store, cpu, environment(store, **env)
        self.process = None
        self.start()

    def start(self):
        def pin():
            os.sched_setaffinity(0, {self.cpu})
        self.started = time.perf_counter()
        self.process = subprocess.Popen(self.argv, env=self.env, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        preexec_fn=pin if self.cpu is not None else None)
        Server.running.append(self)

    def stop(self):
        self.process.kill()
        self.process.wait()
        Server.running.remove(self)


def stop_all():
    for server in list(Server.running):
        server.stop()


def figures(argv, cpu=None):
    """Runs a program that prints numbers; returns them. Exit status 77 is passed on as a skip."""
    def pin():
        os.sched_setaffinity(0, {cpu})
    done = subprocess.run(argv, capture_output=True, text=True, env=environment(), timeout=120,
                          preexec_fn=pin if cpu is not None else None)
    if done.returncode == 77:
        skip(done.stderr.strip())
    if done.returncode:
        raise SystemExit(f"{argv[0]}: status {done.returncode}: {done.stderr.strip()}")
    return [float(word) for word in done.stdout.split()]


def median(values):
    return statistics.median(values)


def ratio_of(measured, *references):
    """The median over the rounds of measured / sum of references: a drift between rounds falls out."""
    return median(m / sum(r) for m, *r in zip(measured, *references))


def rss_kib(pid):
    for line in open(f"/proc/{pid}/status"):
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise SystemExit(f"process {pid} is gone")


def prepare():
    """Every benchmark begins with it."""
    import atexit
    atexit.register(stop_all)
    require_aslr()
    if not os.path.exists(LIB):
        skip(f"{LIB} is not built")
    if file_system(scratch_root()) in ("tmpfs", "ramfs"):
        note("no disk: durable writes cost nothing here")
