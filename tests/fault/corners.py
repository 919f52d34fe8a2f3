"""Workloads of test_errors.py that go where no others do."""
import os
import socket
import subprocess

import companions
import mortal  # knows where the next ones are
import line_server
import timens
from harness import PYTHON, Skip, free_port, subject
from mortal import ask, udp_dialog


def before_restart(p, change):
    """Calls change() between the first start and the second one."""
    start = p.start

    def start_again():
        if p.starts == 1:
            change()
        return start()
    p.start = start_again


def counted(t, p):
    mortal.counter(t, p, 8)


def without_stdin(t, p):
    """Who starts it again has closed stdin."""
    p.stdin = os.open("/dev/null", os.O_RDONLY)
    t.at_end(lambda: os.close(p.stdin))
    before_restart(p, lambda: setattr(p, "before_exec", lambda: os.close(0)))
    counted(t, p)


def renamed(function):
    """Somebody else gives another name to the file that it has open, as logrotate does."""
    def run(t, p):
        path = os.path.join(t.dir, "files", "steady")
        before_restart(p, lambda: os.path.exists(path) and os.rename(path, path + ".1"))
        function(t, p)
    run.prepare = function.prepare
    return run


BINDING = """
import os, socket, sys
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.bind(("127.0.0.1", int(sys.argv[1])))
last, seen, turns = None, {}, 0
while True:
    text, peer = u.recvfrom(100)
    seq = text.split()[0]
    if peer not in seen or seen[peer][0] != seq: # a request that is repeated has the same answer
        if last:
            last.close()
            os.unlink("unix")
        last = socket.socket(socket.AF_UNIX)
        last.bind("unix")
        turns += 1
        os.mkdir(f"d{turns}")
        os.close(os.open(f"d{turns}/file", os.O_CREAT | os.O_EXCL))
        os.symlink("unix", f"s{turns}")
        os.link(f"d{turns}/file", f"l{turns}")
        os.mkfifo(f"f{turns}")
        seen[peer] = seq, b"%s bound %d" % (seq, os.path.exists("unix"))
    u.sendto(seen[peer][1], peer)
"""


def binds(t, p):
    """The turn that is lost has made new names of each kind."""
    dialog = udp_dialog(t, p, [PYTHON, "-c", BINDING])
    for n in range(10):
        ask(p, dialog, "bind", "bound 1")


def rebooted(t, p):
    """The clock that counts from the machine's start goes back."""
    p.before_exec = timens.uptime(100000)
    before_restart(p, lambda: setattr(p, "before_exec", None))
    counted(t, p)


def has_time_namespaces(t):
    try:
        subprocess.run(["/bin/true"], preexec_fn=timens.uptime(1), check=True)
    except (subprocess.SubprocessError, OSError) as error:
        raise Skip(f"no time namespaces here: {error}") from None


rebooted.needs = has_time_namespaces


def no_execution(t, p):
    """The store's file system executes nothing."""
    place = os.path.join(t.dir, "disk")
    os.mkdir(place)
    mount(place)
    t.at_end(lambda: (p.stop(), subprocess.run(["umount", "-l", place], check=True)))
    p.store = p.env["KEN_STORE"] = os.path.join(place, "store")
    counted(t, p)


def mount(place):
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m,mode=700,noexec", "ken-test", place], capture_output=True, text=True)
    if done.returncode:
        raise Skip(f"cannot mount a file system: {done.stderr.strip()}")


def can_mount(t):
    mount(t.dir)
    subprocess.run(["umount", "-l", t.dir], check=True)


no_execution.needs = can_mount


def shorter_journal(t, p):
    """What was taken from a journal is gone from it: the file's length was not flushed when the power went."""
    def cut():
        for name in os.listdir(p.store):
            if name.startswith("inbox"):
                os.truncate(os.path.join(p.store, name), 0)
    before_restart(p, cut)
    dialog = line_server.serve_pipes(t, p)
    for command, right in line_server.additions(f"{n * n}." for n in range(1, 9)):
        ask(p, dialog, command, right)


def company(t, p):
    """It holds a file that is gone when it comes back, and connections with plain ones."""
    path, gone = os.path.join(t.dir, "plain"), os.path.join(t.dir, "gone")
    with open(gone, "w") as f:
        f.write("here")
    plain, aimed = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    plain.bind(path)
    plain.listen()
    aimed.bind(("127.0.0.1", 0))
    t.at_end(lambda: (plain.close(), aimed.close()))
    before_restart(p, lambda: os.unlink(gone))
    p.expected_messages.append("gone again: ENOENT.*; it reads as closed now")
    dialog = udp_dialog(t, p, [PYTHON, subject("corners.py")])
    port = aimed.getsockname()[1]
    for n in range(3):
        for command, right in (f"hold {gone}", "held"), (f"outside {path}", "connected"), (f"aim {port}", str(port)):
            ask(p, dialog, command, right)


def pages(t, p):
    """Some that cannot be written to are seen by a child, and grow."""
    dialog = udp_dialog(t, p, [PYTHON, subject("corners.py")])
    for n in range(2):
        made = dialog.seq + 1
        all, two = (",".join(f"{made}{k}" for k in range(count)) for count in (3, 2))
        for command, right in (("page", all), ("look", two), ("look", two), ("grow", two), ("fork", "3"), ("fork", "3"), ("look", two)):
            ask(p, dialog, command, right)


RESETTING = """
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
n = 0
while True:
    s, _ = listener.accept()
    s.recv(1)
    s.close() if n % 2 else None
    if not n % 2:
        s.sendall(b"whole")
        s.shutdown(socket.SHUT_WR)
        s.recv(100)
        s.close()
    n += 1
"""

# It is on its interest list before there is a connection.
RESET = """
import select, socket, sys
for n in range(int(sys.argv[2])):
    s, loop = socket.socket(), select.epoll()
    s.setblocking(False)
    loop.register(s, select.EPOLLIN | select.EPOLLOUT)
    s.connect_ex(("127.0.0.1", int(sys.argv[1])))
    loop.modify(s, select.EPOLLOUT)
    while not loop.poll():
        pass
    s.send(b"ab" if n % 2 else b"a")
    loop.modify(s, select.EPOLLIN)
    what = None
    while what is None:
        loop.poll()
        try:
            what = s.recv(100).decode()
        except BlockingIOError:
            pass
        except ConnectionResetError:
            what = "reset"
    print(n, what, flush=True)
    s.close()
print("done", flush=True)
"""


def resets(ours):
    """A server that closes every second connection with input unread, and its client's event loop."""
    def run(t, p):
        port, count = free_port(), 12
        companions.converse(t, p, ours, [PYTHON, "-c", RESETTING, str(port)], [PYTHON, "-c", RESET, str(port), str(count)], port,
                            "tcp", [f"{n} {'reset' if n % 2 else 'whole'}" for n in range(count)] + ["done"])
    return run
