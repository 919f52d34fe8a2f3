"""A relay: proxy.py PORT TARGET: each connection on PORT is carried to TARGET and back, until both sides have ended."""
import selectors
import socket
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
watcher = selectors.DefaultSelector()
watcher.register(listener, selectors.EVENT_READ)
other, ended = {}, set()


def begin():
    near, _ = listener.accept()
    far = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
    other[near], other[far] = far, near
    watcher.register(near, selectors.EVENT_READ)
    watcher.register(far, selectors.EVENT_READ)


def carry(s):
    piece = s.recv(50000)
    if piece:
        other[s].sendall(piece)
        return
    watcher.unregister(s)
    ended.add(s)
    other[s].shutdown(socket.SHUT_WR)
    if other[s] in ended:
        for each in (other[s], s):
            ended.discard(each)
            del other[each]
            each.close()


while True:
    for key, _ in watcher.select():
        if key.fileobj is listener:
            begin()
        elif key.fileobj in other:
            carry(key.fileobj)
