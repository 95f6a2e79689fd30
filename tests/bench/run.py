#!/usr/bin/env python3
"""./dev bench: measures one qrdp (QRDP_BINARY) between a real QEMU and the stock client.

Figures go to stdout, one per line, as "name value unit"; what is being done goes to stderr. How each is
measured is in docs/benchmarks.md. Nothing here judges a figure. WORDs choose what is measured, by the
first part of the names: run.py usb cpu.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib", "py"))

import qemu
import qrdp
import rig
import standin
import xclient
import xprobe
from wait import wait_for

CONNECTS = 5
KEY_PRESSES = 200
ROUND_TRIPS = 2000   # of 512 bytes each way, so twice as many transfers
STICK_MB = 32
IDLE_SECONDS = 20
COLOUR = 0x3366cc    # of the still screen
STICK, LOOP = "1209:0001", "1209:0003"


def progress(text):
    print("bench: " + text, file=sys.stderr, flush=True)


def figure(name, value, unit):
    print("%s %s %s" % (name, ("%.3g" if value < 100 else "%.0f") % value, unit), flush=True)


def percentile(values, percent):
    """The value that percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


class Bench:
    def __init__(self, directory, stack):
        self.directory = directory
        os.mkdir(os.path.join(directory, "vm"))
        vm = os.path.join(directory, "vm")
        progress("starting the virtual machine")
        self.server = qrdp.Qrdp(vm, log_level="info", credentials=(rig.USER, rig.PASSWORD),
                                run=qemu.guest_arguments(vm, append="vt.global_cursor_default=0") + [
                                    "-qmp", "unix:%s/qmp2,server=on,wait=off" % vm])
        stack.callback(self.server.stop)
        self.vm = rig.RunningVm(vm)
        stack.callback(self.vm.close)
        self.agent = self.vm.agent
        self.display = xclient.Display(os.path.join(directory, "x"))
        stack.callback(self.display.stop)
        self.probe = xprobe.XProbe(self.display.name)
        stack.callback(self.probe.close)
        self.clients = 0

    def client(self, args=(), env=None):
        self.clients += 1
        return xclient.Client(self.display, self.directory, self.server.address, *self.server.credentials,
                              args=args, env=env, name="client%d" % self.clients)

    @contextlib.contextmanager
    def session(self, args=(), env=None):
        client = self.client(args, env)
        try:
            yield client.connect(60)
        finally:
            client.stop()

    def still(self):
        """The guest shows one colour, and nothing moves."""
        self.agent.drm("1280x800")
        self.agent.pattern("solid", "%06x" % COLOUR)

    # Each figure

    def connect(self):
        self.still()
        times = []
        for _ in range(CONNECTS):
            # In the middle of the screen, wherever the window comes up.
            self.probe.wait_pixel(960, 600, lambda c: c != COLOUR, 20)
            start = time.monotonic()
            client = self.client()
            try:
                times.append(self.probe.wait_pixel(960, 600, lambda c: c == COLOUR, 60) - start)
            finally:
                client.stop()
        figure("connect.first_frame", percentile(times, 50) * 1000, "ms")

    def input(self):
        self.still()
        with self.session() as client:
            x, y, size = self.agent.flip()
            x, y = x + size // 2, y + size // 2
            self.probe.wait_pixel(x, y, lambda c: c == 0, 20)
            client.focus()
            times = []
            for press in range(KEY_PRESSES):
                colour = 0 if press % 2 else 0xffffff
                start = self.probe.key("a", True)
                times.append(self.probe.wait_pixel(x, y, lambda c: c == colour, 10) - start)
                self.probe.key("a", False)
                time.sleep(0.01 + 0.0007 * (press % 29))  # not in step with anything
            self.agent.flip(False)
        figure("input.key_to_pixel.p50", percentile(times, 50) * 1000, "ms")
        figure("input.key_to_pixel.p95", percentile(times, 95) * 1000, "ms")

    def latencies(self):
        """What qrdp says of USB bytes: {"out": {longest microseconds: count}, "in": ...}."""
        for client in self.server.status()["clients"]:
            if "usb_latency_us" in client:
                return {way: dict(client["usb_latency_us"][way]["buckets"]) for way in ("out", "in")}
        return {"out": {}, "in": {}}

    def round_trips(self, name):
        """512 bytes to the loop device and back, again and again."""
        def total(sums):
            return sum(sums["out"].values()), sum(sums["in"].values())
        def settled():
            """qrdp's threads tell each other their sums every two seconds."""
            first = total(self.latencies())
            time.sleep(2.5)
            return total(self.latencies()) == first
        wait_for(settled, 30, "the USB bus to be silent")
        before = self.latencies()
        status, text = self.agent.run("usbloop %s 512 %d" % (LOOP, ROUND_TRIPS), 300)
        if status:
            raise AssertionError("usbloop in the guest: " + text)
        wait_for(settled, 30, "the USB bus to be silent again")
        after = self.latencies()
        for way in ("out", "in"):
            buckets = {us: n - before[way].get(us, 0) for us, n in after[way].items()}
            samples = [us for us in sorted(buckets) for _ in range(buckets[us])]
            progress("usb.added.%s.%s: %d samples, longest %d us" % (
                name, way, len(samples), samples[-1]))
            for percent in (50, 99):
                figure("usb.added.%s.%s.p%d" % (name, way, percent), percentile(samples, percent), "us")
        for way, column in (("out", 0), ("in", 1)):
            times = [int(line.split()[column]) for line in text.splitlines()]
            figure("usb.transfer.%s.%s.p50" % (name, way), percentile(times, 50), "us")

    def usb(self):
        self.still()
        image = os.path.join(self.directory, "stick.img")
        qemu.make_stick(image, STICK_MB * 2)
        devices = standin.Standin(self.directory, [standin.spec("loop")])
        with contextlib.closing(devices), self.session(
                ["/usb:id:%s#%s" % (LOOP, STICK)], env=devices.env):
            self.agent.wait_usb(LOOP)
            self.round_trips("idle")
            self.agent.animate("scroll", 25)
            self.round_trips("video")
            progress("%d frames were drawn meanwhile" % self.agent.animate_stop())
            self.still()
            progress("a stick of %d MiB" % (STICK_MB * 2))
            devices.plug(standin.spec("stick", image=image))
            place, = self.agent.wait_mount()
            disk = "/dev/" + place.partition("-")[2].rstrip("0123456789")
            self.agent.shell("umount " + place)
            for name, script in (("read", "echo 3 >/proc/sys/vm/drop_caches; dd if=%s of=/dev/null bs=64k"),
                                 ("write", "dd if=/dev/zero of=%s bs=64k conv=fsync")):
                start = time.monotonic()
                self.agent.shell(script % disk + " count=%d 2>/dev/null" % (STICK_MB * 16), 300)
                figure("usb.stick." + name, STICK_MB * 1.048576 / (time.monotonic() - start), "MB/s")

    def cpu(self):
        """Processor and memory with one client that looks at a still screen."""
        self.still()
        with self.session() as client:
            client.wait_still(still=3)
            pid = self.server.process.pid
            start, used = time.monotonic(), run_seconds(pid)
            time.sleep(IDLE_SECONDS)
            percent = (run_seconds(pid) - used) * 100 / (time.monotonic() - start)
            figure("cpu.idle", percent, "percent")
            memory = memory_mb(pid)
            figure("memory.rss", memory["Rss"], "MB")
            # Without the guest's frame buffer, which is QEMU's memory and mapped.
            figure("memory.own", memory["Pss_Anon"] + memory["Pss_File"], "MB")


def run_seconds(pid):
    """Processor time of a process, finer than the ticks of /proc: its clock (clock_getcpuclockid(3))."""
    return time.clock_gettime(~pid << 3 | 2)


def memory_mb(pid):
    with open("/proc/%d/smaps_rollup" % pid) as rollup:
        lines = rollup.read().splitlines()[1:]
    return {line.partition(":")[0]: int(line.split()[1]) * 1024 / 1e6 for line in lines}


PARTS = ("connect", "input", "cpu", "usb")


def main():
    parser = argparse.ArgumentParser(description="Measures qrdp; see docs/benchmarks.md.")
    parser.add_argument("words", nargs="*", metavar="WORD", help="only: " + ", ".join(PARTS))
    words = parser.parse_args().words
    unknown = [w for w in words if w not in PARTS]
    if unknown:
        parser.error("%s is none of: %s" % (unknown[0], ", ".join(PARTS)))
    directory = tempfile.mkdtemp(prefix="qrdp-b")
    progress("logs are in " + directory)
    with contextlib.ExitStack() as stack:
        bench = Bench(directory, stack)
        for part in PARTS:
            if not words or part in words:
                progress("measuring " + part)
                getattr(bench, part)()
    rig.remove(directory)


if __name__ == "__main__":
    main()
