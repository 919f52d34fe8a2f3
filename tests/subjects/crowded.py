"""crowded.py PORT: opens descriptors until there is no room for more, then answers datagrams `<number> <command>`.

    check       looks whether each is still what it was: files at their offsets, pipes with their bytes
    more        closes one and opens another"""
import os
import socket
import sys

service = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
service.bind(("127.0.0.1", int(sys.argv[1])))
name = os.path.join(os.getcwd(), "numbers")
with open(name, "w") as f:
    f.write("".join(f"{n:8}" for n in range(5000)))
held, pipes = {}, []
try:
    for n in range(30):
        pipes.append(os.pipe())
        os.write(pipes[-1][1], b"%d" % n)
    while True:
        fd = os.open(name, os.O_RDONLY)
        os.lseek(fd, 8 * fd, os.SEEK_SET)
        held[fd] = fd
except OSError as error:
    assert error.errno == 24, error


def what_is_wrong():
    for fd, n in held.items():
        text = os.pread(fd, 8, os.lseek(fd, 0, os.SEEK_CUR))
        if int(text) != n:
            return f"{fd} stands at {text}"
    for n, (reader, writer) in enumerate(pipes):
        text = os.read(reader, 10)
        if text != b"%d" % n:
            return f"pipe {n} has {text}"
        os.write(writer, text)
    return f"right {len(held)}"


answers, last, answer = 0, 0, ""
while True:
    text, client = service.recvfrom(1000)
    number, command = text.decode().split(" ", 1)
    if int(number) > last:
        last = int(number)
        if command == "more":
            fd, _ = held.popitem()
            os.close(fd)
            fd = os.open(name, os.O_RDONLY)
            os.lseek(fd, 8 * (fd + last), os.SEEK_SET)
            held[fd] = fd + last
        answer = what_is_wrong()
    service.sendto(f"{number} {answer}".encode(), client)
