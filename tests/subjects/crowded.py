"""crowded.py PORT [LIMIT]: opens descriptors until there is no room for more, then answers datagrams `<number> <command>`. With
LIMIT it makes that its limit before, the hard one too, and what it and its children think of that is part of each answer.

    check       looks whether each is still what it was: files at their offsets, pipes with their bytes
    more        closes one and opens another
    greet       sends a datagram to an address that it never spoke to"""
import os
import resource
import socket
import sys

service = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
service.bind(("127.0.0.1", int(sys.argv[1])))
name = os.path.join(os.getcwd(), "numbers")
with open(name, "w") as f:
    f.write("".join(f"{n:8}" for n in range(5000)))
held, pipes, told = {}, [], ""


def of_children():
    """The limits of three: by posix_spawn, by fork, and of one that lowers its own before it execs."""
    command = ["sh", "-c", "echo $(ulimit -Sn) $(ulimit -Hn) >child"]

    def forked(*limit):
        pid = os.fork()
        if pid == 0:
            for n in limit:
                resource.setrlimit(resource.RLIMIT_NOFILE, (n, n))
            os.execve("/bin/sh", command, {})
        return pid

    for start in (lambda: os.posix_spawn("/bin/sh", command, {}), forked,
                  lambda: forked(int(sys.argv[2]) - 10)):
        status = os.waitpid(start(), 0)[1]
        with open("child") as f:
            yield f"{status} {f.read().strip()}"


def to_raise():
    """Whether it may raise its hard limit again."""
    now = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (now[0], now[1] + 1))
    except ValueError:
        return "may not"
    resource.setrlimit(resource.RLIMIT_NOFILE, now)
    return "may"


if len(sys.argv) > 2:
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]),) * 2)
    children = ", ".join(of_children())
    who = os.fork()
    if who == 0:
        os.setgid(65534)
        os.setuid(65534)
        os._exit(to_raise() == "may")
    told = f" {children}, {to_raise()}, nobody {os.waitpid(who, 0)[1]}"
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
    return f"right {len(held)}{told}" + (f", {resource.getrlimit(resource.RLIMIT_NOFILE)} {to_raise()}" if told else "")


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
        elif command == "greet":
            service.sendto(b"hello", (f"127.{last // 65536}.{last // 256 % 256}.{last % 256}", 9))
        answer = what_is_wrong()
    service.sendto(f"{number} {answer}".encode(), client)
