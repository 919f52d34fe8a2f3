"""The soft-dirty tracker on a kernel that has soft-dirty bits and nothing newer: Debian 12's, in a virtual machine.

Skipped unless scripts/guest finds what it needs (qemu-system-x86, cpio, a kernel: `scripts/guest --fetch`).
"""
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ["KEN_BUILD"]
TEST = os.path.join(BUILD, "tests", "test_tracker")


def skip(reason):
    print("SKIP guest_softdirty: " + reason)
    print("0 passed, 0 failed, 1 skipped")
    sys.exit(77)


def main():
    if not os.path.exists(TEST):
        skip("test_tracker is not built (criterion is missing)")
    guest = subprocess.run([os.path.join(ROOT, "scripts", "guest"), "--timeout", "240", "--", TEST, "--jobs=1",
                            "--color=never"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if guest.returncode == 77:
        skip(guest.stdout.strip().splitlines()[-1].replace("SKIP guest: ", ""))
    output = re.sub(r"\x1b\[[0-9;]*m", "", guest.stdout)
    print(output.replace("SKIP ", "guest: SKIP "))
    counts = re.findall(r"Tested: (\d+) \| Passing: (\d+)", output)
    ran = "no softdirty" not in output
    passed = int(counts[-1][1]) if counts else 0
    failed = int(counts[-1][0]) - passed if counts else 0
    if guest.returncode != 0 and not failed or not ran or passed == 0:
        print("the guest ended with %d; soft-dirty tested: %s" % (guest.returncode, ran))
        failed += 1
    print("%d passed, %d failed, 0 skipped" % (passed, failed))
    sys.exit(1 if failed else 0)


main()
