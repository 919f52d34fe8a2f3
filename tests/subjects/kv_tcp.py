"""A key-value counter over TCP, blocking, one client at a time: kv_tcp.py PORT

Lines `<number> INC|GET <key>` are answered with `<number> <key> <value>`; a repeated one as before.
"""
import socket
import sys

counts = {}
last, answer = 0, ""

server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    connection, client = server.accept()
    with connection:
        try:
            with connection.makefile("rw") as lines:
                for line in lines:
                    number, verb, key = line.split()
                    if int(number) > last:
                        if verb == "INC":
                            counts[key] = counts.get(key, 0) + 1
                        last, answer = int(number), f"{number} {key} {counts.get(key, 0)}\n"
                    lines.write(answer)
                    lines.flush()
        except OSError:
            pass  # the client is gone
