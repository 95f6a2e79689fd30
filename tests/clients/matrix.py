#!/usr/bin/env python3
"""Clients against features: matrix.py TREES [--keep] [WORD...]

TREES holds the directories that trees.sh makes. A WORD selects clients (3.15) and features (stick); none
selects all. A line per cell while it runs, then the table, then the count. Exit status 1 if a cell failed.
"""

import argparse
import os
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, "..", "lib", "py"), os.path.join(HERE, "..", "integration"), HERE]

import features  # noqa: E402
import rig  # noqa: E402
import run  # noqa: E402
from stock import clients  # noqa: E402


def rows():
    return [name for name in vars(features.Features) if name.startswith("test_")]


def cell(client, name, number, count):
    """Runs one test; its run.Result."""
    test = features.Features(name)
    test.stock = client
    print("[%d/%d] FreeRDP %s, %s" % (number, count, client.name, test.feature()), flush=True)
    result, start = run.Result(), time.monotonic()
    test.run(result)
    print("      %s, %.1f s%s" % (result.outcome, time.monotonic() - start,
                                  ": " + result.detail if result.outcome == "skipped" else ""), flush=True)
    if result.outcome == "FAILED":
        print("".join("      | %s\n" % line for line in result.detail.splitlines()), end="")
        print("      its logs are in " + test.dir, flush=True)
    elif getattr(test, "dir", None):
        rig.remove(test.dir)
    return result


def table(columns, names, results):
    """The table, and below it why a client cannot do something."""
    words = {"ok": "ok", "FAILED": "FAILED", "skipped": "cannot"}
    width = max(len(n) for n in names) - len("test_")
    print("\n%-*s" % (width + 2, "") + "".join("%-8s" % c.name for c in columns))
    notes = []
    for name in names:
        cells = []
        for client in columns:
            result = results[client.name, name]
            word = words[result.outcome]
            if result.outcome == "skipped":
                notes.append("%s, %s: cannot: %s" % (client.name, name[5:], result.detail))
                word += "(%d)" % len(notes)
            cells.append("%-8s" % word)
        print("%-*s" % (width + 2, name[5:]) + "".join(cells).rstrip())
    for number, note in enumerate(notes, 1):
        print("(%d) %s" % (number, note))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("trees")
    parser.add_argument("words", nargs="*", help="clients and features; all if none is named")
    options = parser.parse_args()
    columns, names = clients(options.trees), rows()
    chosen = [c for c in columns if c.name in options.words]
    picked = [n for n in names if any(w in n for w in options.words)]
    for word in options.words:
        if not any(word == c.name for c in columns) and not any(word in n for n in names):
            parser.error("there is no client and no feature %s" % word)
    columns, names = chosen or columns, picked or names

    os.environ["QRDP_TEST_TMP"] = base = tempfile.mkdtemp(prefix="qrdp-")
    fixtures, results = run.Fixtures(), {}
    trouble = fixtures.enter(features.Features)
    if trouble:
        print(trouble)
        print("0 passed, 1 failed: the machine did not start; logs are in " + base)
        return 1
    for at, client in enumerate(columns):
        for row, name in enumerate(names, 1):
            results[client.name, name] = cell(client, name, at * len(names) + row, len(columns) * len(names))
    trouble = fixtures.leave()
    table(columns, names, results)
    outcomes = [r.outcome for r in results.values()] + (["FAILED"] if trouble else [])
    if trouble:
        print(trouble)
    failed = outcomes.count("FAILED")
    if failed:
        print("the server's logs are in " + features.Features.shared.dir)
    else:
        rig.remove(base)
    print("%d passed, %d failed" % (outcomes.count("ok"), failed) +
          (", %d cannot be" % outcomes.count("skipped") if "skipped" in outcomes else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
