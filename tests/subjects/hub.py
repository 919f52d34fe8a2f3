"""hub.py serve PORT | publish PORT COUNT | listen PORT NAME: publish and subscribe over TCP. The hub numbers what is published and
passes it to all who listen; a listener prints the first number that it saw, and at the end how many followed."""
import selectors
import socket
import sys
import time

role, port = sys.argv[1], int(sys.argv[2])


def serve():
    listener = socket.create_server(("127.0.0.1", port))
    watcher = selectors.DefaultSelector()
    watcher.register(listener, selectors.EVENT_READ)
    listening, rest, count = [], {}, 0
    while True:
        for key, _ in watcher.select():
            s = key.fileobj
            if s is listener:
                s, _ = listener.accept()
                watcher.register(s, selectors.EVENT_READ)
                rest[s] = b""
                continue
            piece = s.recv(10000)
            if not piece:
                watcher.unregister(s)
                if s in listening:
                    listening.remove(s)
                s.close()
                continue
            *lines, rest[s] = (rest[s] + piece).split(b"\n")
            for line in lines:
                if line == b"listen":
                    listening.append(s)
                    s.sendall(b"welcome\n")
                    continue
                count += 1
                for each in listening:
                    each.sendall(b"%d %s\n" % (count, line))
                s.sendall(b"%d\n" % count)


def publish(count):
    with socket.create_connection(("127.0.0.1", port)) as s:
        answers = s.makefile("rb")
        for n in range(1, count + 1):
            s.sendall(b"end\n" if n == count else b"message %d\n" % n)
            assert int(answers.readline()) == n
            if n == 1:
                print("begun", flush=True)
            time.sleep(0.001)
    print("published", flush=True)


def listen():
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.sendall(b"listen\n")
        lines = s.makefile("rb")
        assert lines.readline() == b"welcome\n"
        print("welcome", flush=True)
        first = last = None
        for line in lines:
            number, text = line.split(b" ", 1)
            assert last is None or int(number) == last + 1, f"{number} after {last}"
            last = int(number)
            first = first or last
            if text == b"end\n":
                break
            assert text == b"message %d\n" % last, text
        print(first, last, flush=True)


serve() if role == "serve" else publish(int(sys.argv[3])) if role == "publish" else listen()
