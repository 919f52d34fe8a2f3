"""A key-value counter for UDP and TCP clients, as one writes it in an afternoon: kv_both.py PORT

`<client> <number> INC|GET <key>` is answered with `<number> <key> <value>`. The last answer to each client
is kept, so that a client may repeat a request whose answer was lost.
"""
import selectors
import socket
import sys

port = int(sys.argv[1])
counts = {}
answers = {}


def serve(request):
    client, number, verb, key = request.split()
    last, answer = answers.get(client, (0, ""))
    if int(number) > last:
        if verb == "INC":
            counts[key] = counts.get(key, 0) + 1
        answer = f"{number} {key} {counts.get(key, 0)}"
        answers[client] = int(number), answer
    return answer


def on_datagram(udp):
    request, address = udp.recvfrom(4096)
    udp.sendto(serve(request.decode()).encode(), address)


def on_connection(listener):
    connection, address = listener.accept()
    loop.register(connection, selectors.EVENT_READ, on_line)


def on_line(connection):
    try:
        lines = connection.recv(4096).decode().splitlines()
        for line in lines:
            connection.sendall(f"{serve(line)}\n".encode())
    except ConnectionError:
        lines = []
    if not lines:
        loop.unregister(connection)
        connection.close()


udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(("127.0.0.1", port))
loop = selectors.DefaultSelector()
loop.register(udp, selectors.EVENT_READ, on_datagram)
loop.register(socket.create_server(("127.0.0.1", port)), selectors.EVENT_READ, on_connection)
while True:
    for event, _ in loop.select():
        event.data(event.fileobj)
