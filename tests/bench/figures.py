"""What the benchmarks share: figures on stdout, progress on stderr."""

import os
import sys
import time


def progress(text):
    print("bench: " + text, file=sys.stderr, flush=True)


def figure(name, value, unit):
    print("%s %s %s" % (name, ("%.3g" if value < 100 else "%.0f") % value, unit), flush=True)


def percentile(values, percent):
    """The value that percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def run_seconds(pid):
    """Processor time of a process, finer than the ticks of /proc: its clock (clock_getcpuclockid(3))."""
    return time.clock_gettime(~pid << 3 | 2)


def memory_mb(pid):
    """Where the memory of a process is: {"Rss": ..., "Pss_Anon": ..., "Pss_File": ..., "Pss_Shmem": ...}."""
    with open("/proc/%d/smaps_rollup" % pid) as rollup:
        lines = rollup.read().splitlines()[1:]
    return {line.partition(":")[0]: int(line.split()[1]) * 1024 / 1e6 for line in lines}


def keep_priority(pid):
    """Gives a process the priority that nice(1) gave us.

    It begins a session of its own, and where Linux groups processes by session (sched_autogroup), niceness
    counts within a session only.
    """
    if os.nice(0) < 0:
        try:
            with open("/proc/%d/autogroup" % pid, "w") as group:
                group.write("%d" % os.nice(0))
        except OSError:
            pass  # no such groups
