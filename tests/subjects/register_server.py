"""Named registers for any number of clients, a thread for each: register_server.py PORT

    get KEY, set KEY VALUE, inc KEY, cas KEY OLD NEW      answered by a line: the value, or `none`; `ok`; the sum; 1 or 0
"""
import socketserver
import sys
import threading

registers, lock = {}, threading.Lock()


def serve(verb, key, *words):
    with lock:
        value = registers.get(key)
        if verb == "get":
            return value or "none"
        if verb == "cas" and value != words[0]:
            return "0"
        registers[key] = {"set": lambda: words[0], "inc": lambda: str(int(value or 0) + 1), "cas": lambda: words[1]}[verb]()
        return {"set": "ok", "inc": registers[key], "cas": "1"}[verb]


class Client(socketserver.StreamRequestHandler):
    def handle(self):
        try:
            for line in self.rfile:
                self.wfile.write(serve(*line.decode().split()).encode() + b"\n")
        except ConnectionError:
            pass


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 64


Server(("127.0.0.1", int(sys.argv[1])), Client).serve_forever()
