"""A datagram service that does what few programs do: corners.py PORT. `<number> <command>` -> `<number> <answer>`; a request that comes
again gets the last answer.

    hold PATH        opens a file, once, and keeps it
    outside PATH     connects to a UNIX socket, once, and keeps the connection
    aim PORT         connects a bound datagram socket, once; the port that it is aimed at
    page             makes three pages, writes to them, and takes the right to write to the first two away
    look             what is in them
    fork             a child looks at them; its status
    grow             two of them become four, with what was in them
"""
import ctypes
import mmap
import os
import socket
import sys

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = libc.mremap.restype = ctypes.c_void_p
libc.mremap.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int
libc.mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
MREMAP_MAYMOVE, PAGE = 1, 4096
FAILED = ctypes.c_void_p(-1).value
kept, pages = {}, None
still = mmap.mmap(-1, PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # another one that cannot be written to


def sure(result):
    if result in (None, -1, FAILED):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def hold(path):
    if "file" not in kept:
        kept["file"] = open(path, "rb", buffering=0)
    return "held"


def outside(path):
    if "unix" not in kept:
        kept["unix"] = socket.socket(socket.AF_UNIX)
        kept["unix"].connect(path)
    return "connected"


def aim(port):
    if "udp" not in kept:
        kept["udp"] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        kept["udp"].bind(("127.0.0.1", 0))
        kept["udp"].connect(("127.0.0.1", int(port)))
    return str(kept["udp"].getpeername()[1])


def content(count):
    return ",".join(ctypes.string_at(pages + n * PAGE).decode() for n in range(count))


def page(_):
    global pages
    pages = sure(libc.mmap(None, 3 * PAGE, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0))
    for n in range(3):
        ctypes.memmove(pages + n * PAGE, b"%d%d\0" % (number, n), 4)
    sure(libc.mprotect(pages, 2 * PAGE, mmap.PROT_READ))
    return content(3)


def look(_):
    return content(2)


def fork(_):
    right = content(2)
    while True:
        pid = os.fork()
        if not pid:
            os._exit(3 if content(2) == right and still[:5] == b"still" else 4)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status >= 0:  # not one that was lost with its parent
            return str(status)


def grow(_):
    global pages
    pages = sure(libc.mremap(pages, 2 * PAGE, 4 * PAGE, MREMAP_MAYMOVE))
    return content(2)


still[:5] = b"still"
sure(libc.mprotect(ctypes.addressof(ctypes.c_char.from_buffer(still)), PAGE, mmap.PROT_READ))
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", int(sys.argv[1])))
last, answer = 0, b""
while True:
    request, client = server.recvfrom(4096)
    number, command, *rest = request.decode().split()
    number = int(number)
    if number > last:
        last, answer = number, f"{number} {globals()[command](*rest or [None])}".encode()
    if number == last:
        server.sendto(answer, client)
