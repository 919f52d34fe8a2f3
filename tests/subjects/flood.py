"""A server with an event loop that writes when it is told it may: flood.py PORT

`send N` is answered with N bytes, in pieces as the socket takes them; `turns` with how often the loop turned since the last
`turns`, on its own connection.
"""
import selectors
import socket
import sys

selector = selectors.DefaultSelector()
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
listener.setblocking(False)
selector.register(listener, selectors.EVENT_READ)
owed = {}
turns = 0


def receive(peer):
    global turns
    try:
        text = peer.recv(1000).decode()
    except ConnectionResetError:
        text = ""
    if not text:
        owed.pop(peer, None)
        selector.unregister(peer)
        peer.close()
        return
    word, *rest = text.split()
    if word == "send":
        owed[peer] = memoryview(bytes(range(251)) * (int(rest[0]) // 251))
        selector.modify(peer, selectors.EVENT_READ | selectors.EVENT_WRITE)
    else:
        peer.sendall(b"%d\n" % turns)
        turns = 0


def send(peer):
    try:
        owed[peer] = owed[peer][peer.send(owed[peer][:65536]):]
    except BlockingIOError:
        return
    if not owed[peer]:
        del owed[peer]
        selector.modify(peer, selectors.EVENT_READ)


while True:
    for key, events in selector.select():
        turns += 1
        if key.fileobj is listener:
            peer, _ = listener.accept()
            peer.setblocking(False)
            selector.register(peer, selectors.EVENT_READ)
            continue
        if events & selectors.EVENT_READ:
            receive(key.fileobj)
        if events & selectors.EVENT_WRITE and key.fileobj in owed:
            send(key.fileobj)
