"""forking.py PORT [cat|spawn|wait|workers] [daemon]: a server that gives each connection to a child of its own: `sum N` is answered by the sum so far in that
connection, `send N` by N bytes. With `cat` it hands the connection to cat(1), with `spawn` by posix_spawn(), with `wait` it waits for each child,
with `workers` two children accept. With `daemon` it goes into the background first."""
import ctypes
import os
import signal
import socketserver
import subprocess
import sys


background = sys.argv[-1] == "daemon"
way = sys.argv[2] if len(sys.argv) > 2 else ""


def into_background():
    for _ in range(2):
        if os.fork():
            os._exit(0)
        os.setsid()


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        total = 0
        for line in self.rfile:
            word, _, number = line.decode().strip().partition(" ")
            if word == "send":
                self.wfile.write(b"x" * int(number))
            else:
                total += int(number)
                self.wfile.write(b"%d\n" % total)


class Server(socketserver.ForkingTCPServer):
    allow_reuse_address = True

    def process_request(self, request, client_address):
        if way == "cat":
            subprocess.Popen(["/bin/cat"], stdin=request, stdout=request)
            request.close()
        elif way == "spawn":
            here = request.fileno()
            os.posix_spawn("/bin/cat", ["cat"], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, here, n) for n in (0, 1)])
            request.close()
        else:
            super().process_request(request, client_address)
            if way == "wait":
                os.wait()


if background:
    into_background()
if way in ("cat", "spawn"):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
with Server(("127.0.0.1", int(sys.argv[1])), Handler) as server:
    if way == "workers":
        server.process_request = lambda request, address: socketserver.TCPServer.process_request(server, request, address)
        workers = [os.fork() for _ in range(2)]
        if 0 not in workers:
            os.wait()
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    server.serve_forever()
