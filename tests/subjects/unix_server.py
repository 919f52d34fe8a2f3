"""unix_server.py: answers `<number> <text>` with `<number> <count> <text>` over UNIX sockets of every kind in its directory, to
whoever comes; a repeated number is answered as before. Each new count is also sent, by a connected socket, to the datagram
socket `log`, whose owner made it before."""
import selectors
import socket

STREAM, DGRAM, PACKET = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET
log = socket.socket(socket.AF_UNIX, DGRAM)
log.connect("log")
watcher = selectors.DefaultSelector()
for name, kind in (("stream", STREAM), ("packet", PACKET), ("datagram", DGRAM)):
    with open("abstract") as f:
        names = (name, f"\0{f.read()}-{name}")
    for place in names:
        s = socket.socket(socket.AF_UNIX, kind)
        s.bind(place)
        if kind != DGRAM:
            s.listen()
        s.setblocking(False)
        watcher.register(s, selectors.EVENT_READ, [kind != DGRAM, b""])
count, last, answer = 0, 0, b""


def answer_to(line):
    global count, last, answer
    number, text = line.split(b" ", 1)
    if int(number) > last:
        count, last = count + 1, int(number)
        answer = b"%d %d %s" % (last, count, text)
        log.send(b"%d" % count)
    return answer


open("ready", "w").close()
while True:
    for key, _ in watcher.select():
        s, (listens, kept) = key.fileobj, key.data
        try:
            if listens:
                client, _ = s.accept()
                client.setblocking(False)
                watcher.register(client, selectors.EVENT_READ, [False, b""])
            elif s.type == DGRAM:
                text, client = s.recvfrom(1000)
                s.sendto(answer_to(text), client)
            elif text := s.recv(1000):
                *lines, key.data[1] = ((kept + text).split(b"\n") if s.type == STREAM else [text, b""])
                for line in lines:
                    s.send(answer_to(line) + (b"\n" if s.type == STREAM else b""))
            else:
                watcher.unregister(s)
                s.close()
        except BlockingIOError:
            pass
        except OSError:  # the client has gone
            if s.type != DGRAM and not listens:
                watcher.unregister(s)
                s.close()
