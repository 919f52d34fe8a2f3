#!/usr/bin/python3
"""Stores that are damaged, foreign or newer: a clear line on stderr, nothing lost, nothing overwritten."""
import contextlib
import ctypes
import ctypes.util
import mmap
import os
import re
import shutil
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import harness
from harness import *
from stores import *

# Where things are in `super` (heap/layout.h).
MAGIC, CHECKSUM, VERSION, BUILD, CPU, SUPER_BYTES = 0, 8, 16, 40, 64, 4096


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


main()
