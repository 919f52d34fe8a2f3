#!/usr/bin/python3
"""What libken.so shows to the programs it is loaded into: the names of shim/interpose.def, no more."""
import os
import subprocess
import sys

os.environ["KEN_BARE"] = "1"  # nothing is run here
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *


def symbols(*options):
    lines = subprocess.run(["nm", "-D", *options, LIB], capture_output=True, text=True, check=True).stdout
    return {line.split()[-1].split("@")[0]: line.split()[-2] for line in lines.splitlines()}


def listed():
    """CALL(type, name, ...), CHECKED(type, name, ...), TWIN(name, ...), OWN(name)."""
    text = re.sub(r"/\*.*?\*/", "", open(os.path.join(ROOT, "shim", "interpose.def")).read(), flags=re.S)
    names = set()
    for macro, first, second in re.findall(r"^(\w+)\(([^,()]+)(?:,\s*(\w+))?", text, re.M):
        names.add(second if macro in ("CALL", "CHECKED") else first.strip())
    return names


@case
def exports(t):
    have = {name for name, kind in symbols("--defined-only").items() if kind != "A"}
    want = listed()
    check(len(want) > 20, "interpose.def was not understood")
    check(have == want, f"exported but not listed: {sorted(have - want)}; listed but not exported: {sorted(want - have)}")


@case
def needs_only_libc(t):
    out = subprocess.run(["readelf", "-d", LIB], capture_output=True, text=True, check=True).stdout
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", out))
    check(needed <= {"libc.so.6", "ld-linux-x86-64.so.2"}, f"it needs {sorted(needed)}")
    check("INITFIRST" in out, "its constructor does not run first (-z initfirst)")
    check("TEXTREL" not in out, "its text is relocated")


main()
