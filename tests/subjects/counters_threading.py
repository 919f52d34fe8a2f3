"""Counters over TCP, a thread for each connection and one lock: counters_threading.py PORT"""
import socketserver
import sys
import threading

counts, lock = {}, threading.Lock()


class Serve(socketserver.StreamRequestHandler):
    def handle(self):
        try:
            for line in self.rfile:
                with lock:
                    counts[line] = count = counts.get(line, 0) + 1
                self.wfile.write(b"%d\n" % count)
        except OSError:
            pass  # the client is gone


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


Server(("127.0.0.1", int(sys.argv[1])), Serve).serve_forever()
