"""Clients of redis, each with a model of what it was told (see servers.py)."""
import time

from harness import Failure, check
from servers import Client


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
