"""Answers each request with the help of children: children.py PORT. `<number> <text>` -> `<number> <text, by tr>
<how many were answered> <LD_PRELOAD as a child sees it> <a child's status>`. A child that was killed is run again.
"""
import os
import socket
import subprocess
import sys

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", int(sys.argv[1])))


def upper(text):
    while True:
        done = subprocess.run(["tr", "a-z", "A-Z"], input=text, capture_output=True, text=True)
        if done.returncode >= 0:
            return done.stdout


def preload():
    while True:
        pipe = os.popen("echo ${LD_PRELOAD-none}")
        text = pipe.read()
        if not pipe.close():
            return text.strip()


def child_status(number):
    while True:
        pid = os.fork()
        if not pid:
            os._exit(number % 100)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status >= 0:
            return status


last, answer, count = 0, b"", 0
while True:
    request, client = server.recvfrom(4096)
    number, text = request.decode().split()
    if int(number) > last:
        last, count = int(number), count + 1
        answer = f"{number} {upper(text)} {count} {preload()} {child_status(count)}".encode()
    if int(number) == last:
        server.sendto(answer, client)
