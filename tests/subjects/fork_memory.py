"""A child of fork looks at its memory while its parent changes its own: fork_memory.py PORT. Commands: fill, fork, change,
child (`as it was`, or how many bytes differ)."""
import ctypes
import os
import socket
import sys

SIZE = 1 << 20
memory = bytearray(SIZE)
where = ctypes.addressof((ctypes.c_char * SIZE).from_buffer(memory))
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", int(sys.argv[1])))
to_child = from_child = None
last, answer = 0, b""


def fork():
    """The child only looks when it is asked to: until then it touches nothing."""
    global to_child, from_child
    ask, tell = os.pipe(), os.pipe()
    if not os.fork():
        os.close(ask[1])
        os.read(ask[0], 1)
        wrong = SIZE - memory.count(7)
        os.write(tell[1], (f"{wrong} bytes differ" if wrong else "as it was").encode())
        os._exit(0)
    to_child, from_child = ask[1], tell[0]


while True:
    request, client = server.recvfrom(4096)
    number, command = request.decode().split()
    if int(number) > last:
        last, said = int(number), "done"
        if command == "fill":
            ctypes.memset(where, 7, SIZE)
        elif command == "fork":
            fork()
        elif command == "change":
            ctypes.memset(where, 8 + last % 100, SIZE)
        elif command == "child":
            os.write(to_child, b"?")
            said = os.read(from_child, 100).decode()
        answer = f"{number} {said}".encode()
    if int(number) == last:
        server.sendto(answer, client)
