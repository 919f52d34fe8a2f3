"""Runs within scripts/guest: makes stores that another guest resumes.

    guest_store.py make DIR      programs count to 20 and are killed; their stores go to /dev/ttyS3
    guest_store.py resume DIR    the same programs, from the stores in DIR/taken, go on counting; killed and resumed again
"""
import base64
import io
import json
import os
import sys
import tarfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from harness import *

COUNT = 20
PROGRAMS = {"c": [subject("udp_counter"), "17001"], "python": [PYTHON, subject("kv_udp.py"), "17002"]}


def counted(place, name, argv, first, last):
    """Starts it, and has it count from `first` to `last`."""
    cwd = os.path.join(place, name)
    os.makedirs(cwd, exist_ok=True)
    p = Program(argv, os.path.join(place, "stores", name), cwd)
    p.start()
    dialog = UdpDialog(p, int(argv[-1]))
    dialog.seq = dialog.answered = first - 1
    for number in range(first, last + 1):
        answer = dialog.ask("INC key")
        check(answer == f"key {number}", f"{name}: '{answer}', not 'key {number}'")
    return p


def files_below(place):
    return [os.path.join(at, name) for at, _, names in os.walk(place) for name in names]


def make(place):
    for name, argv in PROGRAMS.items():
        counted(place, name, argv, 1, COUNT).kill9()
    # To the nanosecond, as `cp -a` keeps them: a pinned file is known by its size and time.
    with open(os.path.join(place, "stores", "times"), "w") as f:
        json.dump({path: os.stat(path).st_mtime_ns for path in files_below(os.path.join(place, "stores"))}, f)
    text = io.BytesIO()
    with tarfile.open(fileobj=text, mode="w:gz", compresslevel=6) as tar:
        tar.add(os.path.join(place, "stores"), "stores")
    with open("/dev/ttyS3", "wb") as out:
        out.write(base64.encodebytes(text.getvalue()))


def unpack(place):
    with open(os.path.join(place, "taken"), "rb") as f:
        text = base64.decodebytes(f.read().replace(b"\r", b""))
    with tarfile.open(fileobj=io.BytesIO(text), mode="r:gz") as tar:
        tar.extractall(place)
    with open(os.path.join(place, "stores", "times")) as f:
        for path, ns in json.load(f).items():
            os.utime(path, ns=(ns, ns))


def resume(place):
    unpack(place)
    for name, argv in PROGRAMS.items():
        for first in (COUNT + 1, 2 * COUNT + 1):
            p = counted(place, name, argv, first, first + COUNT - 1)
            check(any(RESUME.match(line) for line in p.messages()), f"{name} did not resume: {p.tail()}")
            p.kill9()


print(os.uname().release, flush=True)
{"make": make, "resume": resume}[sys.argv[1]](sys.argv[2])
print("done")
