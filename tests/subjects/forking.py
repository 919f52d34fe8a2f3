"""forking.py PORT: a server that gives each connection to a child of its own: `sum N` is answered by the sum so far in that connection,
`send N` by N bytes; `cat` hands the connection to cat(1)."""
import os
import signal
import socketserver
import subprocess
import sys


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
        if sys.argv[2:] == ["cat"]:
            subprocess.Popen(["/bin/cat"], stdin=request, stdout=request)
            request.close()
        else:
            super().process_request(request, client_address)


if sys.argv[2:] == ["cat"]:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
with Server(("127.0.0.1", int(sys.argv[1])), Handler) as server:
    server.serve_forever()
