"""Real programs with libkenalloc.so preloaded (the allocator alone): they must do what they do without it."""
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import unittest

LIBRARY = os.path.abspath(sys.argv.pop(1))

PYTHON = """
import os, random, threading
def work(n):
    r, d = random.Random(n), {}
    for i in range(20000):
        d[r.randrange(3000)] = 'x' * r.randrange(3000), [i] * r.randrange(20)
    return sum(len(v[0]) for v in d.values())
sums = {}
ts = [threading.Thread(target=lambda i=i: sums.update({i: work(i)})) for i in range(6)]
[t.start() for t in ts]; [t.join() for t in ts]
pid = os.fork()
if pid == 0:
    os._exit(0 if work(3) == sums[3] else 1)
print(sorted(sums.items()), os.waitpid(pid, 0)[1])
"""
SQL = """create table t(a, b);
with recursive c(x) as (select 1 union all select x + 1 from c where x < 50000)
insert into t select x, hex(zeroblob(x % 100)) from c;
create index i on t(b); select count(*), sum(length(b)) from t;"""
GUILE = """(let loop ((i 0) (l '()))
  (if (< i 200000) (loop (+ i 1) (if (= 0 (modulo i 999)) '() (cons (number->string i) l)))
      (begin (display (length l)) (newline))))"""
CPP = """#include <iostream>
#include <map>
#include <regex>
int main() { std::map<int, std::string> m; for (int i = 0; i < 9999; i++) m[i * 7 % 5000] += "ab";
  std::cout << m.size() << std::regex_match("axxb", std::regex("a.*b")) << "\\n"; }
"""


def run(command, library, limit=None):
    env = dict(os.environ, **({"LD_PRELOAD": library} if library else {}))
    limits = (lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit))) if limit else None
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, preexec_fn=limits)
    return done.returncode, done.stdout, done.stderr


class Programs(unittest.TestCase):
    def same(self, *command):
        if not shutil.which(command[0]):
            self.skipTest(command[0] + " is not installed")
        with_it, without = run(command, LIBRARY), run(command, None)
        self.assertEqual(with_it, without)
        self.assertEqual(with_it[0], 0)

    def test_python_with_threads_and_fork(self):
        self.same("python3", "-c", PYTHON)

    def test_sqlite(self):
        self.same("sqlite3", ":memory:", SQL)

    def test_guile(self):
        self.same("guile", "--no-auto-compile", "-c", GUILE)

    def test_lua(self):
        self.same("lua5.4", "-e", "local t = {} for i = 1, 2e5 do t[i % 5000] = ('x'):rep(i % 300) end print(#t)")

    def test_gawk(self):
        self.same("gawk", "BEGIN { for (i = 0; i < 200000; i++) a[i % 7000] = a[i % 7000] i; print length(a) }")

    def test_compiler(self):
        with tempfile.TemporaryDirectory() as directory:
            source, program = directory + "/t.cc", directory + "/t"
            with open(source, "w", encoding="ascii") as f:
                f.write(CPP)
            self.same("g++", "-O1", "-o", program, source)
            self.same(program)

    def test_little_address_space(self):
        code = "try:\n bytearray(1 << 30)\nexcept MemoryError: print('refused')\nprint(len(bytearray(9 << 20)))"
        for mib in (400, 2000):
            status, out, err = run(["python3", "-c", code], LIBRARY, mib << 20)
            self.assertEqual(status, 0, err)
            self.assertIn("9437184", out)

    def test_double_free_is_told(self):
        code = ("import ctypes; c = ctypes.CDLL(None); c.malloc.restype = ctypes.c_void_p; "
                "p = ctypes.c_void_p(c.malloc({0})); c.free(p); c.free(p)")
        for size in (40, 5000, 4000000):
            status, _, err = run(["python3", "-c", code.format(size)], LIBRARY)
            self.assertEqual(status, -6)
            self.assertRegex(err, r"^ken: double free: 0x")


if __name__ == "__main__":
    unittest.main(verbosity=1)
