#!/usr/bin/env python3
"""./dev bench: measures one qrdp (QRDP_BINARY) between a real QEMU and the stock client.

Figures go to stdout, one per line, as "name value unit"; what is being done goes to stderr. How each is
measured is in docs/benchmarks.md. Nothing here judges a figure. WORDs choose what is measured, by the
first part of the names: run.py usb cpu. The displays of others next to qrdp's are measured by display.py.
"""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import time

TESTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
sys.path[:0] = [os.path.join(TESTS, "lib", "py"), os.path.join(TESTS, "clients")]

import qemu
import qrdp
import rig
import superspeed
import usb
import xclient
import xprobe
from figures import figure, memory_mb, percentile, progress, run_seconds

CONNECTS = 5
KEY_PRESSES = 200
IDLE_SECONDS = 20
FILM_SECONDS = 4
COLOUR = 0x3366cc    # of the still screen


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

    def client(self, **options):
        self.clients += 1
        return xclient.Client(self.display, self.directory, self.server.address, *self.server.credentials,
                              name="client%d" % self.clients, **options)

    @contextlib.contextmanager
    def session(self, **options):
        client = self.client(**options)
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

    def memory(self):
        """One client at 1920x1080, and a film on all of it: the most that was seen, without the frame buffer."""
        pid = self.server.process.pid

        def now():
            memory = memory_mb(pid)
            return memory["Pss_Anon"] + memory["Pss_File"]
        for name, codec, film in (("h264", "AVC420", "H.264"), ("no_h264", "RFX", "RemoteFX")):
            self.agent.drm("1920x1080")
            self.agent.pattern("text", 1)
            with self.session(size=(1920, 1080), args=["/gfx:" + codec]) as client:
                client.wait_still(still=3)
                figure("memory.1080p.%s.still" % name, now(), "MB")
                self.agent.ask("scene", "fullvideo", seconds=120)
                playing = self.agent.start("play", "%d" % FILM_SECONDS)
                most, end = 0, time.monotonic() + 3 * FILM_SECONDS
                while time.monotonic() < end:
                    most = max(most, now())
                    time.sleep(0.1)
                self.agent.finish(playing, 120)  # a slow guest plays all of it, late
                row = self.server.status()["clients"][0]["display"]
            if row["film_codec"] == film:
                figure("memory.1080p.%s.film" % name, most, "MB")
            else:
                progress("the guest was too slow for a film: %s" % row)


PARTS = ("connect", "input", "cpu", "memory")
ASKED_FOR = ("superspeed",)  # not part of a run without words


def main():
    parser = argparse.ArgumentParser(description="Measures qrdp; see docs/benchmarks.md.",
                                     epilog="run.py usb --help says what can follow the word usb.")
    parser.add_argument("words", nargs="*", metavar="WORD", help="only: %s, usb" % ", ".join(PARTS + ASKED_FOR))
    arguments = sys.argv[1:]
    at = arguments.index("usb") if "usb" in arguments else len(arguments)
    words = parser.parse_args(arguments[:at]).words
    unknown = [w for w in words if w not in PARTS + ASKED_FOR]
    if unknown:
        parser.error("%s is none of: %s, usb" % (unknown[0], ", ".join(PARTS + ASKED_FOR)))
    parts = [w for w in words if w in PARTS] if arguments else PARTS
    usb_arguments = arguments[at + 1:] if "usb" in arguments else None if arguments else ["--short"]
    if usb_arguments is not None:
        usb.parse(usb_arguments)  # before anything takes time
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends what was started, like Ctrl-C
    directory = tempfile.mkdtemp(prefix="qrdp-b")
    progress("logs are in " + directory)
    if parts:
        with contextlib.ExitStack() as stack:
            bench = Bench(directory, stack)
            for part in parts:
                progress("measuring " + part)
                getattr(bench, part)()
    if "superspeed" in words:
        os.mkdir(os.path.join(directory, "superspeed"))
        superspeed.measure(os.path.join(directory, "superspeed"))
    if usb_arguments is not None:
        os.mkdir(os.path.join(directory, "usb"))
        usb.measure(os.path.join(directory, "usb"), usb_arguments)
    rig.remove(directory)


if __name__ == "__main__":
    main()
