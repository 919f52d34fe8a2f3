"""Runs modules of unittest and writes each test's outcome: run_unittest.py REPORT MODULE[:TEST...] ...

A line of the report is `<outcome> <test>`; the outcome is ok, skipped, FAILED or expected. The report is written at
the end, so a report without the line `done` is that of a run that died. With tests named, only they run.
"""
import sys

del sys.path[0]  # the other subjects: one is called numbers, as a module of the library
import unittest

outcomes = []


class Result(unittest.TestResult):
    def __init__(self, *a, **kw):
        super().__init__(*a, **kw)
        self.marked = {}

    def mark(self, test, outcome):
        self.marked.setdefault(test.id(), outcome)

    def addSubTest(self, test, subtest, error):
        if error is not None:
            self.mark(test, "FAILED")
        super().addSubTest(test, subtest, error)

    def addSuccess(self, test):
        self.mark(test, "ok")

    def addSkip(self, test, reason):
        self.mark(test, "skipped")

    def addExpectedFailure(self, test, error):
        self.mark(test, "expected")

    def addError(self, test, error):
        self.mark(test, "FAILED")
        super().addError(test, error)

    def addFailure(self, test, error):
        self.mark(test, "FAILED")
        super().addFailure(test, error)


def main():
    from test import support
    support.use_resources = []  # nothing that needs the network or much time
    suite = unittest.TestSuite()
    for wanted in sys.argv[2:]:
        module, _, tests = wanted.partition(":")
        module = "test." + module
        if tests:
            suite.addTests(unittest.defaultTestLoader.loadTestsFromName(name) for name in tests.split(","))
        else:
            suite.addTests(unittest.defaultTestLoader.loadTestsFromName(module))
    result = Result()
    suite.run(result)
    with open(sys.argv[1], "w") as report:
        for test, outcome in sorted(result.marked.items()):
            report.write(f"{outcome} {test}\n")
        for test, text in result.errors + result.failures:
            report.write("# " + str(test) + "\n" + "".join(f"#   {line}\n" for line in text.splitlines()))
        report.write("done\n")


if __name__ == "__main__":
    main()
