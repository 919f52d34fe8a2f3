"""Programs that talk to each other, and are killed while they do: what the tests of channels share."""
from harness import *


def wait_until(condition, what, seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while not condition():
        check(time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}")
        time.sleep(0.005)


def is_open(port, table="udp"):
    wanted = f":{port:04X}"
    with open(f"/proc/net/{table}") as f:
        return any(line.split()[1].endswith(wanted) for line in f.readlines()[1:])


def plain_connections(*ports):
    """Connections of the kernel's own to these ports: between peers there are none."""
    with open("/proc/net/tcp") as f:
        lines = [line.split() for line in f.readlines()[1:]]
    return [line[1:4] for line in lines if line[3] == "01" and int(line[1].split(":")[1], 16) in ports]


class Output:
    """A program whose output goes to a file that is opened once."""

    def __init__(self, t, name, argv, **kw):
        self.path = os.path.join(t.dir, name)
        self.file = open(self.path, "wb")
        self.over = False
        self.program = t.program(argv, stdout=self.file, **kw)

    def lines(self):
        with open(self.path, errors="replace") as f:
            return f.read().splitlines()

    def ended(self):
        return self.over or self.program.process.poll() is not None

    def restart(self):
        """After a kill; a run that had finished before it is over."""
        show = subprocess.run([os.path.join(BUILD, "scripts", "kenctl"), "show", self.program.store], capture_output=True, text=True)
        self.over = "state: finished" in show.stdout
        if not self.over:
            self.program.restart()

    def finish(self):
        if not self.over:
            status = self.program.wait_gone()
            check(status == 0, f"{self.path}: status {status}: {self.program.tail()}")


def kill_until(t, outputs, servers, kills, longest, seconds=60):
    """Kills random programs, sometimes several at once, until all outputs are complete. In the second half of the time they are
    left alone: where they come to nothing for all the kills, on a busy machine, there are fewer."""
    seconds *= 4 if LONG else 1
    deadline, done = time.monotonic() + seconds, 0
    while not all(o.ended() for o in outputs):
        check(time.monotonic() < deadline, "the programs make no progress: " +
              "; ".join(f"{o.lines()[-1:]} {o.program.tail()}" for o in outputs))
        time.sleep(t.random.uniform(0, longest))
        victims = [v for v in servers + [o for o in outputs if not o.ended()] if t.random.random() < 0.5]
        if done >= kills or time.monotonic() > deadline - seconds / 2:
            continue
        programs = [v.program if isinstance(v, Output) else v for v in victims]
        for p in programs:
            if p.process.poll() is None:
                p.process.kill()
                p.kills += 1
        for v, p in zip(victims, programs):
            if p.process.wait() == -9:
                done += 1
                p.wait_gone()
                if t.random.random() < 0.3:
                    time.sleep(t.random.uniform(0, longest))
                v.restart()
    for o in outputs:
        o.finish()
    t.note(f"{done} kills")
