"""Answers each request with the help of children: children.py PORT. `<number> <text>` -> `<number> <text, by tr>
<how many were answered> <LD_PRELOAD as a child sees it>`."""
import os
import socket
import subprocess
import sys

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", int(sys.argv[1])))
last, answer, count = 0, b"", 0
while True:
    request, client = server.recvfrom(4096)
    number, text = request.decode().split()
    if int(number) > last:
        last, count = int(number), count + 1
        upper = subprocess.run(["tr", "a-z", "A-Z"], input=text, capture_output=True, text=True).stdout
        preload = os.popen("echo ${LD_PRELOAD-none}").read().strip()
        pid = os.fork()
        if not pid:
            os._exit(count % 100)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        answer = f"{number} {upper} {count} {preload} {status}".encode()
    if int(number) == last:
        server.sendto(answer, client)
