"""Was there one order of all operations, each at some instant between its call and its answer, in which every answer is right?

    history = [Operation("client", "key", "inc", (), result=3, called=0.1, returned=0.2), ...]
    wrong = check_history(history)            # None, or what cannot be

Keys are independent registers, so each is checked alone (linearisability is local: Herlihy and Wing, 1990). An operation
whose answer never came (`returned` is None) may have happened at any later time, or never.

The search is Wing and Gong's (1993) with Lowe's memory of (set of operations done, state) that led nowhere (2017).
"""
from dataclasses import dataclass
from typing import Any, Optional

PENDING = None


@dataclass
class Operation:
    client: str
    key: str
    verb: str  # get | set VALUE | inc | cas OLD NEW
    words: tuple
    result: Any
    called: float
    returned: Optional[float] = PENDING

    def __str__(self):
        until = "..." if self.returned is None else f"{self.returned:.6f}"
        answer = "no answer" if self.returned is None else repr(self.result)
        return f"[{self.called:.6f} {until}] {self.client}: {self.verb} {' '.join((self.key,) + tuple(map(str, self.words)))} -> {answer}"


def step(state, op):
    """(the right answer, the state after it). A register that was never set is None; inc takes that for 0."""
    if op.verb == "get":
        return state, state
    if op.verb == "set":
        return "ok", op.words[0]
    if op.verb == "inc":
        value = str(int(state or 0) + 1)
        return int(value), value
    if op.verb == "cas":
        old, new = op.words
        return (1, new) if state == old else (0, state)
    raise ValueError(op.verb)


class Event:
    """A call or an answer, in a list ordered by time."""

    __slots__ = ("op", "index", "answer", "before", "after")

    def __init__(self, op, index, answer):
        self.op, self.index, self.answer = op, index, answer  # `answer`: of a call, the event of its answer or None
        self.before = self.after = None

    def unlink(self):
        self.before.after = self.after
        if self.after:
            self.after.before = self.before

    def relink(self):
        self.before.after = self
        if self.after:
            self.after.before = self


def listed(history):
    """The head of the list of events. At equal times calls come first: such operations overlap."""
    head, moments = Event(None, -1, None), []
    for index, op in enumerate(history):
        answer = None if op.returned is None else Event(op, index, None)
        moments.append((op.called, 0, index, Event(op, index, answer)))
        if answer:
            moments.append((op.returned, 1, index, answer))
    last = head
    for _, is_answer, _, event in sorted(moments, key=lambda m: m[:3]):
        if is_answer:
            event.index = -1  # marks an answer
        last.after, event.before = event, last
        last = event
    return head


def check_key(history, start=None):
    """None, or (the operations of the best try in order, the operation that fits nowhere behind them)."""
    head, state, done, seen, tried = listed(history), start, 0, set(), []
    left = sum(op.returned is not None for op in history)
    best, stuck = [], None
    event = head.after
    while left:
        if event.index >= 0:  # a call: may it be the next one?
            right, after = step(state, event.op)
            mark = (done | 1 << event.index, after)
            if (event.answer is None or right == event.op.result) and mark not in seen:
                seen.add(mark)
                tried.append((event, state))
                done, state = mark
                event.unlink()
                if event.answer:
                    event.answer.unlink()
                    left -= 1
                event = head.after
            else:
                event = event.after
            continue
        # An answer whose operation did not happen yet: the last choice was wrong.
        if len(tried) >= len(best):
            best, stuck = [e.op for e, _ in tried], event.op
        if not tried:
            return best, stuck
        event, state = tried.pop()
        done &= ~(1 << event.index)
        if event.answer:
            event.answer.relink()
            left += 1
        event.relink()
        event = event.after
    return None


def check_history(history):
    keys = {}
    for op in history:
        keys.setdefault(op.key, []).append(op)
    for key, own in sorted(keys.items()):
        wrong = check_key(own)
        if wrong:
            best, stuck = wrong
            return (f"{key}: no order of its {len(own)} operations is right. After {len(best)} of them, of which the last are" +
                    "".join(f"\n    {op}" for op in best[-6:]) + f"\n  this one fits nowhere:\n    {stuck}")
    return None
