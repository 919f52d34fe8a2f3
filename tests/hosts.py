"""Two hosts for system tests: network namespaces with addresses of their own, and a link between them.

    hosts = Hosts(t)                                 a link that can be pulled out
    hosts = Hosts(t, bad="loss 20; delay 1 5")       one that loses, doubles, swaps and delays packets (fault/bad_link.c)
    hosts.program(1, [...], key)                     a program under libken on the second host
"""
import ctypes
import os
import shutil
import subprocess

import harness
from harness import *

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Hosts:
    """Two namespaces; 10.77.0.1 and 10.77.0.2, fd77::1 and fd77::2."""

    def __init__(self, t, bad=None):
        if os.geteuid() != 0 or not shutil.which("ip"):
            raise Skip("network namespaces need root and ip")
        self.t, self.home = t, os.open("/proc/self/ns/net", os.O_RDONLY)
        self.names, self.emulator = [f"ken{os.getpid()}{c}" for c in "ab"], None
        t.at_end(self.remove)
        try:
            for name in self.names:
                ip("netns", "add", name)
                ip("-n", name, "link", "set", "lo", "up")
            if bad is None:
                ip("link", "add", "ken0", "netns", self.names[0], "type", "veth", "peer", "name", "ken0", "netns", self.names[1])
            else:
                self.start_emulator(bad)
            for i, name in enumerate(self.names):
                ip("-n", name, "link", "set", "ken0", "up")
                self.add_address(i, f"10.77.0.{i + 1}")
                self.add_address(i, f"fd77::{i + 1}")
        except subprocess.CalledProcessError as e:
            raise Skip(f"network namespaces are not permitted here: {e.stderr.strip()}") from None

    def start_emulator(self, settings):
        self.emulator = subprocess.Popen([subject("bad_link"), str(harness.SEED)] + [f"/run/netns/{n}" for n in self.names],
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if self.emulator.stdout.readline() != "ready\n":
            raise Skip(f"no TUN devices here: {self.emulator.stderr.read().strip()}")
        self.order(*settings.split(";"))

    def order(self, *commands):
        """Commands of bad_link; returns the last answer."""
        answer = ""
        for command in commands:
            self.emulator.stdin.write(command.strip() + "\n")
            self.emulator.stdin.flush()
            answer = self.emulator.stdout.readline().strip()
            check(answer and answer != "what?", f"bad_link does not obey '{command}'")
        return answer

    def remove(self):
        for p in self.t.programs:
            p.stop()
        if self.emulator:
            self.emulator.stdin.close()
            self.emulator.wait()
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        os.close(self.home)

    def within(self, host, action):
        fd = os.open(f"/run/netns/{self.names[host]}", os.O_RDONLY)
        check(libc.setns(fd, CLONE_NEWNET) == 0, "setns")
        try:
            return action()
        finally:
            check(libc.setns(self.home, CLONE_NEWNET) == 0, "setns")
            os.close(fd)

    def add_address(self, host, address):
        width = ("/64", "nodad") if ":" in address else ("/24",)
        ip("-n", self.names[host], "addr", "add", address + width[0], "dev", "ken0", *width[1:])

    def remove_address(self, host, address):
        ip("-n", self.names[host], "addr", "del", address + ("/64" if ":" in address else "/24"), "dev", "ken0")

    def link(self, up):
        if self.emulator:
            self.order("heal" if up else "cut")
        else:
            ip("-n", self.names[0], "link", "set", "ken0", "up" if up else "down")

    def program(self, host, argv, key=None, peers="10.77.0.0/24 fd77::/64", out=None, names=None, linger=None, **kw):
        """`names`: a file that is the program's /etc/hosts; `linger`: KEN_LINGER, on a bad link."""
        env = {} if peers is None else {"KEN_PEERS": peers}
        if self.emulator:  # a bad link may take long over the last words, and in the long suite it is down for a minute
            env["KEN_LINGER"] = linger or ("150" if LONG else "40")
        if key:
            env["KEN_KEY_FILE"] = key
        p = self.t.program(argv, start=False, env=env, stdout=out, **kw)
        if names:
            see_names(p, names)
        start = p.start
        p.start = p.restart = lambda: self.within(host, start)
        return p.start()


def see_names(p, names):
    """The program is started in a mount namespace of its own, with another /etc/hosts; libken only sees its exec."""
    preloads = [f"{k}={p.env.pop(k)}" for k in ("LD_PRELOAD", "KEN_STORE") if k in p.env]
    script = 'mount --bind "$1" /etc/hosts && shift && exec env "$@"'
    p.argv = ["/usr/bin/unshare", "-m", "--propagation", "private", "/bin/sh", "-c", script, "sh", names] + preloads + p.argv


def make_key(t, name="key"):
    path = os.path.join(t.dir, name)
    with open(path, "wb", opener=lambda p, f: os.open(p, f, 0o600)) as f:
        f.write(os.urandom(32))
    return path


def lines_of(path):
    with open(path, errors="replace") as f:
        return f.read().splitlines()


def wait_until(condition, what, seconds=PATIENCE):
    deadline = time.monotonic() + seconds
    while not condition():
        check(time.monotonic() < deadline, f"not within {seconds:.0f} s: {what}")
        time.sleep(0.01)
