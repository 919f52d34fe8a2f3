#!/usr/bin/python3
"""Several clients at once, a server that is killed: what they saw is linearisable. And the checker that says so."""
import itertools
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *
from linear import Operation, check_history, check_key, step
from servers import need_server

CLIENTS = 5
KEYS = 12
KILLS_OF_A_KEY = 20  # what each kill leaves without an answer doubles what the checker may have to try: then come other keys


# --- the checker ----------------------------------------------------------------------------------

def history(text):
    """`CLIENT CALLED-RETURNED VERB KEY [WORD...] = RESULT`, a line each; `CALLED-` had no answer."""
    ops = []
    for line in filter(None, map(str.strip, text.split(";"))):
        what, _, result = line.partition("=")
        client, times, verb, key, *words = what.split()
        called, _, returned = times.partition("-")
        result = result.strip()
        result = None if result == "none" else int(result) if verb in ("inc", "cas") and result else result
        ops.append(Operation(client, key, verb, tuple(words), result, float(called), float(returned) if returned else None))
    return ops


RIGHT = {
    "one after the other": "a 0-1 set x 5 = ok; a 2-3 get x = 5; a 4-5 inc x = 6; a 6-7 cas x 6 9 = 1; a 8-9 get x = 9",
    "either order of what overlaps": "a 0-5 set x 1 = ok; b 1-4 set x 2 = ok; c 6-7 get x = 1",
    "the other one": "a 0-5 set x 1 = ok; b 1-4 set x 2 = ok; c 6-7 get x = 2",
    "a read during a write sees it, or not": "a 0-9 set x 1 = ok; b 1-2 get x = none; b 3-4 get x = 1",
    "no answer, and it happened": "a 0- inc x = ; b 2-3 inc x = 2",
    "no answer, and it did not": "a 0- inc x = ; b 2-3 inc x = 1",
    "no answer, and it happened late": "a 0- set x 7 = ; b 1-2 get x = none; b 3-4 get x = 7",
    "keys are independent": "a 0-1 set x 1 = ok; b 0-1 set y 2 = ok; a 2-3 get y = 2; b 2-3 get x = 1",
}
WRONG = {
    "an answered write is lost": "a 0-1 set x 5 = ok; a 2-3 get x = none",
    "a count is lost": "a 0-1 inc x = 1; b 2-3 inc x = 1",
    "a count is doubled": "a 0-1 inc x = 1; b 2-3 inc x = 3",
    "a stale read": "a 0-1 set x 1 = ok; a 2-3 set x 2 = ok; b 4-5 get x = 1",
    "a value that nobody wrote": "a 0-1 set x 1 = ok; b 2-3 get x = 3",
    "two take one": "a 0-1 set x 1 = ok; b 2-5 cas x 1 2 = 1; c 2-5 cas x 1 3 = 1",
    "back again": "a 0-9 set x 1 = ok; b 1-2 get x = 1; b 3-4 get x = none",
    "two readers, two orders": "a 0-9 set x 1 = ok; b 0-9 set x 2 = ok; c 1-2 get x = 1; c 3-4 get x = 2; d 5-6 get x = 1",
    "happened twice": "a 0- inc x = ; b 2-3 inc x = 2; b 4-5 inc x = 4",
    "seen before it was asked": "b 0-1 get x = 7; a 2-3 set x 7 = ok",
    "unanswered, but taken back": "a 0- set x 7 = ; b 1-2 get x = 7; b 3-4 get x = none",
}


@case
def checker_knows_right_from_wrong(t):
    for name, text in RIGHT.items():
        wrong = check_history(history(text))
        check(not wrong, f"'{name}' is taken for wrong: {wrong}")
    for name, text in WRONG.items():
        check(check_history(history(text)), f"'{name}' is taken for right")


def by_trying_all(ops):
    """The definition itself: some order of all that were answered, and of some that were not, is right."""
    pending = [op for op in ops if op.returned is None]
    for n in range(len(pending) + 1):
        for happened in itertools.combinations(pending, n):
            chosen = [op for op in ops if op.returned is not None] + list(happened)
            for order in itertools.permutations(chosen):
                if any(b.returned is not None and b.returned < a.called for a, b in itertools.combinations(order, 2)):
                    continue
                state = None
                for op in order:
                    right, state = step(state, op)
                    if op.returned is not None and right != op.result:
                        break
                else:
                    return True
    return False


@case(limit=300)
def checker_against_all_orders(t):
    """Random short histories, likely and unlikely ones: the verdict is that of the definition."""
    verdicts = {True: 0, False: 0}
    for _ in range(20000 if LONG else 2500):
        ops, state = [], None
        for n in range(t.random.randrange(2, 7)):
            verb = t.random.choice(("get", "set", "inc", "cas"))
            words = {"set": (str(t.random.randrange(3)),), "cas": (str(t.random.randrange(3)), str(t.random.randrange(3)))}.get(verb, ())
            called = t.random.randrange(10)
            op = Operation(f"c{n}", "x", verb, words, None, called, called + t.random.randrange(1, 8))
            op.result, state = step(state, op)  # right, if each happened in the order of this list
            if t.random.random() < 0.1:
                op.result = t.random.choice(({"get": (None, "0", "1"), "set": ("ok",), "inc": (1, 2), "cas": (0, 1)})[verb])
            if t.random.random() < 0.15:
                op.returned = None
            ops.append(op)
        right = by_trying_all(ops)
        check((check_key(ops) is None) == right, f"is {'right' if right else 'wrong'}: " + "; ".join(map(str, ops)))
        verdicts[right] += 1
    check(min(verdicts.values()) > 200, f"one-sided: {verdicts}")
    t.note(f"{verdicts[True]} right and {verdicts[False]} wrong histories")


# --- servers --------------------------------------------------------------------------------------

class Lines:
    """The language of register_server.py."""

    @staticmethod
    def request(verb, key, words):
        return " ".join((verb, key) + words).encode() + b"\n"

    @staticmethod
    def result(verb, stream):
        text = stream.readline().decode()
        if not text.endswith("\n"):
            raise ConnectionError("closed")
        text = text.strip()
        return int(text) if verb in ("inc", "cas") else None if text == "none" else text


class Resp:
    """Redis's."""

    CAS = "if redis.call('get',KEYS[1])==ARGV[1] then redis.call('set',KEYS[1],ARGV[2]) return 1 end return 0"

    @classmethod
    def request(cls, verb, key, words):
        parts = {"get": ("GET", key), "set": ("SET", key), "inc": ("INCR", key), "cas": ("EVAL", cls.CAS, "1", key)}[verb] + words
        return b"".join([b"*%d\r\n" % len(parts)] + [b"$%d\r\n%s\r\n" % (len(p), p.encode()) for p in parts])

    @staticmethod
    def result(verb, stream):
        line = stream.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("closed")
        if line[:1] == b"$":
            size = int(line[1:])
            if size < 0:
                return None
            body = stream.read(size + 2)
            if len(body) != size + 2:
                raise ConnectionError("closed")
            return body[:-2].decode()
        check(line[:1] in b"+:", f"redis says {line}")
        return int(line[1:]) if line[:1] == b":" else line[1:].strip().decode().lower()


class Observer(threading.Thread):
    """One client: asks, notes when and what; a connection that breaks leaves an operation without an answer."""

    def __init__(self, name, program, port, language, rng):
        super().__init__(daemon=True)
        self.name, self.program, self.port, self.language, self.random = name, program, port, language, rng
        self.history, self.last, self.over, self.error, self.answers = [], {}, False, None, 0

    def choose(self):
        key = f"k{self.program.kills // KILLS_OF_A_KEY}.{self.random.randrange(KEYS)}"
        verb = self.random.choice(("get", "get", "set", "inc", "inc", "cas"))
        number = str(self.random.randrange(1 << 30))
        words = {"set": (number,), "cas": (self.last.get(key) or "0", number)}.get(verb, ())
        return Operation(self.name, key, verb, words, None, 0)

    def exchange(self, connection, stream):
        op = self.choose()
        self.history.append(op)
        op.called = time.monotonic()
        connection.sendall(self.language.request(op.verb, op.key, op.words))
        op.result = self.language.result(op.verb, stream)
        op.returned = time.monotonic()
        self.answers += 1
        if op.verb in ("get", "inc"):
            self.last[op.key] = None if op.result is None else str(op.result)

    def run(self):
        while not self.over:
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as connection:
                    stream = connection.makefile("rb")
                    while not self.over:
                        self.exchange(connection, stream)
                        if self.random.random() < 0.3:
                            time.sleep(self.random.uniform(0, 0.01))
            except TimeoutError:
                self.error = Failure(f"{self.name}: no answer within {PATIENCE} s")
                return
            except OSError:
                time.sleep(0.003)
            except BaseException as error:
                self.error = error
                return


def observed(t, program, port, language):
    """Kills it while the observers ask; then their history is judged as one."""
    observers = [Observer(f"client{n}", program, port, language, random.Random(t.random.random())) for n in range(CLIENTS)]
    for o in observers:
        o.start()

    def answers_after(more):
        before, deadline = [o.answers for o in observers], time.monotonic() + PATIENCE
        while any(o.answers < b + more for o, b in zip(observers, before)):
            for o in observers:
                if o.error:
                    raise o.error
            check(time.monotonic() < deadline, f"no answers: {program.tail()}")
            time.sleep(0.001)
    kills = 0 if program.bare else KILLS
    answers_after(3)
    for _ in range(kills):
        if t.random.random() < 0.7:
            answers_after(1)
        time.sleep(t.random.uniform(0, 0.05))
        program.kill9()
        program.restart()
    answers_after(10)
    for o in observers:
        o.over = True
    for o in observers:
        o.join(PATIENCE)
    if kills:
        program.check_messages(answered=True)
    ops = [op for o in observers for op in o.history]
    wrong = check_history(ops)
    check(not wrong, wrong)
    broken = break_one(t, ops)
    check(check_history(broken), "a history that was made wrong is taken for right")
    t.note(f"{kills} kills, {len(ops)} operations, {sum(op.returned is None for op in ops)} without an answer")


def break_one(t, ops):
    """The same history with one count taken back: the last inc of a key answers what the one before it had."""
    for key in sorted({op.key for op in ops}):
        sums = [op for op in ops if op.key == key and op.verb == "inc" and op.returned is not None]
        sums.sort(key=lambda op: op.called)
        if len(sums) > 1 and sums[-1].called > sums[-2].returned and sums[-1].result != sums[-2].result:
            last = Operation(**{**vars(sums[-1]), "result": sums[-2].result})
            return [last if op is sums[-1] else op for op in ops]
    raise Failure("no key was counted twice: too short a history")


@case(limit=300)
def threads_in_python(t):
    port = free_port()
    observed(t, t.program([PYTHON, subject("register_server.py"), str(port)]), port, Lines)


@case(limit=300)
def redis(t):
    port = free_port()
    program = t.program([need_server("redis-server"), "--port", str(port), "--save", "", "--appendonly", "no"])
    observed(t, program, port, Resp)


main()
