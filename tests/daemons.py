"""Programs that go into the background, and whoever has their store then."""
from harness import *


class Daemon(Program):
    """Its first process exits with 0; the one that is killed from then on is whoever has the store. A restart brings it
    back as an ordinary child."""

    def start(self):
        super().start()
        if self.starts == 1:
            self.wait_background()
        return self

    restart = start

    def wait_background(self):
        status = self.wait_gone()
        check(status == 0, f"it did not go into the background: status {status}, {self.tail()}")
        check(self.bare or self.holder(), f"nobody has the store: {self.tail()}; {self.who_runs()}")

    def who_runs(self):
        """For a failure that is hard to see twice."""
        shown = subprocess.run([KENCTL, "show", self.store], capture_output=True, text=True)
        state = next((line for line in shown.stdout.splitlines() if line.startswith("state")), shown.stderr.strip())
        return f"{state}; of that command line run {processes(self.argv)}"

    def holder(self):
        text = subprocess.run([KENCTL, "holder", self.store], capture_output=True, text=True).stdout
        return int(text) if text else 0

    def pid(self):
        return self.process.pid if self.process else self.holder()

    def kill9(self):
        if self.process:
            return super().kill9()
        pid = self.holder()
        check(pid, f"the daemon is gone: {self.tail()}")
        os.kill(pid, signal.SIGKILL)
        self.kills += 1
        Program.killed += 1
        self.wait_free()

    def wait_free(self):
        deadline = time.monotonic() + PATIENCE
        while self.holder():
            check(time.monotonic() < deadline, f"the store is not given up by {self.who_is(self.holder())}")
            time.sleep(0.002)

    def who_is(self, pid):
        try:
            words = [open(f"/proc/{pid}/{name}").read() for name in ("cmdline", "wchan", "status")]
        except OSError:
            words = ["gone"]
        return f"{pid}: " + " ".join(words).replace("\0", " ")[:400]

    def kill_everybody(self):
        """One that is being restored has no command line for a moment: who holds the store, or is our child, is one of them."""
        def living():
            ours = [self.process.pid] if self.process and self.process.poll() is None else []
            return set(processes(self.argv) + ours) | {self.holder()} - {0}

        while pids := living():
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            if self.process:
                self.process.poll()
            time.sleep(0.001)
        if self.process:
            self.wait_gone()
        self.wait_free()

    def stop(self):
        super().stop()
        if not self.bare and self.starts:
            self.expected_messages.append("")
            self.kill_everybody()
