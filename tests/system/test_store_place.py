#!/usr/bin/python3
"""Where a store is, and what it was made by: moved, in use, on a full, slow or read-only disk, under a program or command that changed."""
import contextlib
import http.client
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *
from stores import *


@case
def moved_store(t):
    """A store may be moved to another place."""
    program, dialog = counter(t)
    shutil.move(program.store, program.store + "-moved")
    program.store = program.env["KEN_STORE"] = program.store + "-moved"
    resumes(program, dialog)


@case
def in_use(t):
    """A second instance is told the pid of the first, which goes on undisturbed."""
    program, dialog = counter(t)
    resumes(program, dialog)
    second = t.program(program.argv, store=program.store)
    second.expected_messages = [".*"]
    check(second.wait_gone() > 0, f"the second instance ended with {second.status}")
    check(str(program.pid()) in second.tail(), f"pid {program.pid()} is not in: {second.tail()}")
    check(dialog.ask("INC a") == "a 7", "the first instance was disturbed")


@case
def fresh(t):
    """KEN_FRESH=1 starts over and keeps the old store aside, from where it can be resumed."""
    program, dialog = counter(t)
    again = t.program(program.argv, store=program.store, env={"KEN_FRESH": "1"})
    again.expected_messages = [".*"]
    other = UdpDialog(again, int(program.argv[1]))
    t.at_end(other.close)
    check(other.ask("INC a") == "a 1", "it did not start over")
    again.kill9()
    aside = [name for name in os.listdir(program.cwd) if name.startswith("store.old")]
    check(len(aside) == 1, f"kept aside: {aside}")
    program.store = program.env["KEN_STORE"] = os.path.join(program.cwd, aside[0])
    resumes(program, dialog)


@case
def missing_directory(t):
    """It is made, with its parents, for its owner alone."""
    store = os.path.join(t.dir, "a", "b", "store")
    program, dialog = counter(t, store=store)
    check(os.stat(store).st_mode & 0o777 == 0o700, f"its mode is {os.stat(store).st_mode & 0o777:o}")
    resumes(program, dialog)


@case
def unusable_directory(t):
    """A file lies where the store's parent should be."""
    if BARE:
        raise Skip("without libken there is no store")
    with open(os.path.join(t.dir, "file"), "w") as f:
        f.write("precious")
    program = t.program([subject("udp_counter"), "1"], store=os.path.join(t.dir, "file", "store"))
    program.expected_messages = [".*"]
    check(program.wait_gone() > 0, f"status {program.status}")
    check("file/store" in program.tail(), f"the path is not in: {program.tail()}")
    check(open(os.path.join(t.dir, "file")).read() == "precious", "the file was changed")


@case
def writable_by_others(t):
    program, dialog = counter(t)
    os.chmod(program.store, 0o777)
    refused(t, program, "store")
    os.chmod(program.store, 0o700)
    program.expected_messages = []
    resumes(program, dialog)


@contextlib.contextmanager
def small_disk(t, size):
    place = os.path.join(t.dir, "disk")
    os.mkdir(place)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "ken-test", place],
                          capture_output=True, text=True)
    if done.returncode:
        raise Skip(f"cannot mount a file system: {done.stderr.strip()}")
    try:
        yield place
    finally:
        stop_all()
        subprocess.run(["umount", "-l", place], check=True)


def remount(place, options):
    subprocess.run(["mount", "-o", f"remount,{options}", place], check=True)


@case
def read_only(t):
    with small_disk(t, "256m") as place:
        program, dialog = counter(t, store=os.path.join(place, "store"))
        remount(place, "ro")
        refused(t, program, "store|EROFS")
        remount(place, "rw")
        program.expected_messages = []
        resumes(program, dialog)


@case
def no_execution(t):
    """A store where nothing may be executed (noexec): text and what a compiler made at run time come back all the same."""
    with small_disk(t, "1g") as place:
        remount(place, "noexec")
        program, dialog = counter(t, store=os.path.join(place, "store"))
        resumes(program, dialog)
        program.kill9()
        resumes(program, dialog, "a 7")
        program.kill9()
        port, last = free_port(), 0
        node = t.program([need("node"), subject("counters.js"), str(port)], store=os.path.join(place, "node"))
        for n in range(4):
            for _ in range(80):
                count = http_get(port, "/x")
                check(count > last, f"the count was {last} and is {count}")
                last = count
            node.check_messages(answered=True)
            node.kill9()
            node.restart()
        check(last >= 320, f"it counted to {last}")


def http_get(port, path):
    """Asks until there is an answer, a number."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return int(answer.read())
        except (OSError, http.client.HTTPException):
            time.sleep(0.02)
    raise Failure("no answer")


def big_turn(t, place):
    """A program whose turns need room, with its store there, and its dialog."""
    if BARE:
        raise Skip("without libken there is no store")
    port = free_port()
    big = t.program([subject("big_turn"), str(port)], store=os.path.join(place, "big"))
    asks = UdpDialog(big, port)
    t.at_end(asks.close)
    big.expected_messages = ["(?i)full|room|space|ENOSPC"]
    return big, asks


@case
def full_disk(t):
    """It waits, says so once, and goes on when there is room; what was answered before stays."""
    with small_disk(t, "256m") as place:
        program, dialog = counter(t, argv=[subject("udp_counter")], store=os.path.join(place, "store"))
        big, asks = big_turn(t, place)
        before = asks.ask("fill 10 1")
        asks.socket.send(b"2 fill 300 2")
        deadline = time.monotonic() + PATIENCE
        while not big.messages() and not big.bare:
            check(big.process.poll() is None, f"it died on a full disk: {big.tail()}")
            check(time.monotonic() < deadline, "it never said that the disk is full")
            time.sleep(0.01)
        time.sleep(0.5)  # it tries again meanwhile
        asks.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            raise Failure(f"an answer although nothing could be written: {asks.socket.recv(100)}")
        said = [m for m in big.messages() if re.search(big.expected_messages[0], m)]
        check(len(said) == 1, f"it said {len(said)} times that the disk is full: {big.messages()}")
        remount(place, "size=2g")
        after = asks.ask("fill 300 2")
        check(after.split()[0] == str(300 << 17), f"after there was room it answered '{after}', before '{before}'")
        big.kill9()
        big.restart()
        check(asks.ask("sum") == after, "what was answered is lost")


@case
def full_image(t):
    """The turn fits into the log, so it is answered; its pages find no room in the image. Killed then, it
    is whole when there is room."""
    with small_disk(t, "256m") as place:
        big, asks = big_turn(t, place)
        right = asks.ask("fill 150 2")
        time.sleep(1)
        big.kill9()
        remount(place, "size=2g")
        big.restart()
        check(asks.ask("sum") == right, "what was answered is lost")


@case
def full_disk_and_killed(t):
    """Killed while it waits for room: it resumes the turn before."""
    with small_disk(t, "256m") as place:
        big, asks = big_turn(t, place)
        before = asks.ask("fill 10 1")
        asks.socket.send(b"2 fill 300 2")
        time.sleep(2)
        big.kill9()
        remount(place, "size=2g")
        big.restart()
        check(asks.ask("sum") == before, "the turn before is lost")


def changed_executable(t, change, expect_resume):
    copy = os.path.join(t.dir, "program")
    shutil.copy2(subject("udp_counter"), copy)
    program, dialog = counter(t, argv=[copy])
    change(copy)
    program.expected_messages = ["(?i)changed|differ|replaced|upgrade"]
    if expect_resume:
        resumes(program, dialog)
    else:
        refused(t, program, "(?i)changed|written|differ|pin|ESTALE", replayed=True)


@case
def replaced_executable(t):
    """An upgrade replaces the file: the run goes on with the old one, kept in the store."""
    def replace(path):
        shutil.copy2(subject("tcp_counter"), path + ".new")
        os.rename(path + ".new", path)
    changed_executable(t, replace, True)


@case
def replaced_libraries(t):
    """So does an upgrade of libc and of what was loaded by dlopen, or their being removed: both are told apart from the new
    ones, which the loader has brought into the new process before."""
    libraries = os.path.join(t.dir, "lib")
    os.mkdir(libraries)
    names = ("libc.so.6", "libm.so.6", "libbz2.so.1.0")
    for name in names:
        shutil.copy(os.path.join("/lib/x86_64-linux-gnu", name), libraries)
    program, dialog = counter(t, argv=[PYTHON, "-c", f"import bz2, math; exec(open({subject('kv_udp.py')!r}).read())"],
                              env={"LD_LIBRARY_PATH": libraries})
    def upgrade(name):
        path = os.path.join(libraries, name)
        shutil.copy(path, path + ".new")
        with open(path + ".new", "ab") as f:
            f.write(b"another build")
        os.rename(path + ".new", path)

    for n, change in enumerate((upgrade, upgrade, lambda name: os.unlink(os.path.join(libraries, name)))):
        for name in names:
            change(name)
        if n == 1:  # while it runs: it maps more memory, and the list of mappings shows deleted files
            for key in range(1500):
                dialog.ask(f"INC another-key-{key}-{'x' * 60}")
        if n:
            program.kill9()
        resumes(program, dialog, f"a {6 + n}")
        with open(f"/proc/{program.pid()}/maps") as maps:
            used = {line.split()[-1] for line in maps if "libc.so" in line or "/pin/" in line}
        check(not any(path.startswith(libraries) for path in used), f"it runs on the new library: {used}")


@case
def overwritten_executable(t):
    """Written to in place, the file and its hard link in the store change: refused."""
    def overwrite(path):
        with open(path, "r+b") as f:
            f.seek(0, 2)
            f.write(b"more")
    changed_executable(t, overwrite, False)


@case
def other_command(t):
    """Without KEN_STORE, each command line has a store of its own below .ken."""
    if BARE:
        raise Skip("without libken there is no store")
    where = os.path.join(t.dir, "here")
    ports, dialogs = [free_port(), free_port()], []
    for n, port in enumerate(ports):
        program = t.program([subject("udp_counter"), str(port)], start=False, cwd=where)
        del program.env["KEN_STORE"]
        program.stderr_path = lambda start=None, n=n, p=program: os.path.join(where, f"err{n}.{start or p.starts}")
        program.start()
        dialogs.append(UdpDialog(program, port))
        t.at_end(dialogs[-1].close)
        for _ in range(n + 1):
            dialogs[-1].ask("INC a")
        program.kill9()
    check(len(os.listdir(os.path.join(where, ".ken"))) == 2, str(os.listdir(os.path.join(where, ".ken"))))
    for n, dialog in enumerate(dialogs):
        resumes(dialog.program, dialog, f"a {n + 2}")


main()
