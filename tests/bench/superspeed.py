"""./dev bench superspeed: what it is worth to show a stick at super speed; the table of docs/superspeed.md.

One machine with its own client and stick for each way, all through delay proxies, taking turns:

  super   a super-speed stick
  high    a high-speed stick, shown as what it is (--usb-as-is)
  raised  the same stick as qrdp shows it by default

First each stick is written and read back, and both sides must agree on every byte.
"""

import contextlib
import hashlib
import os

import proxy
import qemu
import qrdp
import rig
import standin
import xclient
from figures import figure, percentile, progress
from wait import wait_for

WAYS = {"super": ("super", []), "high": ("high", ["--usb-as-is"]), "raised": ("high", [])}
STICK_MB, MOVED_MB, CHECKED_MB = 32, 16, 8
RTTS = (0, 20)
REPEATS = 3


class Way:
    def __init__(self, directory, stack, display, name):
        speed, options = WAYS[name]
        self.name = name
        vm = os.path.join(directory, name)
        os.mkdir(vm)
        progress("starting the machine for: " + name)
        server = qrdp.Qrdp(vm, log_level="info", credentials=(rig.USER, rig.PASSWORD), options=options,
                           run=qemu.guest_arguments(vm, append="vt.global_cursor_default=0") + [
                               "-qmp", "unix:%s/qmp2,server=on,wait=off" % vm])
        stack.callback(server.stop)
        machine = rig.RunningVm(vm)
        stack.callback(machine.close)
        self.agent = machine.agent
        self.network = proxy.DelayProxy(vm, server.address, strict=True)
        stack.callback(self.network.stop)
        self.image = os.path.join(vm, "stick.img")
        with open(self.image, "wb") as stick:
            stick.truncate(STICK_MB << 20)
        self.usb = standin.Standin(vm, [standin.spec("stick", name="stick", image=self.image, speed=speed)],
                                   trace="/dev/null")
        stack.callback(self.usb.close)
        client = xclient.Client(display, vm, self.network.address, *server.credentials,
                                args=["/usb:id:%04x:%04x" % (standin.VENDOR, standin.PRODUCTS["stick"])],
                                env=self.usb.env)
        stack.callback(client.stop)
        client.connect(60)
        disk = wait_for(lambda: self.agent.shell("cd /sys/block; for d in sd*; do [ ! -e $d ] || "
                                                 "[ $(cat $d/size) = 0 ] || echo $d; done").strip(),
                        60, "the stick's disk in the guest")
        self.disk = "/dev/" + disk
        self.largest = int(self.agent.shell("cat /sys/block/%s/queue/max_sectors_kb" % disk)) << 10

    def check(self):
        """Random bytes are the same on both sides, written and read."""
        seen = self.agent.shell(
            "dd if=/dev/urandom of=/tmp/data bs=1M count={1} 2>/dev/null && "
            "dd if=/tmp/data of={0} bs=1M oflag=direct 2>/dev/null && sha256sum </tmp/data && "
            "dd if={0} bs=1M count={1} iflag=direct 2>/dev/null | sha256sum".format(self.disk, CHECKED_MB), 300)
        written, read = [line.split()[0] for line in seen.splitlines()]
        with open(self.image, "rb") as image:
            stored = hashlib.sha256(image.read(CHECKED_MB << 20)).hexdigest()
        log = self.usb.log("stick")
        if not written == read == stored or log["violations"]:
            raise AssertionError("%s: %s was written, %s read, %s is on the stick; %s" % (
                self.name, written, read, stored, log))

    def move(self, direction):
        """MB/s, and how many commands it took."""
        before = self.usb.log("stick")["ep81.transfers"]
        count = (MOVED_MB << 20) // self.largest
        took = int(self.agent.shell("usbbench seq %s %s %d %d" % (
            self.disk, direction, self.largest, count), 300)) / 1e6
        transfers = self.usb.log("stick")["ep81.transfers"] - before
        return count * self.largest / 1e6 / took, transfers // (2 if direction == "read" else 1)


def measure(directory):
    with contextlib.ExitStack() as stack:
        display = xclient.Display(os.path.join(directory, "x"))
        stack.callback(display.stop)
        ways = [Way(directory, stack, display, name) for name in WAYS]
        for way in ways:
            figure("superspeed.max_command." + way.name, way.largest >> 10, "KiB")
            way.check()
        for rtt in RTTS:
            rates = {(way, direction): [] for direction in ("read", "write") for way in ways}
            for way in ways:
                way.network.set_network(rtt_ms=rtt)
                way.network.selftest()
            for repeat in range(REPEATS):
                progress("RTT %d ms, round %d of %d" % (rtt, repeat + 1, REPEATS))
                for way, direction in rates:
                    rate, commands = way.move(direction)
                    rates[way, direction].append(rate)
                    if rtt == RTTS[0] and repeat == 0:
                        figure("superspeed.commands.%s.%s" % (direction, way.name), commands, "count")
            for (way, direction), values in rates.items():
                figure("superspeed.%s.rtt%d.%s" % (direction, rtt, way.name), percentile(values, 50), "MB/s")
        for way in ways:
            way.check()
