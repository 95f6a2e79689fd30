#!/usr/bin/env python3
"""Plugs, transfers, unplugs, reconnects and resets for a long time: soak.py [--minutes=N] [--cycles=N]

One qrdp (the ordinary build, confined) with one machine; client after client brings a stick and a keyboard.
After each cycle, when nobody is connected and every slot is free again, qrdp's memory, descriptors and threads
are read. They must be where they were after the first cycles; the exit status is 1 if they are not, or if
anything did not work.
"""

import argparse
import hashlib
import os
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE]

import qrdp  # noqa: E402
import rig  # noqa: E402
import standin  # noqa: E402
from proc import threads  # noqa: E402
from wait import wait_for  # noqa: E402

STICK, KEYBOARD = standin.IDS["stick"], standin.IDS["keyboard"]
WARM_UP = 3  # cycles until every cache and pool has been filled once
ALLOWED_KB = 4096
MEGABYTES = 8
RESET_EVERY, KILL_EVERY, PULL_EVERY = 5, 2, 3


class Soak:
    def __init__(self):
        self.rig = rig.Rig()
        self.rig.setUp()
        self.server, self.vm = self.rig.run_vm(program=qrdp.plain_binary(), log_level="info",
                                               append="vt.global_cursor_default=0")
        self.image = self.rig.stick(megabytes=32)
        self.counts = dict.fromkeys(("cycles", "plugs", "pulls", "resets", "kills", "clients", "bytes"), 0)
        self.readings = []
        self.usb, self.client = None, None

    def close(self):
        self.rig.doCleanups()

    def connect(self):
        self.usb = standin.Standin(self.rig.dir, [])
        # One display and log for each, or they would pile up here.
        self.client = self.rig.client(self.server, args=["/usb:id:%s#%s" % (STICK, KEYBOARD)],
                                      env=self.usb.env, name="client")
        self.counts["clients"] += 1

    def plug(self):
        name = self.usb.plug(standin.spec("stick", image=self.image))
        self.counts["plugs"] += 1
        return name, self.vm.agent.wait_mount()[0]

    def transfer(self, place):
        """Writes and reads back, past the guest's cache."""
        data = hashlib.sha256(os.urandom(16)).hexdigest()
        out = self.vm.agent.shell(
            "cd %s && yes %s | head -c %d > f && sync && md5sum < f && echo 3 > /proc/sys/vm/drop_caches && "
            "md5sum < f && rm f && sync" % (place, data, MEGABYTES << 20), seconds=180).split()
        if len(out) != 4 or out[0] != out[2]:
            raise AssertionError("what was written came back as something else: %r" % out)
        self.counts["bytes"] += 2 * MEGABYTES << 20

    def pull(self, name, place):
        """The stick goes in the middle of a transfer."""
        before = self.usb.log(name).get("ep81.bytes", 0)
        self.vm.agent.shell("echo 3 > /proc/sys/vm/drop_caches; "
                            "(dd if=$(grep %s /proc/mounts | cut -d' ' -f1) of=/dev/null bs=1M "
                            "</dev/null >/dev/null 2>&1 &)" % place)
        wait_for(lambda: self.usb.log(name).get("ep81.bytes", 0) > before + (1 << 20), 60, "the guest to read")
        self.counts["pulls"] += 1

    def unplug(self, name):
        self.usb.unplug(name)
        self.vm.agent.wait_usb(STICK, present=False)
        self.vm.agent.wait_mount(0)

    def reset(self):
        """With a stick plugged in: the guest finds it again."""
        name, _ = self.plug()
        self.vm.qmp.command("system_reset")
        self.vm.agent.ready(120)
        self.transfer(self.vm.agent.wait_mount()[0])
        self.unplug(name)
        self.counts["resets"] += 1

    def leave(self):
        """Politely or not, with devices plugged in."""
        self.usb.plug(standin.spec("keyboard"))
        self.vm.agent.wait_usb(KEYBOARD, "usbhid")
        self.plug()
        self.usb.close()
        if self.counts["cycles"] % KILL_EVERY == 0:
            self.client.process.signal(signal.SIGKILL)
            self.counts["kills"] += 1
        self.client.stop()
        self.vm.agent.wait_usb(KEYBOARD, present=False)
        self.vm.agent.wait_mount(0)

    def cycle(self):
        self.connect()
        name, place = self.plug()
        self.transfer(place)
        if self.counts["cycles"] % PULL_EVERY == 0:
            self.pull(name, place)
        self.unplug(name)
        if self.counts["cycles"] % RESET_EVERY == RESET_EVERY - 1:
            self.reset()
        self.leave()
        self.counts["cycles"] += 1
        self.readings.append(self.read())

    def idle(self):
        status = self.server.status()
        return not status["clients"] and status["usb"]["free"] == status["usb"]["slots"] and \
            not status["usb"]["devices"]

    def read(self):
        """(KiB of anonymous memory, descriptors, threads) of a qrdp that nobody uses."""
        wait_for(self.idle, 60, lambda: "nobody and nothing left: %r" % self.server.status())
        pid = self.server.process.pid
        main = threads(pid)
        memory = int(next(iter(main.values()))["RssAnon"].split()[0])
        return memory, len(os.listdir("/proc/%d/fd" % pid)), len(main)

    def verdict(self):
        """Sentences about what has grown."""
        base, rest = self.readings[WARM_UP - 1:2 * WARM_UP - 1], self.readings[-WARM_UP:]
        if len(self.readings) < 3 * WARM_UP:  # what is compared must not overlap
            return ["only %d cycles: nothing can be said about growth" % len(self.readings)]
        found = []
        grown = min(r[0] for r in rest) - min(b[0] for b in base)
        if grown > ALLOWED_KB:
            found.append("memory grew by %d KiB" % grown)
        for i, what in ((1, "descriptors"), (2, "threads")):
            if min(r[i] for r in rest) > max(b[i] for b in base):
                found.append("%s: %d at first, %d now" % (what, max(b[i] for b in base), min(r[i] for r in rest)))
        return found

    def tell(self, seconds):
        memory, descriptors, n = self.readings[-1]
        print("soak: %d s, cycle %d: %.1f MiB, %d descriptors, %d threads" % (
            seconds, self.counts["cycles"], memory / 1024, descriptors, n), flush=True)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--cycles", type=int, default=0, help="end after so many")
    args = parser.parse_args(arguments)
    os.environ["QRDP_BINARY"] = qrdp.plain_binary()  # for passwd and status, too
    started = time.monotonic()
    soak = Soak()
    try:
        while time.monotonic() - started < args.minutes * 60 and \
                (not args.cycles or soak.counts["cycles"] < args.cycles):
            soak.cycle()
            soak.tell(time.monotonic() - started)
        bad = soak.verdict()
        base = soak.readings[min(WARM_UP, len(soak.readings)) - 1]
        print("soak: %d s; %s; MiB %.1f -> %.1f, descriptors %d -> %d, threads %d -> %d: %s" % (
            time.monotonic() - started, ", ".join("%d %s" % (v, k) for k, v in soak.counts.items()),
            base[0] / 1024, soak.readings[-1][0] / 1024, base[1], soak.readings[-1][1], base[2],
            soak.readings[-1][2], "; ".join(bad) or "flat"))
        return 1 if bad else 0
    finally:
        soak.close()


if __name__ == "__main__":
    sys.exit(main())
