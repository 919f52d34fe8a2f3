"""names.py PORT DIRECTORY: answers datagrams; each makes names that must be new, of every kind, and says which were there already."""
import os
import socket
import sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", int(sys.argv[1])))
os.chdir(sys.argv[2])
open("origin", "w").close()
turns, answers = 0, {}


def within(name):
    os.mkdir(name)
    with open(f"{name}/first", "w") as f:
        f.write("text")
    os.mkdir(f"{name}/second")


def exclusively(name):
    os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


KINDS = {"directory": within, "exclusive": exclusively, "symlink": lambda name: os.symlink("origin", name),
         "link": lambda name: os.link("origin", name), "fifo": os.mkfifo}

while True:
    request, peer = s.recvfrom(100)
    number = request.split()[0]
    if (peer, number) not in answers:
        turns += 1
        old = []
        for n in range(30):
            for kind, make in KINDS.items():
                try:
                    make(f"{kind}-{turns}-{n}")
                except FileExistsError as error:
                    old.append(error.filename)
        answers[peer, number] = number + (b" %d made" % turns if not old else b" old: " + " ".join(old[:3]).encode())
    s.sendto(answers[peer, number], peer)
