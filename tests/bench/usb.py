"""./dev bench usb: how fast USB is, next to what the guest and the client can do without qrdp.

Three ways to the same emulated devices, alternating in one session of one machine:

  raw      usbredirect over TCP into the guest
  ceiling  the stock client, driven by a bare loop (ceiling.c) instead of a guest
  qrdp     the same client, qrdp, the guest

each through a delay proxy. docs/benchmarks.md says what the figures mean.
"""

import argparse
import contextlib
import os
import random
import re
import select
import signal
import subprocess
import sys
import time

import proxy
import qemu
import qrdp
import rig
import standin
import stock
import xclient
from figures import figure, percentile, progress, run_seconds
from proc import Process, free_ports
from wait import wait_for

WAYS = ("raw", "ceiling", "qrdp")
# Product ids: what the guest sees of qrdp, of the ceiling (bit 12: ceiling.c) and of usbredirect.
BASE = {"qrdp": 0x0000, "ceiling": 0x1000, "raw": 0x2000}
DEVICES = {"high": ("stick", 0x001), "super": ("stick", 0x101), "keyboard": ("keyboard", 0x002),
           "loop": ("loop", 0x003)}
TREES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "build-clients")
STICK_MB = 64
HIGH, SUPER = 120 << 10, 1 << 20     # what Linux asks of a high- and of a super-speed stick at once
SEQUENTIAL = {                       # figure: (device, direction, bytes per command)
    "read": ("super", "read", SUPER), "write": ("super", "write", SUPER),
    "readhigh": ("high", "read", HIGH), "writehigh": ("high", "write", HIGH)}
LATENCIES = {"rand4k": "high", "control": "loop", "hid": "keyboard"}  # figure: device
OTHERS = ("readmax", "inside", "cpu", "frames")
FIGURES = (*SEQUENTIAL, *LATENCIES, *OTHERS)
RTTS = (0, 5, 20, 50)
VIDEO_FPS = 25
# TLS records when much is moved: FreeRDP's client makes one of 1600 bytes of a channel and headers, qrdp one
# of ten such PDUs.
RECEIVED, SENT = 1645, 16230


class Ceiling:
    """The bare loop of one device (ceiling.c)."""

    def __init__(self, directory, product):
        self.socket = qemu.connect_unix(os.path.join(directory, "%04x" % product), 60)
        self.buffer = b""

    def ask(self, command, seconds=600):
        self.socket.settimeout(seconds)
        self.socket.sendall(command.encode() + b"\n")
        return self.answer(command)

    def line(self):
        while b"\n" not in self.buffer:
            data = self.socket.recv(1 << 20)
            if not data:
                raise AssertionError("the ceiling's loop has gone")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.decode()

    def answer(self, what):
        word, *numbers = self.line().split()
        if word == "error":
            raise AssertionError("ceiling, %s: %s" % (what, " ".join(numbers)))
        return [int(number) for number in numbers]

    def silent(self):
        """Whether nothing has been said that nobody has read."""
        return not self.buffer and not select.select([self.socket], [], [], 0)[0]

    def close(self):
        self.socket.close()


class Rig:
    """The machine, the client with its devices, usbredirect with the same ones, and the proxies."""

    def __init__(self, directory, stack, client_program):
        self.stack = stack
        self.directory = directory
        os.mkdir(self.path("vm"))
        os.mkdir(self.path("ceiling"))
        raw_ports = dict(zip(DEVICES, free_ports(len(DEVICES))))
        arguments = qemu.guest_arguments(self.path("vm"), append="vt.global_cursor_default=0") + [
            "-qmp", "unix:%s/vm/qmp2,server=on,wait=off" % directory,
            "-chardev", "socket,id=bench,server=on,wait=off,path=" + self.path("vm", "bench"),
            "-device", "virtserialport,chardev=bench,name=org.qrdp.bench",
            "-device", "qemu-xhci,id=rawusb,p2=4,p3=4"]
        for place, (name, port) in enumerate(raw_ports.items(), 1):
            arguments += ["-chardev", "socket,id=raw%s,host=127.0.0.1,port=%d,server=on,wait=off,nodelay=on" % (
                name, port), "-device", "usb-redir,chardev=raw%s,bus=rawusb.0,port=%d" % (name, place)]
        progress("starting the virtual machine")
        os.environ["QRDP_CEILING_DIR"] = self.path("ceiling")
        os.environ["QRDP_CEILING"] = ",".join("%04x" % (product | BASE["ceiling"])
                                              for _, product in DEVICES.values())
        self.server = qrdp.Qrdp(self.path("vm"), log_level="info", credentials=(rig.USER, rig.PASSWORD),
                                options=["--usb-slots=%d" % (2 * len(DEVICES))], run=arguments)
        stack.callback(self.server.stop)
        self.vm = rig.RunningVm(self.path("vm"))
        stack.callback(self.vm.close)
        self.agent = self.vm.agent
        self.agent.drm("1280x800")
        self.agent.pattern("solid", "3366cc")
        display = xclient.Display(self.path("x"))
        stack.callback(display.stop)
        self.network = {name: self.proxy("127.0.0.1:%d" % port, name) for name, port in raw_ports.items()}
        self.network["rdp"] = self.proxy(self.server.address, "rdp")
        self.start_client(display, client_program)
        self.start_raw()
        self.find_devices()

    def path(self, *names):
        return os.path.join(self.directory, *names)

    def proxy(self, target, name):
        network = proxy.DelayProxy(self.directory, target, strict=True, name="proxy-" + name)
        self.stack.callback(network.stop)
        return network

    def spec(self, name, way):
        kind, product = DEVICES[name]
        options = {"name": way + name, "pid": "%04x" % (product | BASE[way]), "serial": way + name}
        if kind == "stick":
            image = self.path("%s-%s.img" % (way, name))
            with open(image, "wb") as stick:
                stick.truncate(STICK_MB << 20)
            options.update(image=image, speed=name)
        return standin.spec(kind, **options)

    def start_client(self, display, program):
        specs = [self.spec(name, way) for way in ("qrdp", "ceiling") for name in DEVICES]
        ids = ["%04x:%04x" % (standin.VENDOR, product | BASE[way])
               for way in ("qrdp", "ceiling") for _, product in DEVICES.values()]
        self.usb = standin.Standin(self.directory, specs, trace="/dev/null")
        self.stack.callback(self.usb.close)
        progress("starting the client")
        client = xclient.Client(display, self.directory, self.network["rdp"].address,
                                *self.server.credentials, args=["/usb:id:" + "#".join(ids)],
                                env=self.usb.env, program=program)
        self.stack.callback(client.stop)
        client.connect(60)
        self.usb.wait_ready()
        self.keyboards = {"qrdp": self.usb, "ceiling": self.usb}

    def start_raw(self):
        self.redirects = {}
        for name, (_, product) in DEVICES.items():
            usb = standin.Standin(self.directory, [self.spec(name, "raw")], trace="/dev/null")
            client = Process(["usbredirect", "--device", "%04x:%04x" % (standin.VENDOR, product | BASE["raw"]),
                              "--to", self.network[name].address], self.path("usbredirect-%s.log" % name),
                             env=dict(os.environ, **usb.env))
            self.stack.callback(client.stop)
            self.stack.callback(usb.close)
            self.stack.callback(client.signal, signal.SIGCONT)
            self.redirects[name] = client
            usb.wait_ready()
            if name == "keyboard":
                self.keyboards["raw"] = usb

    def find_devices(self):
        progress("waiting for the devices")
        for way in ("raw", "qrdp"):
            for name, (kind, product) in DEVICES.items():
                self.agent.wait_usb("%04x:%04x" % (standin.VENDOR, product | BASE[way]), seconds=60,
                                    driver={"stick": "usb-storage", "keyboard": "usbhid"}.get(kind))
        self.disks = {(way, name): self.find_disk(way + name) for way in ("raw", "qrdp")
                      for name in ("high", "super")}
        self.loops = {name: Ceiling(self.path("ceiling"), product | BASE["ceiling"])
                      for name, (_, product) in DEVICES.items()}
        for name, loop in self.loops.items():
            self.stack.callback(loop.close)
            if name in ("high", "super"):
                loop.ask("capacity")
        self.loops["keyboard"].ask("hid")
        self.port = qemu.connect_unix(self.path("vm", "bench"), 20)
        self.stack.callback(self.port.close)
        self.port.settimeout(60)
        number = self.agent.start_script("usbbench hid rawkeyboard qrdpkeyboard 2>&1")
        try:
            assert self.port.recv(1) == b"r"
        except TimeoutError as error:
            raise AssertionError("in the guest: %r" % (self.agent.finish(number),)) from error
        self.key_down = {way: False for way in WAYS}
        for client in self.redirects.values():
            client.signal(signal.SIGSTOP)

    @contextlib.contextmanager
    def only(self, way, device):
        """Whatever is measured: usbredirect stands still but for the one that is.

        It waits for a writable socket when it has nothing to write, so each of them takes all the time of a
        processor that it can get.
        """
        if way == "raw":
            self.redirects[device].signal(signal.SIGCONT)
        try:
            yield
        finally:
            if way == "raw":
                self.redirects[device].signal(signal.SIGSTOP)

    def find_disk(self, serial):
        """The guest's disk whose USB device has this serial number."""
        script = """for disk in /sys/block/sd*; do at=$(readlink -f $disk)
            while [ "$at" != / ] && [ ! -f "$at/serial" ]; do at=$(dirname "$at"); done
            if [ "$(cat "$at/serial" 2>/dev/null)" = "%s" ] && [ "$(cat $disk/size)" -gt 0 ]; then basename $disk; fi
            done; true""" % serial
        name = wait_for(lambda: self.agent.shell(script).strip(), 60, "a disk with serial number " + serial)
        return "/dev/" + name

    def largest(self, disk):
        """Bytes the guest's driver asks of a disk at once."""
        return int(self.agent.shell("cat /sys/block/%s/queue/max_sectors_kb" % os.path.basename(disk))) << 10

    def set_rtt(self, rtt):
        for network in self.network.values():
            network.set_network(rtt_ms=rtt)
            network.selftest()
        progress("RTT %d ms; the proxies measured %s us" % (rtt, ", ".join(
            str(network.measured["rtt_us"]) for network in self.network.values())))

    # Single measurements

    def sequential(self, way, device, direction, size, count):
        """Seconds for count commands of size bytes."""
        if way == "ceiling":
            return self.loops[device].ask("%s %d %d" % (direction, size, count))[0] / 1e6
        with self.only(way, device):
            return int(self.agent.shell("usbbench seq %s %s %d %d" % (
                self.disks[way, device], direction, size, count), 600)) / 1e6

    def latencies(self, way, what, count):
        """Microseconds of each of count operations."""
        with self.only(way, LATENCIES[what]):
            return self.each(way, what, count)

    def each(self, way, what, count):
        if what == "hid":
            return [self.key(way) for _ in range(count)]
        if way == "ceiling":
            return self.loops["high" if what == "rand4k" else "loop"].ask(
                "rand 4096 %d" % count if what == "rand4k" else "control %d" % count)
        script = "usbbench rand %s 4096 %d" % (self.disks[way, "high"], count) if what == "rand4k" else \
            "usbbench control %04x:%04x %d" % (standin.VENDOR, DEVICES["loop"][1] | BASE[way], count)
        return [int(line) for line in self.agent.shell(script, 600).split()]

    def key(self, way):
        """Microseconds from a key of the emulated keyboard to the guest's program, or the bare loop."""
        time.sleep(random.uniform(0.005, 0.02))  # not in step with anything
        down = self.key_down[way] = not self.key_down[way]
        # Else the first answer would be to something else, and all that follow one late.
        assert self.loops["keyboard"].silent(), "the keyboard reported a key that was not pressed"
        start = time.monotonic()
        self.keyboards[way].command("hold %skeyboard 0 %s" % (way, "04" if down else "0"))
        if way == "ceiling":
            line = self.loops["keyboard"].line()
            assert line == "key", line
        else:
            assert self.port.recv(1) == b"k"
        return (time.monotonic() - start) * 1e6

    def frames(self):
        """(time, frames that the client has been sent), just when qrdp has counted anew."""
        def sent():
            for client in self.server.status()["clients"]:
                if client["display"]:
                    return client["display"]["frames"]
            return 0
        first = sent()
        number = wait_for(lambda: (lambda n: n != first and n)(sent()), 30, "frames to be sent", interval=0.02)
        return time.monotonic(), number

    def added(self):
        """What qrdp says of USB bytes: {"out": {longest microseconds: count}, "in": ...}."""
        for client in self.server.status()["clients"]:
            if "usb_latency_us" in client:
                return {way: dict(client["usb_latency_us"][way]["buckets"]) for way in ("out", "in")}
        return {"out": {}, "in": {}}


class Run:
    """What is measured, in which order, and what comes of it."""

    def __init__(self, bench, options):
        self.rig = bench
        self.wanted = options.figures
        self.rtts = options.rtts
        self.videos = options.videos
        self.repeats = 2 if options.short else 5
        self.seconds = 0.7 if options.short else 2.0  # of one sequential measurement
        self.samples = 60 if options.short else 200   # of one latency measurement
        self.pace = {}     # seconds per operation, to choose a count
        self.results = {}  # name without "usb." and unit: value
        self.goals = []

    def print(self, name, value, unit):
        self.results[name] = value
        figure("usb." + name, value, unit)

    def count(self, key, most):
        return max(2, min(most, int(self.seconds / self.pace[key])))

    def timed(self, key, function, most):
        """Runs function(count) for about self.seconds; what it returned, and the count."""
        count = self.count(key, most) if key in self.pace else 2
        start = time.monotonic()
        value = function(count)
        self.pace[key] = max((time.monotonic() - start) / count, 1e-5)
        return value, count

    def everything(self):
        for video in self.videos:
            if video:
                self.rig.agent.animate("scroll", VIDEO_FPS)
            for rtt in self.rtts:
                self.rig.set_rtt(rtt)
                self.round(rtt, video)
            if "inside" in self.wanted:
                if self.rtts[-1] != 0:
                    self.rig.set_rtt(0)
                self.inside("video" if video else "idle")
            if video:
                progress("%d frames were drawn" % self.rig.agent.animate_stop())
        self.judge()

    def round(self, rtt, video):
        suffix = ".video" if video else ""
        sequential = {name: SEQUENTIAL[name] for name in SEQUENTIAL if name in self.wanted}
        rates = {(name, way): [] for name in sequential for way in WAYS}
        times = {(what, way): [] for what in LATENCIES if what in self.wanted for way in WAYS}
        largest = {(way, "readmax"): [] for way in ("raw", "qrdp")} if "readmax" in self.wanted and rtt else {}
        for repeat in range(-1, self.repeats):  # the first is only for choosing counts
            progress("RTT %d ms%s, round %d of %d" % (rtt, ", video" if video else "", repeat + 1, self.repeats))
            for name, way in rates:
                device, direction, size = sequential[name]
                took, n = self.timed((name, way, rtt, video), lambda n: self.rig.sequential(
                    way, device, direction, size, n), 2000)
                if repeat >= 0:
                    rates[name, way].append(n * size / 1e6 / took)
            for way, name in largest:
                size = self.rig.largest(self.rig.disks[way, "high"])
                took, n = self.timed((name, way, rtt, video), lambda n: self.rig.sequential(
                    way, "high", "read", size, n), 2000)
                if repeat >= 0:
                    largest[way, name].append(n * size / 1e6 / took)
            for what, way in times:
                took, n = self.timed((what, way, rtt, video), lambda n: self.rig.latencies(way, what, n),
                                     self.samples)
                if repeat >= 0:
                    times[what, way] += took
        for (name, way), values in rates.items():
            self.print("%s.rtt%d.%s%s" % (name, rtt, way, suffix), percentile(values, 50), "MB/s")
        for (way, name), values in largest.items():
            self.print("%s.rtt%d.%s%s" % (name, rtt, way, suffix), percentile(values, 50), "MB/s")
        for (what, way), values in times.items():
            for percent in (50, 95):
                self.print("%s.p%d.rtt%d.%s%s" % (what, percent, rtt, way, suffix),
                           percentile(values, percent), "us")
        if video and "frames" in self.wanted:
            self.frames(rtt)
        if "cpu" in self.wanted and rtt == 0 and not video:
            self.cpu()

    def frames(self, rtt):
        """Frames a second without USB and with it."""
        seconds = 6 if self.repeats < 5 else 10
        rates = {None: [], "read": [], "write": []}
        for _ in range(2):
            for direction in rates:
                load = None
                if direction:
                    load = self.rig.agent.start_script(
                        "touch /run/load; while [ -e /run/load ]; do usbbench seq %s %s %d 8 || exit 1; done" % (
                            self.rig.disks["qrdp", "super"], direction, SUPER))
                start, first = self.rig.frames()
                wait_for(lambda: time.monotonic() - start > seconds, seconds + 60, "time to pass")
                end, last = self.rig.frames()
                rates[direction].append((last - first) / (end - start))
                if load:
                    self.rig.agent.shell("rm /run/load")
                    status, text = self.rig.agent.finish(load, 120)
                    assert status == 0, text
        for direction, values in rates.items():
            self.print("frames.rtt%d.%s" % (rtt, direction or "alone"), sum(values) / len(values), "1/s")

    def inside(self, name):
        """How long qrdp holds 512 bytes, each way, and how late an idle thread of its wakes up."""
        def total(sums):
            return sum(sums["out"].values()), sum(sums["in"].values())
        def settled():
            first = total(self.rig.added())
            time.sleep(2.5)  # qrdp's threads tell each other their sums every two seconds
            return total(self.rig.added()) == first
        wait_for(settled, 60, "the USB bus to be silent")
        before = self.rig.added()
        trips = 500 if self.repeats < 5 else 2000
        loop = "%04x:%04x" % (standin.VENDOR, DEVICES["loop"][1])
        number = self.rig.agent.start_script("usbloop %s 512 %d" % (loop, trips))
        wakeups = self.rig.loops["high"].ask("wakeups 1500")
        status, text = self.rig.agent.finish(number, 300)
        assert status == 0, text
        wait_for(settled, 60, "the USB bus to be silent again")
        after = self.rig.added()
        for way in ("out", "in"):
            buckets = {us: n - before[way].get(us, 0) for us, n in after[way].items()}
            samples = [us for us in sorted(buckets) for _ in range(buckets[us])]
            for percent in (50, 99):
                self.print("inside.%s.%s.p%d" % (name, way, percent), percentile(samples, percent), "us")
        self.print("wakeup.%s.p99" % name, percentile(wakeups, 99), "us")

    def cpu(self):
        """Processor time of qrdp for a GB, and of TLS alone for the same bytes on the wire."""
        def tls(record):
            """Seconds per GB of who sends, of who receives."""
            return [float(word) for word in subprocess.run(
                [os.path.join(os.path.dirname(qrdp.binary()), "tls-cost"), str(record), "500"],
                check=True, stdout=subprocess.PIPE).stdout.decode().split()[1:]]
        send, receive = tls(SENT)[0], tls(RECEIVED)[1]
        pid = self.rig.server.process.pid
        for direction in ("read", "write"):
            used, wire, moved = 0, 0, 0
            for _ in range(self.repeats):
                count = int(64 * self.seconds)
                before, stat = run_seconds(pid), self.rig.network["rdp"].stat()
                self.rig.sequential("qrdp", "super", direction, SUPER, count)
                used += run_seconds(pid) - before
                now = self.rig.network["rdp"].stat()
                wire += (now["up.bytes"] - stat["up.bytes"]) / 1e9 * receive
                wire += (now["down.bytes"] - stat["down.bytes"]) / 1e9 * send
                moved += count * SUPER / 1e9
            self.print("cpu.%s.qrdp" % direction, used / moved, "s/GB")
            self.print("cpu.%s.tls" % direction, wire / moved, "s/GB")

    # Goals

    def goal(self, name, value, relation, limit, unit="ratio"):
        self.goals.append((name, value, relation, limit))
        figure("usb.goal." + name, value, unit)

    def have(self, *names):
        return all(name in self.results for name in names) and [self.results[name] for name in names]

    def judge(self):
        for video in ("", ".video"):
            for name in SEQUENTIAL:
                for rtt in self.rtts:
                    found = self.have(*("%s.rtt%d.%s%s" % (name, rtt, way, video) for way in WAYS))
                    if found:
                        raw, ceiling, with_qrdp = found
                        key = "%s.rtt%d%s" % (name, rtt, video)
                        model = 1 / (1 / raw + 1 / ceiling)
                        if rtt == 0 or (rtt == 20 and name == "read"):
                            self.goal("serial." + key, with_qrdp / model, ">=", 0.9)
            for what, percent in (("rand4k", 50), ("hid", 95)):
                found = self.have(*("%s.p%d.rtt0.%s%s" % (what, percent, way, video) for way in WAYS))
                if found:
                    self.goal("latency.%s.p%d.rtt0%s" % (what, percent, video),
                              found[2] / (found[0] + found[1]), "<=", 1.15)
        for key, base, limit in (("readmax", "readmax", 4), ("read", "read", 0.9)):
            found = self.have("%s.rtt20.raw" % base, "%s.rtt20.qrdp" % base)
            if found:
                self.goal("distance." + key, found[1] / found[0], ">=", limit)
        for way in ("out", "in"):
            found = self.have("inside.idle.%s.p50" % way, "inside.idle.%s.p99" % way)
            if found:
                self.goal("inside.idle.%s.p50" % way, found[0], "<=", 60, "us")
                self.goal("inside.idle.%s.p99" % way, found[1], "<=", 500, "us")
            found = self.have("inside.video.%s.p99" % way, "wakeup.video.p99")
            if found:
                self.goal("inside.video.%s.p99.over_wakeup" % way, found[0] - found[1], "<=", 3000, "us")
        for rtt in self.rtts:
            for direction in ("read", "write"):
                found = self.have("frames.rtt%d.%s" % (rtt, direction), "frames.rtt%d.alone" % rtt)
                if found:
                    self.goal("frames.rtt%d.%s" % (rtt, direction), found[0] / found[1], ">=", 0.9)
        for direction in ("read", "write"):
            found = self.have("cpu.%s.qrdp" % direction, "cpu.%s.tls" % direction)
            if found:
                self.goal("cpu." + direction, found[0] / found[1], "<=", 1.5)
        for name, value, relation, limit in self.goals:
            reached = value >= limit if relation == ">=" else value <= limit
            print("bench: %-34s %8.3g  %s %-5g %s" % (name, value, relation, limit, "reached" if reached else
                                                      "NOT REACHED"), file=sys.stderr, flush=True)


def parse(arguments):
    parser = argparse.ArgumentParser(prog="./dev bench usb", description="Measures USB; see docs/benchmarks.md.")
    parser.add_argument("--short", action="store_true", help="a few minutes: fewer repetitions, RTT 0 and 20")
    parser.add_argument("--client", metavar="CLIENT", help="another xfreerdp3: a program, or 2.11, 3.10, 3.15 "
                        "or 3.33 for one of ./dev test-clients")
    parser.add_argument("words", nargs="*", metavar="WORD",
                        help="only these: rttMS, video, novideo, " + ", ".join(FIGURES))
    options = parser.parse_args(arguments)
    options.figures = [w for w in options.words if w in FIGURES] or list(FIGURES)
    options.rtts = [int(w[3:]) for w in options.words if re.fullmatch(r"rtt\d+", w)] or (
        [0, 20] if options.short else list(RTTS))
    options.videos = [w == "video" for w in options.words if w in ("video", "novideo")] or [False, True]
    for word in options.words:
        if word not in FIGURES + ("video", "novideo") and not re.fullmatch(r"rtt\d+", word):
            parser.error("%s is no figure" % word)
    return options


def client_program(word):
    """What --client names, as a Program; None: the machine's own."""
    if not word:
        return None
    known = {client.name: client.program for client in stock.clients(TREES)}
    return known.get(word) or xclient.Program([word])


def measure(directory, arguments):
    options = parse(arguments)
    beside = os.path.dirname(os.path.dirname(os.path.abspath(qrdp.binary())))
    os.environ.setdefault("QRDP_STANDIN", os.path.join(beside, "tests", "standin", "libqrdp-standin.so"))
    os.environ.setdefault("QRDP_DELAY_PROXY", os.path.join(beside, "tests", "lib", "delay-proxy"))
    os.environ["QRDP_BINARY"] = os.path.join(beside, "tests", "bench", "qrdp-bench")
    with contextlib.ExitStack() as exits:
        Run(Rig(directory, exits, client_program(options.client)), options).everything()
