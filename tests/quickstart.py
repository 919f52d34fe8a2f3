#!/usr/bin/python3
"""The demonstration behind scripts/quickstart: an unmodified python3 server under kenrun, an ordinary UDP and an
ordinary TCP client with steady traffic, five kills, and a verdict from what the clients saw."""
import threading

from harness import *

KENRUN = os.path.join(ROOT, "scripts", "kenrun")
SERVER = subject("kv_both.py")


class Supervised:
    """kenrun with the server as its child; kenrun starts it again after each kill."""

    def __init__(self, directory, port):
        self.log = os.path.join(directory, "log")
        self.kills, self.starts = 0, 0
        env = {k: v for k, v in os.environ.items() if not k.startswith("KEN_")}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [KENRUN, "--store", os.path.join(directory, "store"), "--", PYTHON, SERVER, str(port)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**env, "KEN_LIB": LIB})

    def pid(self):
        """The server's: the descendant of kenrun that was started as SERVER."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                for pid in open(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read().split():
                    if SERVER.encode() in open(f"/proc/{pid}/cmdline", "rb").read().split(b"\0"):
                        return int(pid)
            except OSError:
                pass
            time.sleep(0.001)
        raise Failure(f"the server does not run: {self.tail()}")

    def tail(self):
        return open(self.log, errors="replace").read()[-600:]

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Client(threading.Thread):
    """Counts one key up, one request after the other, through one protocol."""

    def __init__(self, name, dialog):
        super().__init__(daemon=True)
        self.name, self.dialog = name, dialog
        self.count, self.replies, self.error = 0, 0, None
        self.killed_at, self.after, self.done = None, threading.Event(), False

    def ask(self, verb):
        self.count += verb == "INC"
        answer = self.dialog.ask(f"{verb} {self.name}")
        check(answer == f"{self.name} {self.count}",
              f"{self.name} reply {self.dialog.seq}: '{answer}', but it must be {self.count}")
        self.visible = self.count
        self.replies += 1

    def run(self):
        self.visible = 0
        try:
            while not self.done:
                killed_at = self.killed_at
                if killed_at is None:
                    self.ask("INC")
                    time.sleep(0.0005)
                    continue
                self.ask("GET")
                self.result = self.visible, time.monotonic() - killed_at
                self.killed_at = None
                self.after.set()
            self.ask("GET")
        except BaseException as error:
            self.error = error
            self.after.set()


def numbered(dialog_class, name):
    """A dialog whose requests name their client, and which asks again soon."""
    class Numbered(dialog_class):
        retry = 0.02

        def send(self, seq, text):
            super().send(seq, f"{name} {text}")
    return Numbered


def kill(server, clients):
    """One kill; returns for each client: count before, count after, seconds until it was told."""
    pid = server.pid()
    before = [c.visible for c in clients]
    now = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    server.kills += 1
    for c in clients:
        c.after.clear()
        c.killed_at = now
    for c in clients:
        c.after.wait(PATIENCE + 5)
        if c.error:
            raise c.error
        check(c.after.is_set(), f"no answer after kill {server.kills}: {server.tail()}")
    return [(b, *c.result) for b, c in zip(before, clients)]


def demonstrate(directory):
    port = free_port()
    server = Supervised(directory, port)
    try:
        clients = [Client("udp", numbered(UdpDialog, "u")(server, port)),
                   Client("tcp", numbered(TcpDialog, "t")(server, port))]
        for c in clients:
            c.start()
        deadline = time.monotonic() + PATIENCE
        while min(c.replies for c in clients) < 100:
            for c in clients:
                if c.error:
                    raise c.error
            check(time.monotonic() < deadline, f"the server does not answer: {server.tail()}")
            time.sleep(0.01)
        print("\n        ---- UDP clients' counter ----    ---- TCP clients' counter ----   resumed after"
              "\n           before kill      after            before kill      after\n")
        rng = random.Random(SEED)
        for n in range(1, 6):
            time.sleep(rng.uniform(0.3, 0.8))
            udp, tcp = kill(server, clients)
            print(f"kill {n}  {udp[0]:12} {udp[1]:11}         {tcp[0]:12} {tcp[1]:11}"
                  f"       {min(udp[2], tcp[2]) * 1000:6.0f} ms", flush=True)
            for before, after, _ in (udp, tcp):  # that it is exact, the client knows
                check(before <= after, f"the count was {before} and is {after}")
        for c in clients:
            c.done = True
            c.join(PATIENCE + 5)
            if c.error:
                raise c.error
        resumes = [line for line in open(server.log, errors="replace") if RESUME.match(line)]
        check(len(resumes) == 5, f"{len(resumes)} resume lines after 5 kills: {server.tail()}")
        print(f"\nlast line of the server's stderr: {resumes[-1].strip()}")
        return sum(c.replies for c in clients)
    finally:
        server.stop()


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    require_aslr()
    directory = tempfile.mkdtemp(prefix="ken-quickstart-", dir=scratch_root())
    try:
        replies = demonstrate(directory)
        print(f"\nverdict: GOOD. {replies} replies, 5 kills: none was taken back, none came again with another "
              "content.")
        status = 0
    except Failure as failure:
        print(f"\nverdict: BAD. {failure}")
        status = 1
    shutil.rmtree(directory, ignore_errors=True)
    sys.exit(status)


main()
