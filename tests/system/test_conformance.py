#!/usr/bin/python3
"""Regression programs of others, with and without libken: the same tests pass.

A test counts as different when it passes bare and fails under libken, again and again: what fails now and then
bare as well says nothing. The programs: CPython's own tests (package libpython3.N-testsuite), the regression
programs of libevent and libuv, built from Debian's sources, the scenarios of redis from there, and exercises of our own for
malloc and pthreads.

KEN_LONG=1 runs all of it (minutes, needs the network for the sources); without it there is a part of each that is
quick. KEN_SOURCES names a directory where sources are kept and built; default: a scratch directory.
"""
import collections
import concurrent.futures
import contextlib
import glob
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *

LONG = os.environ.get("KEN_LONG") == "1"
os.environ["UV_RUN_AS_ROOT"] = "1"  # libuv's program refuses to run as root otherwise

# What differs, and why that is right or known. Each entry: a pattern of test names.
KNOWN = {
    "bufferevent/bufferevent_pair_release_lock":
        "takes the address of a freed lock for unused ever after; fails with jemalloc alone as well",
    "http/(data_length_constraints|read_on_write_error)":
        "wants the error of a write before the answer; output is held, so the answer is read first",
    ".*[.]test_above_fd_setsize":
        "opens all descriptors that the hard limit allows but 32; where that is below 65536, libken's own are missed",
    "udp_send_unreachable":
        "wants the error of a datagram at the next send; output is held, so it is met by the next receive",
}


def known(name):
    return next((why for pattern, why in KNOWN.items() if re.fullmatch(pattern, name)), None)


def run(t, argv, bare, timeout, tag):
    """Exit status, or None after `timeout` seconds; the output is in t.dir."""
    store = os.path.join(t.dir, f"store-{tag}")
    place = os.path.join(t.dir, f"run-{tag}")
    os.makedirs(place, exist_ok=True)
    env = {k: v for k, v in os.environ.items() if not k.startswith("KEN_") and k != "LD_PRELOAD"}
    if not bare:
        env.update(LD_PRELOAD=LIB, KEN_STORE=store)
    with open(os.path.join(t.dir, f"out-{tag}"), "wb") as out:
        process = subprocess.Popen(argv, env=env, cwd=place, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                   start_new_session=True)
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
            shutil.rmtree(store, ignore_errors=True)
            shutil.rmtree(place, ignore_errors=True)


def last_words(t, tag, lines=6):
    with open(os.path.join(t.dir, f"out-{tag}"), errors="replace") as f:
        return " | ".join(f.read().strip().splitlines()[-lines:])[-600:]


def judge(t, name, passed, differences):
    """Ends a case: `differences` are (test, what happened) that held in every repetition."""
    check(passed, f"no test of {name} passes bare: nothing was compared")
    news = [(test, text) for test, text in differences if not known(test)]
    for test, text in differences:
        if known(test):
            t.note(f"known: {test} ({known(test)})")
    t.note(f"{name}: {passed} tests pass bare, {passed - len(differences)} of them under libken")
    check(not news, f"{len(news)} tests of {name} pass bare and fail under libken:"
          + "".join(f"\n    {test}: {text}" for test, text in news))


# --- programs of which each test is a run of its own ----------------------------------------------

def compare_runs(t, name, tests, timeout, repetitions=3, workers=2):
    """`tests`: {test: argv}. Compares exit statuses."""
    def outcome(test, bare, attempt):
        tag = f"{re.sub(r'[^a-z0-9]+', '-', test, flags=re.I)}-{'bare' if bare else 'ken'}{attempt}"
        return run(t, tests[test], bare, timeout, tag), tag

    def one(test):
        if outcome(test, True, 0)[0] != 0:
            return None
        for attempt in range(repetitions):
            status, tag = outcome(test, False, attempt)
            if status == 0:
                return ""
            if outcome(test, True, attempt + 1)[0] != 0:
                return None  # fails bare as well, now and then
        text = f"status {status}" if status is not None else f"not done after {timeout} s"
        return f"{text}: {last_words(t, tag)}"

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        results = dict(zip(tests, pool.map(one, tests)))
    judge(t, name, sum(r is not None for r in results.values()),
          [(test, r) for test, r in results.items() if r])


# --- our own exercises ----------------------------------------------------------------------------------

def exercise(t, name, commands, kills):
    """The answers are those of a twin that runs bare and is not killed."""
    twin = Twin(t, lambda port: [subject(name), str(port)])
    port = free_port()
    program = t.program([subject(name), str(port)])
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    t.killed_while(program, Traffic(dialog, commands, twin.answer), kills=kills)


def pthread_commands(t):
    kinds = [f"mutex {kind}" for kind in range(4)] + ["robust", "rwlock", "barrier", "worker", "worker", "timeout",
                                                      "cancel", "detach", "pipe", "clock", "timer", "breed"]
    yield "breed"  # from then on threads begin and end while others commit
    while True:
        yield t.random.choice(kinds)


def malloc_commands(t):
    while True:
        yield "refuse" if t.random.random() < 0.1 else f"step {t.random.randrange(1 << 30)}"


@case
def pthreads(t):
    exercise(t, "pthread_kinds", pthread_commands(t), 0)


@case
def pthreads_killed(t):
    exercise(t, "pthread_kinds", pthread_commands(t), KILLS)


DESCRIPTORS = "eventfd signal timer inotify pair message memfd unix epoll dup option pipe move lock vfork".split()


@case
def descriptors(t):
    exercise(t, "descriptor_kinds", (t.random.choice(DESCRIPTORS) for _ in iter(int, 1)), 0)


@case
def descriptors_killed(t):
    exercise(t, "descriptor_kinds", (t.random.choice(DESCRIPTORS) for _ in iter(int, 1)), KILLS)


@case
def allocations(t):
    exercise(t, "malloc_kinds", malloc_commands(t), 0)


@case
def allocations_killed(t):
    exercise(t, "malloc_kinds", malloc_commands(t), KILLS)


# --- CPython ------------------------------------------------------------------------------------------

def python_report(t, what, bare, timeout, tag):
    """{test: outcome}, the texts of failures, and the exit status."""
    path = os.path.join(t.dir, f"report-{tag}")
    status = run(t, [PYTHON, subject("run_unittest.py"), path, *what], bare, timeout, tag)
    lines = open(path).read().splitlines() if os.path.exists(path) else []
    outcomes = dict(reversed(line.split(" ", 1)) for line in lines if line[:1].isalpha() and " " in line)
    return outcomes, "\n".join(line for line in lines if line.startswith("#")), status


def compare_python(t, module, names=(), timeout=300 if LONG else 100):
    what = [f"{module}:{','.join(f'test.{module}.{n}' for n in names)}" if names else module]
    bare, _, status = python_report(t, what, True, timeout, "bare")
    if not bare:
        raise Skip(f"test.{module} does not run here bare (status {status}): is its package libpython3.N-testsuite installed?")
    passed = {test for test, outcome in bare.items() if outcome == "ok"}
    ken, texts, status = python_report(t, what, False, timeout, "ken")
    check(ken, f"test.{module} under libken: status {status}: {last_words(t, 'ken')}")
    differences = []
    for test in sorted(passed):
        if ken.get(test) == "ok":
            continue
        for attempt in range(3):
            again, texts, _ = python_report(t, [f"{module}:{test}"], False, timeout, f"ken-{attempt}")
            if again.get(test) == "ok" or python_report(t, [f"{module}:{test}"], True, timeout, "again")[0].get(test) != "ok":
                break
        else:
            differences.append((test, f"{ken.get(test, 'not run')}\n{texts}"))
    judge(t, module, len(passed), differences)


QUICK_PYTHON = {
    "test_select": (),
    "test_selectors": ("EpollSelectorTestCase.test_select", "EpollSelectorTestCase.test_selector",
                       "PollSelectorTestCase.test_selector", "SelectSelectorTestCase.test_selector"),
    "test_threading": ("ThreadTests.test_various_ops", "PyRLockTests", "EventTests.test_notify", "BarrierTests.test_action"),
    "test_signal": ("PosixTests", "WakeupSocketSignalTests"),
    "test_subprocess": ("ProcessTestCase.test_communicate", "POSIXProcessTestCase.test_terminate",
                        "POSIXProcessTestCase.test_preexec"),
    "test_socket": ("BasicUDPTest", "BasicTCPTest", "BasicSocketPairTest", "SendmsgTCPTest"),
    "test_os": ("FileTests", "PidTests", "EventfdTests", "TestSendfile"),
}
# The rest of test_socket, without what asks for the network or hangs where there is no vsock.
SOCKET = ("GeneralModuleTests", "BasicTCPTest", "BasicUDPTest", "SendmsgUDPTest", "RecvmsgUDPTest", "RecvmsgIntoUDPTest",
          "SendmsgTCPTest", "RecvmsgTCPTest", "RecvmsgIntoTCPTest", "SendmsgUnixStreamTest", "RecvmsgUnixStreamTest",
          "RecvmsgSCMRightsStreamTest", "RecvmsgSCMRightsUnixStreamTest", "RecvmsgIntoSCMRightsUnixStreamTest",
          "RecvmsgEINTRTest", "SendmsgEINTRTest", "TCPCloserTest", "BasicSocketPairTest", "NonBlockingTCPTests",
          "FileObjectClassTestCase", "UnbufferedFileObjectClassTestCase", "NetworkConnectionNoServer", "TCPTimeoutTest",
          "UDPTimeoutTest", "TestExceptions", "TestLinuxAbstractNamespace", "TestUnixDomain", "BufferIOTest",
          "SendfileUsingSendTest", "SendfileUsingSendfileTest", "InheritanceTest", "NonblockConstantTest", "SendRecvFdsTests")


def python_case(module):
    def case_of(t):
        names = QUICK_PYTHON[module] if not LONG else SOCKET if module == "test_socket" else ()
        compare_python(t, module, names)
    add_case(f"cpython_{module}", case_of, limit=1200 if LONG else 60)


for module_name in QUICK_PYTHON:
    python_case(module_name)


# --- libevent and libuv, from Debian's sources ----------------------------------------------------------

def source_of(t, package, shows="CMakeLists.txt"):
    """The unpacked source, which has a file `shows`. A private list of sources: the machine's own may have no deb-src."""
    kept = os.environ.get("KEN_SOURCES") or t.dir
    found = glob.glob(os.path.join(kept, package + "*", shows))
    if found:
        return os.path.dirname(found[0])
    need("apt-get"), need("dpkg-source")
    lists = os.path.join(t.dir, "lists")
    os.makedirs(os.path.join(lists, "partial"), exist_ok=True)
    with open(os.path.join(t.dir, "deb-src.list"), "w") as f:
        f.write("deb-src http://deb.debian.org/debian bookworm main\n")
    apt = ["apt-get", "-qq", "-o", f"Dir::Etc::sourcelist={t.dir}/deb-src.list", "-o", "Dir::Etc::sourceparts=-",
           "-o", f"Dir::State::lists={lists}", "-o", f"Dir::Cache={t.dir}/cache"]
    for command in (["update"], ["source", "--only-source", package]):
        done = subprocess.run(apt + command, cwd=kept, capture_output=True, text=True)
        if done.returncode:
            raise Skip(f"apt-get {command[0]} of Debian's sources failed: {done.stderr.strip()[-200:]}")
    return os.path.dirname(glob.glob(os.path.join(kept, package + "*", shows))[0])


def built(t, package, target, *options):
    """The directory in which `target` of the package was built."""
    need("cmake")
    source = source_of(t, package)
    build = os.path.join(source, "b")
    if not glob.glob(f"{build}/**/{target}", recursive=True):
        for command in (["cmake", "-S", source, "-B", build, "-DCMAKE_BUILD_TYPE=Release", *options],
                        ["cmake", "--build", build, "--target", target, "-j2"]):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                raise Skip(f"{package} cannot be built: {done.stderr.strip()[-300:]}")
    return build


def long_only():
    if not LONG:
        raise Skip("takes minutes: set KEN_LONG=1")


def libevent(t):
    """Each test in a process of its own, and within it (the program would fork, and libken protects no children)."""
    long_only()
    build = built(t, "libevent", "regress", "-DEVENT__DISABLE_OPENSSL=ON", "-DEVENT__DISABLE_BENCHMARK=ON",
                  "-DEVENT__DISABLE_SAMPLES=ON", "-DEVENT__LIBRARY_TYPE=SHARED")
    program = os.path.join(build, "bin", "regress")
    listed = subprocess.run([program, "--list-tests"], capture_output=True, text=True).stdout.split()
    compare_runs(t, "libevent", {test: [program, "--no-fork", test] for test in listed if "/" in test}, 20)


def libuv(t):
    """The tests that need no helper processes: `NAME NAME` runs one of them right in the process."""
    long_only()
    program = os.path.join(built(t, "libuv1", "uv_run_tests"), "uv_run_tests")
    listed = subprocess.run([program, "--list"], capture_output=True, text=True).stdout.split()
    compare_runs(t, "libuv", {test: [program, test, test] for test in listed}, 20)


# Without those that only show the version, and those that need a cluster, TLS, another allocator, or the network.
REDIS_UNITS = """dump auth protocol keyspace scan info info-command type/string type/incr type/list type/list-3 type/set type/zset
    type/hash type/stream type/stream-cgroups sort expire other multi quit aofrw acl acl-v2 latency-monitor pubsub pubsubshard
    slowlog scripting functions maxmemory introspection introspection-2 limits obuf-limits bitops bitfield geo hyperloglog
    lazyfree wait pause tracking shutdown networking client-eviction violations replybufsize""".split()
REDIS_SECONDS = 600  # for one unit


def redis_suite(t, source, bare):
    """A tree like that of the sources, in which the suite finds the installed server: as it is, or under libken, each time with
    a store of its own."""
    place = os.path.join(t.dir, "bare" if bare else "ken")
    shutil.copytree(source, place, copy_function=os.symlink)
    for name in ("redis-server", "redis-cli", "redis-benchmark"):
        path = os.path.join(place, "src", name)
        if os.path.lexists(path):
            os.unlink(path)
        if name != "redis-server" or bare:
            os.symlink(need(name), path)
    if not bare:
        with open(path := os.path.join(place, "src", "redis-server"), "w") as f:
            f.write(f"""#!/bin/sh
KEN_STORE=$(mktemp -d {t.dir}/store.XXXXXX)/store KEN_SYNC=process LD_PRELOAD={LIB} exec {need("redis-server")} "$@"
""")  # a quarter of a million commands, one after the other: nobody cuts the power here
        os.chmod(path, 0o755)
    return place


def redis_unit(t, place, unit):
    """How often each test passes, by name, and what kept the unit from its end, or None."""
    path = os.path.join(t.dir, f"out-{os.path.basename(place)}-{unit.replace('/', '-')}")
    with open(path, "wb+") as out:
        client = subprocess.Popen([need("tclsh"), "tests/test_helper.tcl", "--single", f"unit/{unit}", "--baseport", str(free_port()),
                                   "--portcount", "100", "--tags", "-slow -large-memory"], cwd=place, stdin=subprocess.DEVNULL,
                                  stdout=out, stderr=out, start_new_session=True)
        try:
            status = client.wait(REDIS_SECONDS)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(client.pid, signal.SIGKILL)
            client.wait()
            for store in glob.glob(f"{t.dir}/store.*"):
                shutil.rmtree(store, ignore_errors=True)
        out.seek(0)
        text = re.sub(r"\x1b\[[0-9;]*m", "", out.read().decode(errors="replace"))
    passed = collections.Counter(re.findall(r"^\[ok\]: (.*?)(?: \(\d+ ms\))?$", text, re.M))
    if f"[1/1 done]: unit/{unit}" in text:
        return passed, None
    return passed, f"not done after {REDIS_SECONDS} s" if status is None else f"ended early: {text.strip()[-300:]}"


def redis_differences(t, unit, trees, bare, broken):
    """What a unit has bare and not under libken; that fails now and then bare as well says nothing."""
    ken, ken_broken = redis_unit(t, trees[1], unit)
    if not bare - ken and (broken or not ken_broken):
        return []
    again, ken_broken = redis_unit(t, trees[1], unit)
    bare_again, broken = redis_unit(t, trees[0], unit)
    missing = (bare - ken) & (bare - again) & (bare_again - again)
    whole = [(f"{unit}: as a whole", ken_broken)] if ken_broken and not broken else []
    return whole + [(f"{unit}: {name}", f"see {t.dir}/out-ken-{unit.replace('/', '-')} (KEN_KEEP=failed)") for name in missing]


def redis(t):
    """The scenarios of redis's own test suite, with servers that it starts, stops and kills itself."""
    long_only()
    source = source_of(t, "redis", "runtest")
    trees, passed, done, differences = [redis_suite(t, source, bare) for bare in (True, False)], 0, 0, []
    for unit in REDIS_UNITS:
        bare, broken = redis_unit(t, trees[0], unit)
        news = redis_differences(t, unit, trees, bare, broken)
        passed, done, differences = passed + bare.total(), done + bool(bare and not broken), differences + news
        print(f"     redis {unit}: {bare.total()} pass bare{f', then {broken}' if broken else ''}, {len(news)} differ", flush=True)
    t.note(f"{len(REDIS_UNITS)} units, {done} came to their end bare with tests that pass")
    judge(t, "redis", passed, differences)


add_case("redis", redis, limit=3000)
add_case("libevent", libevent, limit=3000)
add_case("libuv", libuv, limit=3000)


main()
