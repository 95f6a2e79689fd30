#!/usr/bin/env python3
"""Runs the integration tests one after another: run.py [--full] [--keep] [--summary=FILE] [WORD...]

A WORD selects the tests whose name (test_file.Class.test_name) contains it. Every test gets a directory of
its own for logs and sockets; that of a failed test is kept and named. The last line counts.
"""

import argparse
import os
import sys
import tempfile
import time
import traceback
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "lib", "py"), HERE]


def flatten(suite):
    for item in suite:
        if isinstance(item, unittest.TestSuite):
            yield from flatten(item)
        else:
            yield item


class Result(unittest.TestResult):
    """Collects the outcome of one test."""

    def __init__(self):
        super().__init__()
        self.outcome, self.detail = "ok", ""

    def addSkip(self, test, reason):
        self.outcome, self.detail = "skipped", reason

    def _bad(self, error):
        self.outcome = "FAILED"
        self.detail += "".join(traceback.format_exception(*error))

    def addError(self, test, error):
        self._bad(error)

    def addFailure(self, test, error):
        self._bad(error)

    def addSubTest(self, test, subtest, error):
        if error:
            self._bad(error)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--full", action="store_true", help="also the tests that take long")
    parser.add_argument("--keep", action="store_true", help="keep the directories of passed tests")
    parser.add_argument("--list", action="store_true", help="only name the tests")
    parser.add_argument("--summary", help="write 'PASSED FAILED SKIPPED' to this file")
    parser.add_argument("words", nargs="*", help="run only tests with one of these in their name")
    options = parser.parse_args()
    if options.full:
        os.environ["QRDP_TEST_FULL"] = "1"
    base = tempfile.mkdtemp(prefix="qrdp-")
    os.environ["QRDP_TEST_TMP"] = base

    tests = [t for t in flatten(unittest.TestLoader().discover(HERE, "test_*.py", HERE))
             if not options.words or any(w in t.id() for w in options.words)]
    if options.list:
        for test in tests:
            print(test.id())
        os.rmdir(base)
        return 0
    counts = {"ok": 0, "FAILED": 0, "skipped": 0}
    for number, test in enumerate(tests, 1):
        print("[%d/%d] %s" % (number, len(tests), test.id()), flush=True)
        result, start = Result(), time.monotonic()
        test.run(result)
        counts[result.outcome] += 1
        print("      %s, %.1f s%s" % (result.outcome, time.monotonic() - start,
                                      ": " + result.detail if result.outcome == "skipped" else ""),
              flush=True)
        directory = getattr(test, "dir", None)
        if result.outcome == "FAILED":
            print("".join("      | %s\n" % line for line in result.detail.splitlines()), end="")
            if directory:
                print("      its logs are in " + directory, flush=True)
        elif directory and not options.keep:
            import rig
            rig.remove(directory)
    try:
        os.rmdir(base)
    except OSError:
        pass  # something was kept
    if options.summary:
        with open(options.summary, "w") as summary:
            summary.write("%(ok)d %(FAILED)d %(skipped)d\n" % counts)
    print("integration: %(ok)d passed, %(FAILED)d failed, %(skipped)d skipped" % counts)
    if not tests:
        print("no test was selected")
    return 0 if tests and not counts["FAILED"] else 1


if __name__ == "__main__":
    sys.exit(main())
