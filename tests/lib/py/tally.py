#!/usr/bin/env python3
"""Adds up what several kinds of tests counted: tally.py BUILD-DIRECTORY|SUMMARY-FILE...

A build directory stands for meson's last test run in it; a summary file holds "PASSED FAILED SKIPPED". One
that is missing is a failure: its tests did not get to run. The last line is the total over everything.
"""

import json
import os
import sys


def meson(directory):
    passed = failed = skipped = 0
    with open(os.path.join(directory, "meson-logs", "testlog.json")) as log:
        for line in log:
            result = json.loads(line)["result"]
            if result in ("OK", "EXPECTEDFAIL"):
                passed += 1
            elif result == "SKIP":
                skipped += 1
            else:
                failed += 1
    return passed, failed, skipped


def main():
    total = [0, 0, 0]
    for path in sys.argv[1:]:
        try:
            if os.path.isdir(path):
                counts = meson(path)
            else:
                with open(path) as summary:
                    counts = tuple(int(word) for word in summary.read().split())
            print("%s: %d passed, %d failed, %d skipped" % ((path,) + tuple(counts)))
        except (OSError, ValueError):
            print("%s: its tests did not get to run" % path)
            counts = (0, 1, 0)
        total = [a + b for a, b in zip(total, counts)]
    print("%d passed, %d failed" % (total[0], total[1]))
    return 1 if total[1] or not total[0] else 0


if __name__ == "__main__":
    sys.exit(main())
