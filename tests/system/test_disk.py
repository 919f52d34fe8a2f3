#!/usr/bin/python3
"""Disks that fail and fill up under a store, on ext4 on a loop device: real errors of a real file system."""
import contextlib
import fcntl
import os
import struct
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *
from pairs import wait_until

EXT4_IOC_SHUTDOWN = 0x8004587D  # ext4.h: from now on everything there is EIO
NO_FLUSH = 2  # nor is its journal written out


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Skip(f"{command[0]}: {done.stderr.strip()}")


class Disk:
    """A file system that can be shut down, and mounted again."""

    def __init__(self, t, megabytes):
        self.file, self.place = os.path.join(t.dir, "disk.ext4"), os.path.join(t.dir, "disk")
        if BARE:
            raise Skip("without libken there is no store")
        need_root_tool("mkfs.ext4")
        os.mkdir(self.place)
        with open(self.file, "wb") as f:
            f.truncate(megabytes << 20)
        run("mkfs.ext4", "-q", "-F", self.file)
        t.at_end(self.leave)
        self.mount()

    def mount(self):
        run("mount", "-o", "loop", self.file, self.place)

    def shut_down(self):
        fd = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_FLUSH))
        except OSError as error:
            raise Skip(f"ext4 cannot be shut down here: {error}")
        finally:
            os.close(fd)

    def again(self):
        """The loop device goes a moment after the mount: mount(8) would take it once more, and lose it then."""
        subprocess.run(["umount", self.place], check=True)
        wait_until(lambda: not subprocess.run(["losetup", "-j", self.file], capture_output=True).stdout, "the end of the loop device")
        self.mount()

    def leave(self):
        subprocess.run(["umount", "-l", self.place], capture_output=True)


def need_root_tool(name):
    if not shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin"):
        raise Skip(f"{name} is not installed")
    os.environ["PATH"] += ":/usr/sbin:/sbin"


def counter(t, disk, **kw):
    port = free_port()
    program = t.program([subject("udp_counter"), str(port)], store=os.path.join(disk.place, "store"), **kw)
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    for n in range(1, 6):
        check(dialog.ask("INC a") == f"a {n}", "it miscounts")
    return program, dialog


def ended_with_one_line(program):
    program.expected_messages = [".*"]
    status = program.wait_gone()
    said = [m for m in program.messages() if not RESUME.match(m)]
    check(status == 75, f"it ended with {status}: {program.tail()}")
    check(len(said) == 1 and "EIO" in said[0], f"it said: {said}")


@case
def fails_under_load(t):
    """EIO at a commit: it ends, saying so; when the disk works again, what was answered is there."""
    disk = Disk(t, 64)
    program, dialog = counter(t, disk)
    for answered in (5, 7):
        disk.shut_down()
        dialog.socket.send(f"{dialog.seq + 1} INC a".encode())
        ended_with_one_line(program)
        disk.again()
        program.expected_messages = []
        program.restart()
        for n in (1, 2):
            answer = dialog.ask("INC a")
            check(answer == f"a {answered + n}", f"after {answered} it goes on with '{answer}'")


@case
def fails_at_the_start(t):
    """EIO while it resumes: a line, nothing is begun afresh, and the next start goes on."""
    disk = Disk(t, 64)
    program, dialog = counter(t, disk)
    program.kill9()
    disk.shut_down()
    program.restart()
    ended_with_one_line(program)
    disk.again()
    program.expected_messages = []
    program.restart()
    check(dialog.ask("INC a") == "a 6", "it lost count")


def waits(program):
    return sum("waiting for room" in line for line in program.messages())


def fill(path):
    """A file takes all the room there is, to the last block. What the file system holds back for blocks that it has yet to
    choose, and blocks of files that are gone, become free with the next fsync(): others would find them."""
    with open(path, "wb", buffering=0) as f:
        took = True
        while took:
            took = False
            for piece in (1 << 20, 4096):
                with contextlib.suppress(OSError):
                    while f.write(b"x" * piece):
                        took = True
            with contextlib.suppress(OSError):
                os.fsync(f.fileno())


@case
def fills_up(t):
    """Others fill the disk: it waits, says so once, and goes on when they make room. Killed while it waits, too."""
    disk = Disk(t, 96)
    port = free_port()
    big = t.program([subject("big_turn"), str(port)], store=os.path.join(disk.place, "store"))
    dialog = UdpDialog(big, port)
    t.at_end(dialog.close)
    dialog.ask("fill 4 1")
    for kills in (False, True):
        other = os.path.join(disk.place, "other")
        fill(other)
        big.expected_messages = ["waiting for room", "has room again"]
        dialog.socket.send(f"{dialog.seq + 1} fill {20 + kills} 2".encode())
        deadline = time.monotonic() + PATIENCE
        while waits(big) <= kills:
            check(big.process.poll() is None and time.monotonic() < deadline, f"it does not wait: {big.tail()}")
            time.sleep(0.01)
        time.sleep(0.5)
        check(waits(big) == 1 + kills, f"it said {big.messages()}")
        if kills:
            big.kill9()
        os.unlink(other)
        if kills:
            big.restart()
        before = dialog.ask(f"fill {20 + kills} 2")
        check(before.split()[0] == str((20 + kills) << 17), f"with room it answered '{before}'")
        if not kills:
            wait_until(lambda: any("has room again" in line for line in big.messages()), "the word that there is room")
    big.kill9()
    big.restart()
    check(dialog.ask("sum") == before, "what was answered is lost")


main()
