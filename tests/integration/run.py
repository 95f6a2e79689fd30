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
if "--full" in sys.argv[1:]:
    os.environ["QRDP_TEST_FULL"] = "1"  # read when rig is imported

import rig  # noqa: E402


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


class Fixtures:
    """What a class of tests shares (setUpClass): made before its first test, undone after its last."""

    def __init__(self):
        self.owner, self.failed = None, False

    def enter(self, cls):
        """Makes what cls needs if that is not there yet; what went wrong, or ""."""
        if cls is self.owner or getattr(cls, "__unittest_skip__", False):
            return ""
        try:
            cls.setUpClass()
        except unittest.SkipTest:
            return ""  # the tests are skipped for the same reason
        except Exception:
            detail = traceback.format_exc()
            cls.doClassCleanups()
            return detail
        self.owner, self.failed = cls, False
        return ""

    def leave(self):
        """Undoes; what went wrong, or ""."""
        cls, self.owner = self.owner, None
        if not cls:
            return ""
        cls.tearDownClass()
        cls.doClassCleanups()
        return "".join("".join(traceback.format_exception(*e)) for e in cls.tearDown_exceptions)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--full", action="store_true", help="also the tests that take long")
    parser.add_argument("--keep", action="store_true", help="keep the directories of passed tests")
    parser.add_argument("--list", action="store_true", help="only name the tests")
    parser.add_argument("--summary", help="write 'PASSED FAILED SKIPPED' to this file")
    parser.add_argument("words", nargs="*", help="run only tests with one of these in their name")
    options = parser.parse_args()
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
    fixtures = Fixtures()
    for number, test in enumerate(tests, 1):
        cls = type(test)
        print("[%d/%d] %s" % (number, len(tests), test.id()), flush=True)
        result, start = Result(), time.monotonic()
        trouble = fixtures.enter(cls)
        if not trouble:
            test.run(result)
        if result.outcome == "FAILED" or trouble:
            fixtures.failed = True
        directories = [getattr(test, "dir", None)]
        failed = fixtures.failed
        if number == len(tests) or type(tests[number]) is not cls:
            trouble += fixtures.leave()
            directories.append(getattr(getattr(cls, "shared", None), "dir", None))
        if trouble:
            result.outcome, result.detail = "FAILED", result.detail + trouble
        counts[result.outcome] += 1
        print("      %s, %.1f s%s" % (result.outcome, time.monotonic() - start,
                                      ": " + result.detail if result.outcome == "skipped" else ""),
              flush=True)
        if result.outcome == "FAILED":
            print("".join("      | %s\n" % line for line in result.detail.splitlines()), end="")
        for index, directory in enumerate(d for d in directories if d):
            if result.outcome == "FAILED" or (index and failed):
                print("      its logs are in " + directory, flush=True)
            elif not options.keep:
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
