#!/usr/bin/env python3
"""Runs the fuzz targets with libFuzzer: fuzz.py BUILD [--seconds=N] [--jobs=N] [NAME...]

Each target runs --seconds (600), --jobs (2) at a time, from the committed corpus and from what earlier runs
found (BUILD/corpus/NAME). Inputs that crash, hang or leak are kept in BUILD/crashes. The table at the end can
be pasted into docs/testing.md; the exit status is 1 if anything was found.
"""

import argparse
import glob
import os
import re
import subprocess
import sys
import time

from wait import wait_for

BASE = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", ".."))
PROGRESS_SECONDS = 30
STATUS = re.compile(rb"^#(\d+)\s+\S+\s+cov: (\d+) ft: (\d+) corp: (\d+)", re.M)


class Target:
    def __init__(self, build, name, seconds):
        self.name, self.seconds = name, seconds
        self.program = os.path.join(build, "tests", "fuzz", "fuzz-" + name)
        self.found = os.path.join(build, "corpus", name)
        self.log_path = os.path.join(build, "fuzz-%s.log" % name)
        self.crashes = os.path.join(build, "crashes", name + "-")
        os.makedirs(self.found, exist_ok=True)
        os.makedirs(os.path.dirname(self.crashes), exist_ok=True)
        self.before = set(glob.glob(self.crashes + "*"))
        self.child, self.started, self.spent = None, 0, 0

    def start(self):
        seeds = os.path.join(BASE, "tests", "fuzz", "corpus", self.name)
        env = dict(os.environ, ASAN_OPTIONS="detect_leaks=1:allocator_may_return_null=1",
                   UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1")
        with open(self.log_path, "wb") as log:
            self.child = subprocess.Popen(
                ["nice", self.program, "-max_total_time=%d" % self.seconds, "-timeout=60",
                 "-rss_limit_mb=3000", "-print_final_stats=1", "-artifact_prefix=" + self.crashes,
                 self.found, seeds], stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env)
        self.started = time.monotonic()

    def done(self):
        if self.child.poll() is None:
            return False
        self.spent = time.monotonic() - self.started
        return True

    def figures(self):
        """(executions, edges reached, inputs in the corpus) so far."""
        with open(self.log_path, "rb") as log:
            log.seek(max(0, os.path.getsize(self.log_path) - 65536))
            text = log.read()
        last = STATUS.findall(text)
        runs, edges, _, corpus = (int(v) for v in last[-1]) if last else (0, 0, 0, 0)
        final = re.search(rb"number_of_executed_units: (\d+)", text)
        return int(final.group(1)) if final else runs, edges, corpus

    def findings(self):
        return sorted(set(glob.glob(self.crashes + "*")) - self.before)

    def failed(self):
        return self.child.returncode != 0 or bool(self.findings())


def names(build):
    found = sorted(os.path.basename(p)[len("fuzz-"):] for p in glob.glob(
        os.path.join(build, "tests", "fuzz", "fuzz-*")) if os.access(p, os.X_OK) and os.path.isfile(p))
    if not found:
        sys.exit("fuzz: there are no targets in %s" % build)
    return found


def choose(build, wanted):
    known = names(build)
    unknown = [w for w in wanted if w not in known]
    if unknown:
        sys.exit("fuzz: there is no target %s: use %s" % (unknown[0], ", ".join(known)))
    return wanted or known


def progress(running, waiting):
    print("fuzz: %s%s" % ("; ".join("%s %d runs, %d edges, %d s left" % (
        (t.name,) + t.figures()[:2] + (max(0, t.seconds - (time.monotonic() - t.started)),))
        for t in running), "; %d to come" % waiting if waiting else ""), flush=True)


def run(targets, jobs):
    waiting, running = list(targets), []
    told = time.monotonic()
    while waiting or running:
        while waiting and len(running) < jobs:
            running.append(waiting.pop(0))
            running[-1].start()
        ended = wait_for(lambda: [t for t in running if t.done()] or
                         time.monotonic() - told > PROGRESS_SECONDS, 2 * PROGRESS_SECONDS, "news")
        if time.monotonic() - told > PROGRESS_SECONDS:
            progress(running, len(waiting))
            told = time.monotonic()
        for target in ended if isinstance(ended, list) else ():
            running.remove(target)
            print("fuzz: %s %s after %d s, %d runs" % (
                target.name, "FAILED" if target.failed() else "done", target.spent, target.figures()[0]),
                flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("build")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("names", nargs="*")
    args = parser.parse_intermixed_args()
    if args.seconds < 1 or args.jobs < 1:
        parser.error("--seconds and --jobs are numbers from 1 on")
    targets = [Target(args.build, name, args.seconds) for name in choose(args.build, args.names)]
    print("fuzz: %d targets, %d s each, %d at a time: about %d minutes" % (
        len(targets), args.seconds, args.jobs, -(-len(targets) * args.seconds // args.jobs // 60)), flush=True)
    run(targets, args.jobs)
    print("| target | seconds | runs | edges | corpus | found |\n|---|---|---|---|---|---|")
    for t in targets:
        print("| %s | %d | %d | %d | %d | %s |" % ((t.name, t.spent) + t.figures() + (
            ", ".join(os.path.relpath(f, BASE) for f in t.findings()) or
            ("see " + t.log_path if t.failed() else "nothing"),)))
    bad = [t for t in targets if t.failed()]
    print("fuzz: %d runs in all, %d of %d targets found something" % (
        sum(t.figures()[0] for t in targets), len(bad), len(targets)))
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
