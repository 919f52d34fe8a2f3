#!/usr/bin/python3
"""The names in the source: points.py [FAULT|MUTANT] prints all crash points, or all mutants, one a line."""
import os
import re
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
KINDS = {"FAULT": r'\bFAULT(?:_DUE)?\("([^"]+)"\)', "MUTANT": r'\bMUTANT\("([^"]+)"'}


def names(kind):
    found = []
    for room in ("heap", "net", "shim"):
        for name in sorted(os.listdir(os.path.join(ROOT, room))):
            if not name.endswith((".c", ".h")) or name == "fault.h":
                continue
            with open(os.path.join(ROOT, room, name)) as f:
                found += re.findall(KINDS[kind], f.read())
    return list(dict.fromkeys(found))


if __name__ == "__main__":
    print("\n".join(names(sys.argv[1] if sys.argv[1:] else "FAULT")))
