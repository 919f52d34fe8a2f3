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


class RespClient(Client):
    """Speaks redis's protocol."""

    def reply(self):
        line = self.line()
        kind, rest = line[0], line[1:]
        if kind == "+":
            return rest
        if kind == "-":
            raise Failure(f"{self.name}: redis says {rest}")
        if kind == ":":
            return int(rest)
        count = int(rest)
        if count < 0:
            return None
        if kind == "$":
            return self.exact(count + 2)[:-2].decode()
        return [self.reply() for _ in range(count)]

    @staticmethod
    def packed(words):
        return f"*{len(words)}\r\n" + "".join(f"${len(str(w))}\r\n{w}\r\n" for w in words)

    def call(self, *words):
        self.send(self.packed(words))
        return self.reply()

    def pipeline(self, *commands):
        self.send("".join(self.packed(words) for words in commands))
        return [self.reply() for _ in commands]


def pairs(flat):
    return dict(zip(flat[::2], flat[1::2]))


class RedisKeys(RespClient):
    """Strings, lists, hashes, sets, sorted sets, transactions and scripts on keys of its own."""

    SCRIPT = ("redis.call('RPUSH', KEYS[1], ARGV[1]); redis.call('HINCRBY', KEYS[2], 'lua', 1); "
              "return {redis.call('LLEN', KEYS[1]), ARGV[1] .. '!'}")

    def __init__(self, load, rng, port, number=0):
        super().__init__(load, rng, port, number)
        self.state = {"n": 0, "s": "", "l": [], "h": {}, "u": set(), "z": {}}
        self.after = None
        self.serial = 0

    def key(self, name):
        return f"c{self.number}:{name}"

    def observe(self):
        k = self.key
        n, s, l, h, u, z = self.pipeline(["GET", k("n")], ["GET", k("s")], ["LRANGE", k("l"), 0, -1],
                                         ["HGETALL", k("h")], ["SMEMBERS", k("u")],
                                         ["ZRANGE", k("z"), 0, -1, "WITHSCORES"])
        return {"n": int(n or 0), "s": s or "", "l": l, "h": {f: int(v) for f, v in pairs(h).items()}, "u": set(u),
                "z": {m: int(v) for m, v in pairs(z).items()}}

    def recover(self):
        seen = self.observe()
        allowed = [self.state] + ([self.after] if self.after else [])
        check(seen in allowed, f"{self.name}: redis holds {seen}, and was told {allowed}")
        self.state, self.after = seen, None

    def change(self, **parts):
        self.after = {**self.state, **parts}

    def step(self):
        self.serial += 1
        what = self.random.choice((self.number_op, self.string_op, self.list_op, self.hash_op, self.set_op, self.multi,
                                   self.script, self.bulk))
        expected, got = what(self.state, self.key, f"v{self.serial}")
        check(got == expected, f"{self.name}: {what.__name__} answers {got}, not {expected}")
        self.state, self.after = self.after, None
        if self.serial % 50 == 0:
            self.recover()

    def number_op(self, s, k, v):
        by = self.random.randrange(1, 9)
        self.change(n=s["n"] + by)
        return s["n"] + by, self.call("INCRBY", k("n"), by)

    def string_op(self, s, k, v):
        if len(s["s"]) > 200:
            self.change(s=v)
            return s["s"], self.call("GETSET", k("s"), v)
        self.change(s=s["s"] + v)
        return len(s["s"] + v), self.call("APPEND", k("s"), v)

    def list_op(self, s, k, v):
        if len(s["l"]) > 20 or (s["l"] and self.random.random() < 0.3):
            self.change(l=s["l"][1:])
            return s["l"][0], self.call("LPOP", k("l"))
        self.change(l=s["l"] + [v])
        return len(s["l"]) + 1, self.call("RPUSH", k("l"), v)

    def hash_op(self, s, k, v):
        field = self.random.choice("abcdef")
        self.change(h={**s["h"], field: s["h"].get(field, 0) + 1})
        return self.after["h"][field], self.call("HINCRBY", k("h"), field, 1)

    def set_op(self, s, k, v):
        member = self.random.choice("pqrstuv")
        self.change(u=s["u"] ^ {member}, z={**s["z"], member: s["z"].get(member, 0) + 2})
        verb = "SREM" if member in s["u"] else "SADD"
        self.change(u=s["u"] ^ {member})
        got = self.call(verb, k("u"), member)
        self.state, self.after = self.after, None
        self.change(z={**s["z"], member: s["z"].get(member, 0) + 2})
        return [1, str(self.after["z"][member])], [got, self.call("ZINCRBY", k("z"), 2, member)]

    def multi(self, s, k, v):
        self.change(n=s["n"] + 1, l=s["l"] + [v], s=v)
        got = self.pipeline(["MULTI"], ["INCR", k("n")], ["RPUSH", k("l"), v], ["SET", k("s"), v], ["EXEC"])
        return ["OK", "QUEUED", "QUEUED", "QUEUED", [s["n"] + 1, len(s["l"]) + 1, "OK"]], got

    def script(self, s, k, v):
        self.change(l=s["l"] + [v], h={**s["h"], "lua": s["h"].get("lua", 0) + 1})
        return [len(s["l"]) + 1, v + "!"], self.call("EVAL", self.SCRIPT, 2, k("l"), k("h"), v)

    def bulk(self, s, k, v):
        """A big value: allocation, and an answer that fills the socket's buffer."""
        text = v * self.random.randrange(1, 4000)
        self.change()
        got = self.pipeline(["SET", k("big"), text], ["GET", k("big")], ["DEL", k("big")])
        return ["OK", text, 1], got


class RedisExpiry(RespClient):
    """Keys that go, never early, never late."""

    LIFE = 0.15

    def step(self):
        began = time.time()
        self.call("SET", "fleeting", "here", "PX", int(self.LIFE * 1000))
        set_at = time.time()
        while True:
            value = self.call("GET", "fleeting")
            now = time.time()
            if value is None:
                check(now > began + self.LIFE - 0.005, f"a key went {began + self.LIFE - now:.3f} s early")
                return
            check(value == "here", f"the key is {value}")
            left = self.call("PTTL", "fleeting")
            check(left <= self.LIFE * 1000, f"a key has {left} ms to live")
            check(time.time() < set_at + self.LIFE + 5, "a key did not go")
            time.sleep(0.02)


class RedisSubscriber(RespClient):
    """Hears numbers in rising order, without a gap while its connection lasts."""

    def connect(self):
        super().connect()
        self.heard = None
        check(self.call("SUBSCRIBE", "news") == ["subscribe", "news", 1], "SUBSCRIBE")

    def step(self):
        kind, channel, number = self.reply()
        check((kind, channel) == ("message", "news"), "not a message")
        number = int(number)
        check(self.heard is None or number == self.heard + 1, f"message {number} came after {self.heard}")
        self.heard = number


class RedisPublisher(RespClient):
    """Takes its numbers from redis itself, in one transaction with the message."""

    SCRIPT = "local n = redis.call('INCR', 'news:n'); redis.call('PUBLISH', 'news', n); return n"

    def __init__(self, *a):
        super().__init__(*a)
        self.value, self.unknown = 0, 0

    def step(self):
        self.unknown += 1
        number = self.call("EVAL", self.SCRIPT, 0)
        check(self.value < number <= self.value + self.unknown, f"message {number} follows {self.value}")
        self.value, self.unknown = number, 0
        time.sleep(0.002)


class RedisPusher(RespClient):
    """Pushes rising numbers for somebody who waits for them."""

    def __init__(self, *a):
        super().__init__(*a)
        self.next = 0

    def step(self):
        self.next += 1
        self.call("LPUSH", "queue", self.next)
        time.sleep(0.001)


class RedisPopper(RespClient):
    """Waits for numbers: each comes once, in order; one is missed at most for each break."""

    def __init__(self, *a):
        super().__init__(*a)
        self.last, self.missed = 0, 0

    def step(self):
        item = self.call("BRPOP", "queue", self.random.choice((0.05, 1)))
        if item is None:
            return
        number = int(item[1])
        check(number > self.last, f"{number} was popped after {self.last}")
        self.missed += number - self.last - 1
        pusher = next(c for c in self.load.clients if isinstance(c, RedisPusher))
        check(self.missed <= self.breaks + pusher.breaks, f"{self.missed} numbers are missing up to {number}")
        self.last = number


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
