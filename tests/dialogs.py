"""Clients of one program: numbered requests, asked until they are answered, by datagrams, a connection, or pipes."""
import os
import re
import select
import socket
import threading
import time

from program import *


class Dialog:
    """A client of one program: asks a numbered request until the answer with that number comes."""

    retry = 0.25  # seconds after which a datagram is taken for lost

    def __init__(self, program):
        self.program = program
        self.seq = 0
        self.answered = 0  # highest number that was answered
        self.answers = {}  # number -> answer
        self.sent_kills = {}  # number -> kills of the program when it was first sent
        self.resends = 0
        self.stopping = False

    def ask(self, command):
        """Sends `<number> <command>`; returns the answer without its number."""
        self.seq += 1
        seq = self.seq
        self.sent_kills[seq] = self.program.kills
        asked_start, deadline = -1, time.monotonic() + PATIENCE
        starts = self.program.starts
        while True:
            if asked_start < 0 or self.may_resend(asked_start):
                self.resends += asked_start >= 0
                asked_start = self.program.starts
                self.send(seq, f"{seq} {command}")
            self.receive(self.retry)
            if seq in self.answers:
                return self.answers[seq]
            if self.stopping:
                raise Failure("stopped while an answer was due")
            if self.program.starts != starts:
                starts = self.program.starts
                deadline = time.monotonic() + PATIENCE
            process = self.program.process
            if process is not None and process.poll() is not None:  # by itself, unless a kill is on its way
                deadline = min(deadline, time.monotonic() + 2)
            if time.monotonic() > deadline:
                alive = process is not None and process.poll() is None
                raise Failure(f"no answer to '{seq} {command}', the program "
                              f"{'runs' if alive else 'is dead'}: {self.program.tail()}")

    def may_resend(self, asked_start):
        return True

    def judge(self, seq, answer):
        """Every answer that becomes visible comes through here."""
        known = self.answers.get(seq)
        if known is not None:
            check(known == answer, f"answer {seq} was '{known}' and is now '{answer}'")
            check(self.program.kills > self.sent_kills[seq] or self.resends,
                  f"answer {seq} came twice and nothing was killed")
        check(seq in self.sent_kills, f"an answer to {seq}, which was never asked: '{answer}'")
        check(seq >= self.answered, f"answer {seq} came again after answer {self.answered}")
        self.answers[seq] = answer
        self.answered = max(self.answered, seq)

    def judge_line(self, line):
        number, _, answer = line.partition(" ")
        check(number.isdigit(), f"not an answer: '{line}'")
        self.judge(int(number), answer)

    def close(self):
        pass


class UdpDialog(Dialog):
    """Requests and answers are datagrams."""

    def __init__(self, program, port):
        super().__init__(program)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(("127.0.0.1", port))

    def send(self, seq, text):
        try:
            self.socket.send(text.encode())
        except ConnectionRefusedError:
            time.sleep(0.002)

    def receive(self, seconds):
        self.socket.settimeout(seconds)
        try:
            self.judge_line(self.socket.recv(65536).decode())
        except ConnectionRefusedError:
            time.sleep(0.002)
        except socket.timeout:
            pass

    def close(self):
        self.socket.close()


class TcpDialog(Dialog):
    """Requests and answers are lines; a connection that breaks is made anew."""

    def __init__(self, program, port):
        super().__init__(program)
        self.port, self.socket, self.buffer = port, None, b""
        self.connects = 0

    def connect(self):
        if self.socket is None:
            try:
                self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=2)
                self.connects += 1
                return True
            except OSError:
                time.sleep(0.005)
        return False

    def drop(self):
        if self.socket is not None:
            self.socket.close()
        self.socket, self.buffer = None, b""

    def send(self, seq, text):
        self.text = text
        self.connect()
        try:
            if self.socket is not None:
                self.socket.sendall(text.encode() + b"\n")
        except OSError:
            self.drop()

    def may_resend(self, asked_start):
        return self.socket is None

    def receive(self, seconds):
        if self.socket is None:
            return
        self.socket.settimeout(seconds)
        try:
            data = self.socket.recv(65536)
        except socket.timeout:
            return
        except OSError:
            data = b""
        if not data:
            return self.drop()
        self.buffer += data
        while b"\n" in self.buffer:
            line, _, self.buffer = self.buffer.partition(b"\n")
            self.judge_line(line.decode())

    close = drop


class PipeDialog(Dialog):
    """Commands are lines on the program's stdin, answers are `<number answer>` anywhere on its stdout.

    Both pipes stay open over restarts. A command that a killed program had read may be lost with it
    and is then sent again; an answer may be repeated after a kill, in the same words.
    """

    TOKEN = re.compile(r"<(\d+) ([^<>]*)>")

    def __init__(self, program, translate):
        """`translate(seq, command)` gives the line to send."""
        super().__init__(program)
        self.translate = translate
        self.to_program, self.from_program, self.open = None, None, set()
        self.buffer = ""
        self.resend_at = 0.0
        self.raw = []  # everything that was ever visible

    @classmethod
    def program(cls, t, argv, translate, **kw):
        """Starts `argv` between two pipes whose four ends the harness holds; returns the dialog with it."""
        stdin, writer = os.pipe()
        reader, stdout = os.pipe()
        dialog = cls(t.program(argv, start=False, stdin=stdin, stdout=stdout, **kw), translate)
        dialog.to_program, dialog.from_program, dialog.open = writer, reader, {stdin, writer, reader, stdout}
        t.at_end(dialog.close)
        dialog.program.start()
        return dialog

    @classmethod
    def tokens(cls, text):
        """The answers in a piece of output: (number, words), a broken one left out."""
        return [(int(number), words) for number, words in cls.TOKEN.findall(text)]

    def say(self, text):
        """Sends a line that has no answer."""
        os.write(self.to_program, text.encode() + b"\n")

    def send(self, seq, text):
        self.resend_at = 0.0
        self.say(self.translate(seq, text.partition(" ")[2]))

    def may_resend(self, asked_start):
        """Only input that a killed incarnation may have taken with it; its answer had a second to come."""
        if self.program.starts == asked_start:
            return False
        self.resend_at = self.resend_at or time.monotonic() + 1.0
        return time.monotonic() > self.resend_at

    def receive(self, seconds):
        if not select.select([self.from_program], [], [], min(seconds, 0.05))[0]:
            return
        text = os.read(self.from_program, 65536).decode(errors="replace")
        self.raw.append(text)
        self.buffer += text
        while match := self.TOKEN.search(self.buffer):
            self.judge(int(match[1]), match[2])
            self.buffer = self.buffer[match.end():]

    def shut(self, fd):
        self.open.discard(fd)
        os.close(fd)

    def farewell(self):
        """End of input: waits until the program has ended; returns its status and its last words."""
        self.shut(self.to_program)
        status = self.program.wait_gone()
        self.shut(self.program.stdout)
        rest = []
        while text := os.read(self.from_program, 65536):
            rest.append(text.decode(errors="replace"))
        return status, self.buffer + "".join(rest)

    def close(self):
        for fd in list(self.open):
            self.shut(fd)


class Traffic(threading.Thread):
    """Asks one command after the other until it is told to stop; compares answers with the model."""

    def __init__(self, dialog, commands, model):
        """`commands`: an iterator of texts. `model(command)`: the right answer, called once for each."""
        super().__init__(daemon=True)
        self.dialog, self.commands, self.model = dialog, commands, model
        self.count, self.wanted, self.error = 0, None, None
        self.moved = threading.Condition()

    def run(self):
        try:
            for command in self.commands:
                if self.wanted is not None and self.count >= self.wanted:
                    break
                right = self.model(command)
                answer = self.dialog.ask(command)
                check(right is None or answer == right,
                      f"'{self.dialog.seq} {command}': the answer is '{answer}', not '{right}'")
                with self.moved:
                    self.count += 1
                    self.moved.notify_all()
        except BaseException as error:
            self.error = error
        with self.moved:
            self.wanted = self.count
            self.moved.notify_all()

    def wait_for(self, more, timeout=PATIENCE + 5):
        """Waits until `more` further answers have come, or the traffic has ended."""
        with self.moved:
            goal = self.count + more
            self.moved.wait_for(lambda: self.count >= goal or not self.is_alive() or self.error
                                or (self.wanted is not None and self.count >= self.wanted), timeout)
        if self.error:
            raise self.error

    def finish(self, timeout=PATIENCE + 5):
        """Stops after the answer that is due; raises what went wrong."""
        with self.moved:
            if self.wanted is None:
                self.wanted = 0
        self.join(timeout)
        if self.is_alive():
            self.dialog.stopping = True
            self.join(2)
            raise Failure(f"the traffic did not end: {self.dialog.program.tail()}")
        if self.error:
            raise self.error
