"""A key-value counter over UDP, as one writes it in an afternoon: kv_udp.py PORT

`<number> INC|GET <key>` is answered with `<number> <key> <value>`; a repeated request as before.
"""
import socket
import sys

counts = {}
answers = {}

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", int(sys.argv[1])))
while True:
    request, client = server.recvfrom(4096)
    number, verb, key = request.decode().split()
    last, answer = answers.get(client, (0, b""))
    if int(number) > last:
        if verb == "INC":
            counts[key] = counts.get(key, 0) + 1
        answer = f"{number} {key} {counts.get(key, 0)}".encode()
        answers[client] = int(number), answer
    if int(number) >= last:
        server.sendto(answer, client)
