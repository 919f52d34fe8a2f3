#!/usr/bin/python3
"""libken on Debian's stock kernels in a virtual machine: 6.1 has soft-dirty bits and nothing newer.

Part of the long suite (scripts/check --long installs qemu and fetches the kernels). Nothing here is a fast machine: qemu
translates each instruction. Two kinds of CPU, all features that qemu knows and hardly any.
"""
import glob
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *

GUEST = os.path.join(ROOT, "scripts", "guest")
KERNELS = os.environ.get("KEN_GUEST_DIR", os.path.join(ROOT, "build-guest"))
CPUS = {"max": "max", "plain": "qemu64"}
LIMIT = 900
# The short suite's core, a few kills each: (script, case).
CORE = (("counters", "udp_counter"), ("counters", "tcp_counter"), ("memory", "kitchen"), ("interpreters", "gawk"),
        ("process", "files"), ("process", "signals"), ("ends", "killed_by_term"), ("lines", "line_server_stdin"),
        ("channel", "take_a_number"), ("channel", "take_a_number_over_tcp"))
# And these scripts as they are, with two kills each; programs that are not in the guest are skipped there.
WHOLE = ("counters", "lines", "memory", "names", "output", "process", "ends", "events", "exec", "privileges", "interpreters")
WHOLE_LIMIT = 1500
TOOLS = "uname gawk lua5.4 sqlite3 bc bash cat sleep true tr env dirname grep head stty seq".split()


def kernel(version):
    """The lowest of that series which scripts/guest --fetch left."""
    names = sorted(name for name in os.listdir(KERNELS) if name.startswith(f"vmlinuz-{version}.")) if os.path.isdir(KERNELS) else []
    if not names:
        raise Skip(f"no kernel {version}; scripts/guest --fetch gets one")
    return os.path.join(KERNELS, names[0])


def guest(t, command, *options, version="6.1", extra=(), env=(), limit=LIMIT):
    """Runs a shell command in the guest; returns its output and status."""
    if not LONG and len(sys.argv) < 2:
        raise Skip("part of the long suite")
    python_library = f"/usr/lib/python{sys.version_info[0]}.{sys.version_info[1]}"
    paths = [os.path.join(ROOT, "tests"), os.path.join(BUILD, "tests"), os.path.join(BUILD, "scripts"), LIB, PYTHON, python_library,
             *extra]
    paths += [word for word in command.split() if os.access(word, os.X_OK)]
    arguments = [word for path in paths if os.path.exists(path) for word in ("--with", path)]
    variables = {"KEN_BUILD": BUILD, "KEN_KILLS": "4", "KEN_PATIENCE": "120", "KEN_SEED": str(SEED), **dict(env)}
    for name, value in variables.items():
        arguments += ["--env", f"{name}={value}"]
    done = subprocess.run([GUEST, "--kernel", kernel(version), "--timeout", str(limit), "--memory", "2500", *options, *arguments, "--",
                           "/bin/sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode == 77:
        raise Skip(done.stdout.strip().splitlines()[-1].replace("SKIP guest: ", ""))
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout), done.returncode


@case(limit=LIMIT)
def tracker(t):
    """The unit tests of the trackers, where there are soft-dirty bits."""
    tests = [f"{BUILD}/tests/test_{name}" for name in ("tracker", "tracker_random")]
    output, status = guest(t, " && ".join(f"{test} --jobs=1 --color=never" for test in tests), extra=tests)
    counts = re.findall(r"Tested: (\d+) \| Passing: (\d+)", output)
    check(status == 0 and len(counts) == len(tests) and int(counts[0][1]) > 5, f"status {status}: {output[-2000:]}")
    check("no softdirty" not in output, "soft-dirty bits were not tested")
    t.note(", ".join(f"{passed} of {tested} passed" for tested, passed in counts))


@case(limit=LIMIT)
def lending(t):
    """Before Linux 6.5 another code of the kernel's takes the pages of a pipe to a UNIX socket."""
    tests = [f"{BUILD}/tests/test_lending"]
    output, status = guest(t, f"{tests[0]} --jobs=1 --color=never; {PYTHON} {ROOT}/tests/system/test_motion.py copy_to_and_fro", extra=tests)
    counts = re.search(r"Tested: (\d+) \| Passing: (\d+) \| Failing: 0", output)
    check(counts and int(counts[2]) >= 6 and "1 passed, 0 failed" in output, f"status {status}: {output[-3000:]}")
    t.note(" ".join(re.findall(r"NOTE (.*)", output)))


def core(t, cpu):
    command = "cd /tmp; uname -r; " + "; ".join(f"{PYTHON} {ROOT}/tests/system/test_{script}.py {name}" for script, name in CORE)
    extra = [path for path in ("/usr/bin/uname", shutil.which("gawk")) if path]
    output, _ = guest(t, command, "--cpu", CPUS[cpu], extra=extra)
    passed, failed = len(re.findall(r"^ok ", output, re.M)), len(re.findall(r"^FAIL ", output, re.M))
    skipped = len(re.findall(r"^SKIP ", output, re.M))
    check(not failed and passed + skipped == len(CORE) and passed > 6, f"{passed} passed, {skipped} skipped of {len(CORE)}: {output[-4000:]}")
    t.note(f"{output.split()[0]}: {passed} passed, {skipped} skipped")


for cpu in CPUS:
    add_case(f"core_on_cpu_{cpu}", lambda t, c=cpu: core(t, c), LIMIT)


@case(limit=WHOLE_LIMIT)
def whole_scripts(t):
    """The short suite's scripts about one process, every case of them."""
    command = "cd /tmp; uname -r; " + "; ".join(f"echo script {script}; {PYTHON} {ROOT}/tests/system/test_{script}.py" for script in WHOLE)
    extra = [path for path in map(shutil.which, TOOLS) if path] + [f"{BUILD}/scripts/kenctl"] + glob.glob("/usr/lib/*/libanl.so.1")
    output, _ = guest(t, command, extra=extra, env={"KEN_KILLS": "2", "KEN_PATIENCE": "240"}, limit=WHOLE_LIMIT)
    totals = [tuple(map(int, total)) for total in re.findall(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", output, re.M)]
    failures = re.findall(r"^FAIL .*(?:\n    .*)*", output, re.M)
    check(len(totals) == len(WHOLE) and not failures, f"{len(totals)} of {len(WHOLE)} scripts came to their end: " +
          ("\n".join(failures) or output[-2000:]))
    passed, _, skipped = map(sum, zip(*totals))
    why = "; ".join(re.findall(r"^SKIP (.*)$", output, re.M))
    check(passed > 40, f"{passed} passed, {skipped} skipped: {why}")
    t.note(f"{output.split()[0]}: {passed} passed, {skipped} skipped ({why})")


def moves(t, made_on, resumed_on):
    """A store that was made on one kernel is resumed on another, whose vdso is another."""
    script, taken = os.path.join(ROOT, "tests", "guest_store.py"), os.path.join(t.dir, "taken")
    output, status = guest(t, f"{PYTHON} {script} make {t.dir}", "--take", taken, "--cpu", "max", version=made_on)
    check(status == 0 and "done" in output, f"making: {output[-2000:]}")
    before = output.split()[0]
    output, status = guest(t, f"{PYTHON} {script} resume {t.dir}", "--cpu", "max", version=resumed_on, extra=[taken])
    check(status == 0 and "done" in output, f"resuming what {before} made: {output[-2000:]}")
    check(output.split()[0] != before, "it is the same kernel")
    t.note(f"{before} to {output.split()[0]}")


add_case("from_a_newer_kernel", lambda t: moves(t, "6.12", "6.1"), LIMIT)
add_case("from_an_older_kernel", lambda t: moves(t, "6.1", "6.12"), LIMIT)

main()
