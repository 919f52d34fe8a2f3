"""A client of nats-server, with a model of the stream that it publishes to."""
import json

from harness import check
from servers import Client


class NatsClient(Client):
    """Publishes numbered messages to a stream of its own, which the server keeps in memory. What was acknowledged stays, once, in order.

    The server knows a message that comes twice by its id, and says so."""

    def __init__(self, load, rng, port, number=0):
        super().__init__(load, rng, port, number)
        self.requests, self.sent, self.kept, self.made = 0, 0, 0, False

    def connect(self):
        super().connect()
        check(self.line().startswith("INFO "), "it does not introduce itself")
        self.send('CONNECT {"verbose":false,"headers":true}\r\nSUB answers.%d.* 1\r\nPING\r\n' % self.number)
        while self.line() != "PONG":
            pass

    def request(self, subject, data, headers=""):
        """The answer to it, from JSON. One to an earlier request is no answer."""
        self.requests += 1
        inbox = f"answers.{self.number}.{self.requests}"
        if headers:
            headers = f"NATS/1.0\r\n{headers}\r\n\r\n"
            self.send(f"HPUB {subject} {inbox} {len(headers)} {len(headers) + len(data)}\r\n{headers}{data}\r\n")
        else:
            self.send(f"PUB {subject} {inbox} {len(data)}\r\n{data}\r\n")
        while True:
            words = self.line().split()
            check(words[0] in ("PING", "MSG"), f"{self.name}: {' '.join(words)}")
            if words[0] == "PING":
                self.send("PONG\r\n")
                continue
            answer = self.exact(int(words[-1]) + 2)
            if words[1] == inbox:
                return json.loads(answer)

    def recover(self):
        if not self.made:
            wanted = {"name": f"S{self.number}", "subjects": [f"s.{self.number}"], "storage": "memory",
                      "duplicate_window": 10 ** 12}
            answer = self.request(f"$JS.API.STREAM.CREATE.S{self.number}", json.dumps(wanted))
            check("error" not in answer, f"{self.name}: {answer}")
            self.made = True
        self.look()

    def look(self):
        state = self.request(f"$JS.API.STREAM.INFO.S{self.number}", "")["state"]
        check(state["messages"] in (self.kept, self.sent) and state["last_seq"] == state["messages"],
              f"{self.name}: {state} after {self.kept} acknowledged messages, {self.sent} sent")

    def step(self):
        if self.steps % 20 == 19:
            self.look()
        if self.sent == self.kept:
            self.sent += 1
        answer = self.request(f"s.{self.number}", f"message {self.sent}", f"Nats-Msg-Id: {self.sent}")
        check(answer.get("seq") == self.sent, f"{self.name}: {answer} to message {self.sent}")
        self.kept = self.sent
