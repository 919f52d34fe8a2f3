#!/usr/bin/python3
"""kenrun by itself, with a stand-in for libken: what it is told, what it refuses, and where it finds its parts."""
import os
import shutil
import signal
import stat
import subprocess
import sys

os.environ["KEN_BARE"] = "1"  # the harness need not look for libken
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *
from kenruns import *

@case
def what_libken_cannot_enter_is_refused(t):
    k = Kenrun(t)
    static = compile_c(t, "static", "int main(void) { return 0; }", "-static")
    expect(k.run("./static"), 126, "kenrun: ./static: statically linked")
    compile_c(t, "static-pie", "int main(void) { return 0; }", "-static-pie")
    expect(k.run("./static-pie"), 126, "statically linked")
    compile_c(t, "setuid", "int main(void) { return 0; }")
    for bit, text in ((stat.S_ISUID, "set-uid"), (stat.S_ISGID, "set-gid")):
        os.chmod(os.path.join(t.dir, "setuid"), 0o755 | bit)
        expect(k.run("./setuid"), 126, text)
    with open(os.path.join(t.dir, "script"), "w") as f:
        f.write(f"#!{static} -x\n")
    os.chmod(os.path.join(t.dir, "script"), 0o755)
    expect(k.run("./script"), 126, f"its interpreter {static}: statically linked")
    with open(os.path.join(t.dir, "plain"), "w") as f:
        f.write("echo hello\n")
    expect(k.run("./plain"), 126, "not an executable file")
    os.chmod(os.path.join(t.dir, "plain"), 0o755)
    expect(k.run("./plain"), 126, "neither an ELF program nor a script")
    expect(k.run("/"), 126, "not an executable file")
    expect(k.run("./nothing"), 127, "kenrun: ./nothing: not found")
    expect(k.run("no-such-command"), 127, "not found")
    check(k.lines() == [], "something was run all the same")


@case
def options(t):
    k = Kenrun(t)
    for wrong in (["--wrong"], ["-x"], [], ["--store"], ["--store", "", "true"], ["--restarts", "x", "true"],
                  ["--restarts=", "true"], ["--restarts", "9" * 20, "true"], ["--sync", "never", "true"], ["--fresh"], ["--"]):
        expect(k.run(*wrong), 64, "usage: kenrun")
    code, out, _ = k.run("--help")
    check(code == 0 and out.startswith("usage: kenrun"), "--help")
    code, out, _ = k.run("--version")
    check(code == 0 and out.split()[0] == "kenrun" and out.split()[1][0].isdigit(), f"--version: {out!r}")
    expect(k.run("--store=/x/y", "--sync=power", "true"), 0)
    k.env.update(KEN_FRESH="1", KEN_STORE="rel", KEN_SYNC="process", LD_PRELOAD="")
    expect(k.run("sh", "-c", "[ -e b ] && exit 3; touch b; kill -9 $$"), 3)
    want = ["true fresh=- store=/x/y sync=power", f"sh fresh=1 store={t.dir}/rel sync=process",
            f"sh fresh=- store={t.dir}/rel sync=process"]
    for line, text in zip(k.lines(), want):
        check(line.startswith(text), f"{line!r} is not {text!r}")


NASTY = ("", " ", "a b", "*", "$(touch owned)", "`touch owned`", "; touch owned", "'", '"', "\\", "\n", "--", "--store", "-x", "=",
         "%s%n", "\udcff\udcfe", "é", "x" * 5000, "$HOME", "&", "|touch owned", "!!", "~", "-n", "\t", "#")
NO_NUMBER = tuple(text for text in NASTY if text not in ("--store", "--")) + ("-1", "1e3", "0x10", "1 2", "+5", "٣")


def random_arguments(rng):
    """Arguments of kenrun and what they mean: (options, the command's own arguments or None when kenrun must refuse)."""
    good = lambda name, value: rng.choice(([f"{name}={value}"], [name, value]))
    options, right = [], True
    for _ in range(rng.randrange(5)):
        kind = rng.randrange(4)
        if kind == 0:
            name = "".join(rng.choice(("d", " ", "$x", "*", "'", '"', "é", ";", "=")) for _ in range(rng.randrange(1, 6)))
            options += good("--store", "/nowhere/" + name)
        elif kind == 1:
            options += good("--restarts", rng.choice(("0", "7", "08", "123456789")))
        elif kind == 2:
            options += good("--sync", rng.choice(("power", "process")))
        else:
            options += ["--fresh"]
    if rng.random() < 0.5:
        right = False
        at = rng.choice(("--restarts", "--kills", "--every", "--chaos", "--sync", "--store", "unknown"))
        if at == "unknown":
            options += [rng.choice(("-", "--")) + rng.choice(("x", "Store", "fresh=1", "restart", "storee=/x", "\udcff", "$(touch owned)"))]
        elif at == "--store":
            options += rng.choice((["--store="], ["--store", ""]))
        elif at == "--sync":
            options += good(at, rng.choice([text for text in NO_NUMBER if text] + ["Power", "power "]))
        else:
            options += [f"{at}={rng.choice(NO_NUMBER)}"]
    if rng.random() < 0.5:
        options.append("--")
    return options, [rng.choice(NASTY) for _ in range(rng.randrange(6))] if right else None


@case(limit=600)
def any_arguments(t):
    """Random ones: they are refused with the usage, or the command gets its own byte for byte; nothing else is run."""
    k = Kenrun(t)
    show = k.script('for a; do printf "%s\\0" "$a"; done\n', "show")
    runs = 3000 if LONG else 80
    counts = [0, 0]
    for _ in range(runs):
        options, own = random_arguments(t.random)
        words = [os.fsencode(word) for word in options + [show] + (own or [])]
        done = subprocess.run([k.kenrun, *words], cwd=t.dir, env=k.env, stdin=subprocess.DEVNULL, capture_output=True, timeout=20)
        if own is None:
            check(done.returncode == 64 and b"usage: kenrun" in done.stderr and not done.stdout,
                  f"{words} is not refused: {done.returncode} {done.stderr[:200]}")
        else:
            check(done.returncode == 0 and not done.stderr, f"{words}: {done.returncode} {done.stderr[:200]}")
            check(done.stdout == b"".join(os.fsencode(word) + b"\0" for word in own), f"{words} arrive as {done.stdout[:200]}")
        counts[own is None] += 1
        check(not os.path.exists(os.path.join(t.dir, "owned")), f"{words} ran a command of their own")
    t.note(f"{counts[0]} run, {counts[1]} refused")


@case
def the_library(t):
    k = Kenrun(t)
    other = compile_c(t, "libother.so", "int other;", "-shared", "-fPIC")
    k.env["LD_PRELOAD"] = other
    expect(k.run("true"), 0)
    check(k.lines()[-1].endswith(f"preload={k.library}:{other}"), f"LD_PRELOAD: {k.lines()}")
    del k.env["LD_PRELOAD"]
    k.env["KEN_LIB"] = "libstand.so"  # relative to where we are
    expect(k.run("true"), 0)
    check(k.lines()[-1].endswith(f"preload={k.library}"), f"LD_PRELOAD: {k.lines()}")
    k.env["KEN_LIB"] = os.path.join(t.dir, "missing.so")
    expect(k.run("true"), 69, "missing.so")
    os.mkdir(os.path.join(t.dir, "a b"))
    os.symlink(k.library, os.path.join(t.dir, "a b", "lib.so"))
    k.env["KEN_LIB"] = os.path.join(t.dir, "a b", "lib.so")
    expect(k.run("true"), 69, "space")


@case
def the_tree_and_the_installed_place(t):
    """Without KEN_LIB: ../build/libken.so of where the script really is, or where it was installed with kenrun."""
    k = Kenrun(t)
    os.makedirs(os.path.join(t.dir, "tree", "scripts"))
    os.makedirs(os.path.join(t.dir, "tree", "build"))
    shutil.copy(KENRUN, os.path.join(t.dir, "tree", "scripts", "kenrun"))
    os.symlink(os.path.join(t.dir, "tree", "scripts", "kenrun"), os.path.join(t.dir, "link"))
    k.kenrun = os.path.join(t.dir, "link")
    del k.env["KEN_LIB"]
    expect(k.run("true"), 69, "libken.so is not built")
    for place in ("lib/x86_64-linux-gnu", "lib64", "lib", "build"):
        os.makedirs(os.path.join(t.dir, "tree", place), exist_ok=True)
        shutil.copy(k.library, os.path.join(t.dir, "tree", place, "libken.so"))
        expect(k.run("true"), 0)
        check(k.lines()[-1].endswith(f"preload={t.dir}/tree/{place}/libken.so"), f"{k.lines()}")


@case
def without_kenctl(t):
    shutil.copy(KENRUN, os.path.join(t.dir, "kenrun"))
    k = Kenrun(t, kenrun=os.path.join(t.dir, "kenrun"), kenctl=None)
    expect(k.run(k.script(DYING), "KILL", "3", "5"), 5)
    expect(k.run("sh", "-c", "exit 3"), 3)
    expect(k.run("sh", "-c", "exit 75"), 75)  # whose end it is, nobody can tell
    expect(k.run("no-such-command"), 127)
    p = listener(k, "0", "SIGINT")
    p.send_signal(signal.SIGINT)
    check(ended(p) == 9, f"SIGINT: status {p.returncode}")
    if shutil.which("readelf"):
        compile_c(t, "static", "int main(void) { return 0; }", "-static")
        expect(k.run("./static"), 126, "statically linked")


main()
