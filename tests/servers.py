"""Clients of real servers, each with a model of what it was told.

A `Load` is several clients at once, while the harness kills the server. A client makes verified
exchanges, one a step. When its connection breaks it connects again and looks: what it had been told must
be there, and what it had asked without an answer has either happened as a whole or not at all.
"""
import os
import random
import shutil
import signal
import socket
import struct
import threading
import time

from harness import PATIENCE, Failure, Skip, Traffic, check

ANSWER_WITHIN = 10.0  # seconds; a connection of a killed server breaks, so silence is an error


def need_server(program):
    """The path of an installed server; without it the case is skipped."""
    path = shutil.which(program, path="/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin")
    if not path:
        raise Skip(f"{program} is not installed")
    return path


def written(t, name, text):
    path = os.path.join(t.dir, name)
    with open(path, "w") as f:
        f.write(text)
    return path


def documents(t, sizes):
    """A directory with files of known contents; [(name, text)]."""
    place = os.path.join(t.dir, "www")
    os.makedirs(place)
    files = [(f"file{n}.txt", "".join(t.random.choices("abcdefgh \n", k=size))) for n, size in enumerate(sizes)]
    for name, text in files:
        with open(os.path.join(place, name), "w") as f:
            f.write(text)
    return place, files


def nginx_settings(t, port, place, daemon, errors):
    return written(t, "nginx.conf", f"""
        daemon {daemon}; master_process off; pid {t.dir}/nginx.pid; error_log {errors}; events {{}}
        http {{ access_log off; client_body_temp_path {t.dir}; proxy_temp_path {t.dir}; fastcgi_temp_path {t.dir};
            uwsgi_temp_path {t.dir}; scgi_temp_path {t.dir};
            server {{ listen 127.0.0.1:{port}; root {place}; location = /status {{ stub_status; }} }} }}""")


def lighttpd_settings(t, port, place):
    return written(t, "lighttpd.conf", f"""
        server.modules = ("mod_status")
        server.document-root = "{place}"
        server.bind = "127.0.0.1"
        server.port = {port}
        status.status-url = "/status"
        mimetype.assign = (".txt" => "text/plain")\n""")


class Load(Traffic):
    """Runs clients and counts their answers; `makers` build one client each from (load, random)."""

    def __init__(self, t, program, *makers):
        super().__init__(self, (), None)
        self.program, self.resends, self.ended = program, 0, False
        self.clients = [make(self, random.Random(t.random.random())) for make in makers]

    def progress(self, client):
        with self.moved:
            client.steps += 1
            self.count += 1
            self.moved.notify_all()

    def failed(self, error):
        with self.moved:
            self.error = self.error or error
            self.moved.notify_all()

    def run(self):
        for client in self.clients:
            client.start()
        with self.moved:
            self.moved.wait_for(lambda: self.wanted is not None or self.error)
        self.ended = True
        for client in self.clients:
            client.join(1)
            client.interrupt()
            client.join(PATIENCE)

    def wait_for_each(self, timeout=PATIENCE + 5):
        """Every client gets another answer."""
        with self.moved:
            before = [client.steps for client in self.clients]
            self.moved.wait_for(lambda: self.error or all(
                client.steps > steps for client, steps in zip(self.clients, before)), timeout)
            stuck = [client.name for client, steps in zip(self.clients, before) if client.steps <= steps]
        if self.error:
            raise self.error
        check(not stuck, f"no answer for {', '.join(stuck)}: {self.program.tail()}")


def torture(t, program, kills, *makers):
    """Kills `program` again and again while clients made by `makers` talk to it: mostly when each client
    had an answer again, now and then in the middle of the restart."""
    load = Load(t, program, *makers)
    kills = 0 if program.bare else kills
    load.start()
    load.wait_for_each()
    for _ in range(kills):
        if t.random.random() < 0.25:
            time.sleep(t.random.uniform(0, 0.05))
        else:
            load.wait_for_each()
            time.sleep(t.random.uniform(0, 0.1))
        if load.error:
            raise load.error
        program.kill9()
        program.restart()
    for _ in range(20):
        load.wait_for_each()
    load.finish()
    if kills:
        program.check_messages(answered=True)
    else:
        breaks = sum(client.breaks for client in load.clients)
        check(not breaks, f"{breaks} connections broke, and nothing was killed")
    t.note(f"{kills} kills, {load.count} answers")


class Client(threading.Thread):
    """One connection to 127.0.0.1. A kind of client says what step() is, and what recover() looks at."""

    def __init__(self, load, rng, port, number=0):
        super().__init__(daemon=True, name=f"{type(self).__name__}{number}")
        self.load, self.random, self.port, self.number = load, rng, port, number
        self.steps, self.breaks, self.socket, self.stream = 0, 0, None, None

    def connect(self):
        self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_WITHIN)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.stream = self.socket.makefile("rb")

    def interrupt(self):
        """From another thread: a client that waits for what will not come any more ends."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except (AttributeError, OSError):
            pass

    def drop(self):
        if self.socket is not None:
            self.stream.close()
            self.socket.close()
        self.socket = None

    def recover(self):
        pass

    def line(self):
        line = self.stream.readline()
        if not line.endswith(b"\n"):
            raise EOFError
        return line.rstrip(b"\r\n").decode()

    def exact(self, count):
        data = self.stream.read(count)
        if len(data) != count:
            raise EOFError
        return data

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())

    def run(self):
        silent_since = time.monotonic()
        try:
            while not self.load.ended:
                try:
                    if self.socket is None:
                        self.connect()
                        self.recover()
                    self.step()
                    self.load.progress(self)
                    silent_since = time.monotonic()
                except socket.timeout:
                    raise Failure(f"{self.name}: no answer within {ANSWER_WITHIN:.0f} s") from None
                except (OSError, EOFError):
                    if self.load.ended:
                        break
                    self.breaks += self.socket is not None
                    self.drop()
                    check(time.monotonic() < silent_since + PATIENCE, f"{self.name}: refused for {PATIENCE:.0f} s")
                    time.sleep(0.003)
        except BaseException as error:
            self.load.failed(error)
        self.drop()


class CounterClient(Client):
    """`<key>\\n` is answered with how often that key was named: over a line protocol or HTTP.

    A request without an answer counts once, or never; with threads it may also count late, behind the next.
    """

    def __init__(self, load, rng, port, number=0, http=False):
        super().__init__(load, rng, port, number)
        self.http, self.value, self.unknown, self.history = http, 0, 0, []

    def ask(self):
        if not self.http:
            self.send(f"key{self.number}\n")
            return int(self.line())
        return int(http_get(self, f"/key{self.number}")[1])

    def step(self):
        self.unknown += 1
        value = self.ask()
        self.history = (self.history + [(value, self.breaks)])[-6:]
        check(self.value < value <= self.value + self.unknown, f"{self.name}: the count was {self.value}, "
              f"{self.unknown} were open, and it is {value}; (count, breaks): {self.history}")
        self.unknown -= value - self.value
        self.value = value


def http_get(client, path, headers=""):
    """One request on a connection that stays open: (status, body)."""
    client.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
    status = int(client.line().split()[1])
    length = None
    while header := client.line():
        name, _, value = header.partition(":")
        if name.lower() == "content-length":
            length = int(value)
    check(length is not None, f"{path}: no Content-Length")
    return status, client.exact(length).decode()


class FileClient(Client):
    """Gets files whose contents are known, whole and in parts, and a counter that may only rise."""

    def __init__(self, load, rng, port, number, files, counter):
        super().__init__(load, rng, port, number)
        self.files, self.counter, self.seen = files, counter, 0

    def step(self):
        name, text = self.random.choice(self.files)
        if self.random.random() < 0.5:
            first = self.random.randrange(len(text))
            last = self.random.randrange(first, len(text))
            answer = http_get(self, f"/{name}", f"Range: bytes={first}-{last}\r\n")
            check(answer == (206, text[first:last + 1]), f"bytes {first}-{last} of {name} are wrong")
        else:
            check(http_get(self, f"/{name}") == (200, text), f"{name} is wrong")
        status, text = http_get(self, self.counter[0])
        value = int(self.counter[1].search(text)[1])
        check(status == 200 and value >= self.seen, f"the counter was {self.seen} and is {value}")
        self.seen = value


class TicketClient(Client):
    """Gets numbers that nobody else was given, before or after a kill: one that left the server too early comes again."""

    def __init__(self, load, rng, port, number=0):
        super().__init__(load, rng, port, number)
        self.last = 0
        self.given = load.__dict__.setdefault("given", {})

    def step(self):
        count = self.random.choice((1, 1, 1, 3))
        self.send("next\n" * count)
        for _ in range(count):
            ticket = int(self.line())
            other = self.given.setdefault(ticket, self.name)
            check(other == self.name and ticket > self.last, f"{self.name}: {ticket} was given to {other}, and mine was {self.last}")
            self.last = ticket


class BeanClient(Client):
    """A tube of its own: what was put is reserved once until it is deleted, most urgent first."""

    def __init__(self, load, rng, port, number=0):
        super().__init__(load, rng, port, number)
        self.jobs, self.maybe, self.gone, self.serial, self.last_id = {}, {}, set(), 0, 0
        self.deleting = None

    def say(self, text):
        self.send(text + "\r\n")
        return self.line()

    def connect(self):
        super().connect()
        check(self.say(f"use t{self.number}") == f"USING t{self.number}", "use")
        check(self.say(f"watch t{self.number}") == "WATCHING 2", "watch")

    def step(self):
        (self.put if len(self.jobs) < 30 and self.random.random() < 0.6 else self.take)()

    def put(self):
        self.serial += 1
        body, urgency = f"job {self.number} {self.serial}", self.random.randrange(1000)
        self.maybe[body] = urgency
        answer = self.say(f"put {urgency} 0 60 {len(body)}\r\n{body}").split()
        check(answer[0] == "INSERTED" and int(answer[1]) > self.last_id, f"put: {answer} after {self.last_id}")
        self.last_id = int(answer[1])
        self.jobs[body] = self.maybe.pop(body)

    def take(self):
        answer = self.say("reserve-with-timeout 0").split()
        if answer[0] == "TIMED_OUT":
            lost = [body for body in self.jobs if body != self.deleting]
            check(not lost, f"{self.name}: {len(lost)} jobs are gone: {lost[:3]}")
            self.jobs, self.maybe = {}, {}
            return
        check(answer[0] == "RESERVED", f"reserve: {answer}")
        body = self.exact(int(answer[2]) + 2)[:-2].decode()
        check(body in self.jobs or body in self.maybe, f"{self.name}: {body} was never put, or was deleted")
        urgency = self.jobs[body] if body in self.jobs else self.maybe[body]
        known = [u for b, u in self.jobs.items() if b != self.deleting]
        check(not known or urgency <= min(known), f"{body} of {urgency} came before one of {min(known, default=0)}")
        self.deleting = body
        check(self.say(f"delete {answer[1]}") == "DELETED", "delete")
        self.deleting = None
        self.jobs.pop(body, None)
        self.maybe.pop(body, None)

    def recover(self):
        """A job that was being deleted is there or not; both are right, until it is seen."""
        if self.deleting:
            urgency = self.jobs.pop(self.deleting, None)
            if urgency is not None:
                self.maybe[self.deleting] = urgency
        self.deleting = None


class MemcacheClient(Client):
    """Sets, counters and compare-and-swap on keys of its own."""

    def __init__(self, load, rng, port, number=0):
        super().__init__(load, rng, port, number)
        self.values, self.maybe, self.cas = {}, {}, {}
        self.serial = 0

    def get(self, key):
        self.send(f"gets {key}\r\n")
        head = self.line().split()
        if head == ["END"]:
            return None, 0
        value = self.exact(int(head[3]) + 2)[:-2].decode()
        check(self.line() == "END", "gets has no END")
        return value, int(head[4])

    def look(self, key):
        value, unique = self.get(key)
        allowed = [self.values.get(key)] + ([self.maybe[key]] if key in self.maybe else [])
        check(value in allowed, f"{self.name}: {key} is {value}, and was told {allowed}")
        check(unique >= self.cas.get(key, 0), f"{self.name}: the version of {key} went back")
        self.cas[key] = unique
        self.maybe.pop(key, None)
        self.values[key] = value
        return unique

    def recover(self):
        if self.maybe:
            time.sleep(0.05)  # a worker may have had the request in hand
        for key in list(self.maybe):
            self.look(key)

    def change(self, key, value, command, answer):
        self.maybe[key] = value
        self.send(command)
        got = self.line()
        check(got == answer, f"{self.name}: {command.split()[0]} {key} answers {got}, not {answer}")
        self.values[key] = self.maybe.pop(key)

    def step(self):
        self.serial += 1
        key = f"k{self.number}:{self.random.randrange(6)}"
        if self.values.get(key) is None or self.random.random() < 0.3:
            value = str(self.serial * 1000)
            self.change(key, value, f"set {key} 0 0 {len(value)}\r\n{value}\r\n", "STORED")
        elif self.random.random() < 0.5:
            value = str(int(self.values[key]) + 7)
            self.change(key, value, f"incr {key} 7\r\n", value)
        elif self.random.random() < 0.5:
            unique = self.look(key)
            value = str(self.serial * 1000 + 1)
            self.change(key, value, f"cas {key} 0 0 {len(value)} {unique}\r\n{value}\r\n", "STORED")
        else:
            self.look(key)


class DnsClient(Client):
    """Asks for addresses it knows, over UDP, and for the server's own statistics."""

    def connect(self):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(("127.0.0.1", self.port))
        self.socket.settimeout(0.1)
        self.hits = getattr(self, "hits", 0)

    def drop(self):
        if self.socket is not None:
            self.socket.close()
        self.socket = None

    def ask(self, name, kind=1, of=1):
        """The data of the first answer, None when there is none."""
        self.asked = number = (getattr(self, "asked", 0) + 1) % (1 << 16)  # answers to what was asked twice may still be about
        question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
        question += struct.pack(">HH", kind, of)
        give_up = time.monotonic() + ANSWER_WITHIN
        while time.monotonic() < give_up:
            try:
                self.socket.send(struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0) + question)
                answer = self.socket.recv(2048)
            except (ConnectionRefusedError, socket.timeout):
                time.sleep(0.003)
                continue
            head = struct.unpack_from(">HHHHHH", answer)
            if head[0] == number:
                at = 12 + len(question) + 2 + 8
                length, = struct.unpack_from(">H", answer, at) if head[3] else (0,)
                return answer[at + 2:at + 2 + length] if head[3] else None
        raise Failure(f"{self.name}: no answer for {name}")

    def step(self):
        n = self.random.randrange(1, 100)
        check(self.ask(f"host{n}.test") == bytes([10, 0, 0, n]), f"the address of host{n} is wrong")
        hits = int(self.ask("hits.bind", 16, 3)[1:])
        check(hits >= self.hits, f"{self.hits} hits were told, and now {hits}")
        self.hits = hits


class DnsReloader(DnsClient):
    """Adds a host, asks for a new look at the file, and from the first answer on it must be known."""

    def __init__(self, load, rng, port, number, path):
        super().__init__(load, rng, port, number)
        self.path, self.added = path, 0

    def step(self):
        number = self.added + 1
        name = f"added{number}.test"
        with open(self.path, "a") as f:
            f.write(f"10.1.{number >> 8}.{number & 255} {name}\n")
        give_up = time.monotonic() + ANSWER_WITHIN
        while True:
            server = self.load.program.process
            if self.ask(name) == bytes([10, 1, number >> 8, number & 255]):
                break
            check(time.monotonic() < give_up, f"{name} is not known after a SIGHUP")
            if server is not None:
                server.send_signal(signal.SIGHUP)  # nothing happens if it was killed since it answered
            time.sleep(0.01)
        self.added = number
        known = self.random.randrange(1, number + 1)
        check(self.ask(f"added{known}.test"), f"added{known} was known and is gone")
