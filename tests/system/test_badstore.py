#!/usr/bin/python3
"""Stores that are damaged, foreign, newer, in use, on a full or read-only disk: a clear line on stderr,
nothing lost, nothing overwritten."""
import contextlib
import ctypes
import ctypes.util
import hashlib
import http.client
import mmap
import os
import shutil
import struct
import subprocess
import sys
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import harness
from harness import *

# Where things are in `super` (heap/layout.h).
MAGIC, CHECKSUM, VERSION, BUILD, CPU, SUPER_BYTES = 0, 8, 16, 40, 64, 4096


def counter(t, **kw):
    """A counter that was killed at `a 5`, and its dialog."""
    if BARE:
        raise Skip("without libken there is no store")
    port = free_port()
    program = t.program(kw.pop("argv", [subject("udp_counter")]) + [str(port)], **kw)
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    for n in range(1, 6):
        check(dialog.ask("INC a") == f"a {n}", "it miscounts")
    program.kill9()
    return program, dialog


def contents(store):
    """A digest of every file of the store except the lock."""
    found = {}
    for place, _, names in os.walk(store):
        for name in names:
            path = os.path.join(place, name)
            if name != "lock":
                with open(path, "rb") as f:
                    found[os.path.relpath(path, store)] = hashlib.file_digest(f, "sha256").hexdigest()
    return found


def copy_store(store, to):
    subprocess.run(["cp", "-a", "--sparse=always", store, to], check=True)


def refused(t, program, *words, replayed=False):
    """It must end with a status, not by a signal, after a line with all the words; the store stays.

    `replayed`: what is wrong can only be known from the recovered image, so the log may have been applied
    to it, as every start does."""
    before = contents(program.store)
    program.expected_messages = [".*"]
    program.restart()
    status = program.wait_gone()
    lines = program.messages()
    check(status > 0, f"it ended with {status} and said {program.tail()}")
    check(lines, f"no line on stderr, status {status}")
    text = " ".join(lines)
    for word in words:
        check(re.search(word, text), f"'{word}' is not in what it said: {text}")
    after = contents(program.store)
    if replayed:
        before.pop("image"), after.pop("image")
    check(after == before, f"changed: {sorted(n for n in before | after if before.get(n) != after.get(n))}")
    t.note(lines[0].replace(t.dir, "")[5:120])


def resumes(program, dialog, value="a 6"):
    program.restart()
    answer = dialog.ask("INC a")
    check(answer == value, f"the count goes on with '{answer}', not '{value}'")
    check(any(RESUME.match(m) for m in program.messages()), f"no resume line: {program.tail()}")


def poke(store, name, offset, data):
    with open(os.path.join(store, name), "r+b") as f:
        f.seek(offset)
        f.write(data)


def flip(store, name, offset):
    with open(os.path.join(store, name), "r+b") as f:
        f.seek(offset)
        byte = f.read(1)[0]
        f.seek(offset)
        f.write(bytes([byte ^ 0x10]))


def damaged(damage, *words):
    """Damages a store, expects a refusal, puts a copy back and expects the run to go on."""
    def run(t):
        program, dialog = counter(t)
        kept = os.path.join(t.dir, "kept")
        copy_store(program.store, kept)
        damage(program.store)
        refused(t, program, *words)
        shutil.rmtree(program.store)
        copy_store(kept, program.store)
        program.expected_messages = []
        resumes(program, dialog)
    return run


def truncate(name, keep):
    return lambda store: os.truncate(os.path.join(store, name), keep(os.path.getsize(os.path.join(store, name))))


def remove(name):
    return lambda store: os.unlink(os.path.join(store, name))


def first_record(store):
    """Where the log's first record lies: (name, offset)."""
    for name in ("log.0", "log.1"):
        with open(os.path.join(store, name), "rb") as f:
            f.seek(4096)
            if f.read(8) == struct.pack("<Q", 0x44524345524E454B):
                return name, 4096
    raise Failure("no record in either segment")


def flip_record(store):
    name, offset = first_record(store)
    flip(store, name, offset + 200)


def superblock(change):
    """Changes the superblock and makes its checksum right again."""
    def damage(store):
        path = ctypes.util.find_library("xxhash")
        if not path:
            raise Skip("libxxhash is not installed")
        xxhash = ctypes.CDLL(path)
        xxhash.XXH3_64bits.restype = ctypes.c_uint64
        xxhash.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
        name = os.path.join(store, "super")
        data = bytearray(open(name, "rb").read())
        covered = bytes(data[VERSION:])
        check(xxhash.XXH3_64bits(covered, len(covered)) == struct.unpack_from("<Q", data, CHECKSUM)[0],
              "the checksum of a good superblock is not understood")
        change(data)
        covered = bytes(data[VERSION:])
        struct.pack_into("<Q", data, CHECKSUM, xxhash.XXH3_64bits(covered, len(covered)))
        with open(name, "r+b") as f:
            f.write(data)
    return damage


def newer(data):
    struct.pack_into("<I", data, VERSION, 99)


def older(data):
    struct.pack_into("<I", data, VERSION, 1)


def other_build(data):
    data[BUILD] ^= 0xFF


def richer_cpu(data):
    data[CPU:CPU + 64] = b"\xff" * 64


def half(size):
    return size // 2


for name, damage, words in (
        ("super_truncated", truncate("super", half), ("super",)),
        ("super_flipped", lambda store: flip(store, "super", 300), ("super", "damage")),
        ("super_foreign", lambda store: poke(store, "super", 0, b"SOMETHING ELSE"), ("super",)),
        ("super_missing", remove("super"), ("super|incomplete|missing",)),
        ("super_newer", superblock(newer), ("99", "newer")),
        ("super_older", superblock(older), ("format 1", "older", "--fresh")),
        ("other_build", superblock(other_build), ("build",)),
        ("lesser_cpu", superblock(richer_cpu), ("(?i)cpu|processor",)),
        ("image_missing", remove("image"), ("image",)),
        ("image_header_flipped", lambda store: flip(store, "image", 3000), ("image", "do not fit")),  # a bit of no meaning
        ("log_truncated", truncate("log.0", half), (r"log\.0",)),
        ("log_missing", remove("log.1"), (r"log\.1",)),
        ("log_head_flipped", lambda store: flip(store, "log.0", 40), (r"log\.0",)),
        ("log_record_flipped", flip_record, (r"log\.[01]", "offset 4096")),
):
    add_case(name, damaged(damage, *words))


def image_hurt(damage):
    """An image that was cut short, or whose metadata rotted: right again if the log still holds it all, else refused."""
    def run(t):
        if BARE:
            raise Skip("without libken there is no store")
        port = free_port()
        program = t.program([subject("big_turn"), str(port)])
        dialog = UdpDialog(program, port)
        t.at_end(dialog.close)
        for turns in (1, 7):  # 10 MB a turn: first all of it is in the log, then segments were used again
            for n in range(turns):
                right = dialog.ask(f"fill 10 {n}")
            program.kill9()
            kept = os.path.join(t.dir, f"kept{turns}")
            copy_store(program.store, kept)
            damage(program.store)
            if turns == 1:
                program.restart()
                check(dialog.ask("sum") == right, "the log did not make the image whole")
                program.kill9()
            else:
                refused(t, program, "image")
            shutil.rmtree(program.store)
            copy_store(kept, program.store)
            program.expected_messages = []
            program.restart()
            check(dialog.ask("sum") == right, "after the image was put back, the sum is wrong")
    return run


AREA_AT = 24 << 20  # heap/layout_meta.h
add_case("image_truncated", image_hurt(truncate("image", half)))
add_case("image_empty", image_hurt(truncate("image", lambda size: 0)))
add_case("image_table_flipped", image_hurt(lambda store: flip(store, "image", AREA_AT + 44)))


def find_word(store, seed, index):
    """Where the image has the word of that index of big_turn's block."""
    for _ in range(index + 1):
        seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
    with open(os.path.join(store, "image"), "rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as image:
        at = image.find(struct.pack("<Q", seed), 64 << 20)
    check(at > 0, "the block is not in the image")
    return at


def files_but(store, *names):
    return {name: digest for name, digest in contents(store).items() if not name.startswith(names)}


def rotting(t):
    """A program with a block of 10 MB of which one bit in the image turned over, not started again yet; its dialog, what the
    block adds up to, the page's place in the image, and a copy of the store from before."""
    if BARE:
        raise Skip("without libken there is no store")
    port = free_port()
    program = t.program([subject("big_turn"), str(port)])
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    right = dialog.ask("fill 10 7")
    for _ in range(8):  # the last records are applied once more at a restart
        dialog.ask("hello")
    program.kill9()
    kept = os.path.join(t.dir, "kept")
    copy_store(program.store, kept)
    at = find_word(program.store, 7, 600000) + 3
    flip(program.store, "image", at)
    return program, dialog, right, at - at % 4096, kept


def kenctl_check(store):
    tool = os.environ.get("KEN_CTL", os.path.join(harness.BUILD, "scripts", "kenctl"))
    return subprocess.run([tool, "check", store], capture_output=True, text=True, timeout=60)


def rotten(command):
    """The program comes to a page that rotted: it ends with a line, again and again, and answers nothing."""
    def run(t):
        program, dialog, right, page, kept = rotting(t)
        program.expected_messages = ["damaged at offset"]
        passing = ("progress", "inbox-")
        for attempt in range(2):
            program.restart()
            for _ in range(200):
                if any(RESUME.match(m) for m in program.messages()):
                    break
                time.sleep(0.05)
            time.sleep(0.3)
            before = files_but(program.store, *passing)
            for _ in range(80):
                if program.process.poll() is not None:
                    break
                dialog.send(dialog.seq + 1, f"{dialog.seq + 1} {command}")
                time.sleep(0.05)
            status = program.wait_gone()
            said = [m for m in program.messages() if "damaged" in m and "goes on" not in m]
            check(status == 70, f"it ended with {status}: {program.tail()}")
            if files_but(program.store, *passing) != before:
                if kenctl_check(program.store).returncode == 0:
                    raise Skip("the log still held the page and made it whole")
                raise Failure("the store was changed")
            check(len(said) == 1 and re.search(rf"{re.escape(program.store)}/image .* offset {page}\b.* 0x[0-9a-f]+000\b.*--fresh", said[0]),
                  f"it said {program.messages()}, of page {page}")
            dialog.socket.setblocking(False)
            with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
                raise Failure(f"it answered all the same: {dialog.socket.recv(100)}")
        t.note(said[0].replace(t.dir, "")[5:])
        shutil.rmtree(program.store)
        copy_store(kept, program.store)
        program.restart()
        check(dialog.ask("sum") == right, "after the image was put back, the sum is wrong")
        program.kill9()
        check(not [m for m in program.messages() if "damaged" in m], program.tail())
    return run


add_case("rotten_page_read", rotten("sum"))
add_case("rotten_page_written", rotten("fill 10 8"))
add_case("rotten_page_dropped", rotten("drop"))


@case
def rotten_page_left_alone(t):
    """A program that never comes to the page goes on; it is told, and kenctl check tells where."""
    program, dialog, right, page, kept = rotting(t)
    whole = kenctl_check(kept)
    check(whole.returncode == 0, f"the store is not whole before: {whole.stderr}")
    program.expected_messages = ["damaged at offset.*goes on"]
    program.restart()
    for _ in range(60):
        check(dialog.ask("hello") == "hello", "it does not go on")
        time.sleep(0.001)
    said = [m for m in program.messages() if "damaged" in m]
    check(len(said) == 1 and f"offset {page}," in said[0], f"it said {program.messages()}, of page {page}")
    for runs in (True, False):
        found = kenctl_check(program.store)
        named = re.findall(r"page at offset (\d+)", found.stderr)
        check(found.returncode == 1 and named == [str(page)], f"status {found.returncode}, page {page}: {found.stderr}")
        if runs:
            program.kill9()
    t.note(found.stderr.strip().replace(t.dir, "")[5:])


@case
def foreign_log(t):
    """The log of another store."""
    program, dialog = counter(t)
    other, _ = counter(t)
    kept = os.path.join(t.dir, "kept")
    copy_store(program.store, kept)
    shutil.copyfile(os.path.join(other.store, "log.0"), os.path.join(program.store, "log.0"))
    refused(t, program, r"log\.0")
    shutil.rmtree(program.store)
    copy_store(kept, program.store)
    program.expected_messages = []
    resumes(program, dialog)


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


@case
def full_disk(t):
    """It waits, says so once, and goes on when there is room; what was answered before stays."""
    with small_disk(t, "256m") as place:
        program, dialog = counter(t, argv=[subject("udp_counter")], store=os.path.join(place, "store"))
        port = free_port()
        big = t.program([subject("big_turn"), str(port)], store=os.path.join(place, "big"))
        asks = UdpDialog(big, port)
        t.at_end(asks.close)
        big.expected_messages = ["(?i)full|room|space|ENOSPC"]
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
        if BARE:
            raise Skip("without libken there is no store")
        port = free_port()
        big = t.program([subject("big_turn"), str(port)], store=os.path.join(place, "big"))
        asks = UdpDialog(big, port)
        t.at_end(asks.close)
        big.expected_messages = ["(?i)full|room|space|ENOSPC"]
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
        if BARE:
            raise Skip("without libken there is no store")
        port = free_port()
        big = t.program([subject("big_turn"), str(port)], store=os.path.join(place, "big"))
        asks = UdpDialog(big, port)
        t.at_end(asks.close)
        big.expected_messages = ["(?i)full|room|space|ENOSPC"]
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
