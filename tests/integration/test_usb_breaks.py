"""(6) What breaks around a device: the network, the guest's driver, QEMU's filter, and two things at once."""

import itertools
import os
import random

import standin
from qrdp import run_once
from rig import full, say
from test_stick import KEYBOARD, LOOP, STICK, UsbRig
from test_stick_failure import READ, WRITE, FailureRig
from wait import wait_for


class NetworkTest(FailureRig):
    """The client is behind a proxy that stands for the network."""

    @classmethod
    def start(cls):
        cls.server, cls.vm = cls.shared.run_vm()

    def start_network(self):
        self.wire = self.network(self.server.address)

    def client(self, server, *args, **options):
        return super().client(server, *args, address=self.wire.address, **options)

    def test_reset(self):
        """A TCP reset in mid-transfer: the device is unplugged, and the next client's works."""
        self.start_network()
        client, usb, place, disk = self.stick_in_guest()
        job = self.keep_busy(usb, WRITE, place, disk)
        self.wire.reset()
        self.agent.finish(job, 60)
        self.agent.wait_usb(STICK, present=False)
        self.agent.wait_mount(0)
        client.stop()
        usb.close()
        self.check_next_client()

    def test_short_stall(self):
        """Nothing passes for a moment: the transfer goes on, nothing is repeated or lost."""
        self.start_network()
        client, usb, place, disk = self.stick_in_guest()
        job = self.keep_busy(usb, WRITE, place, disk)
        self.wire.stall()
        for _ in range(5):
            self.check_alive()
        self.wire.resume()
        self.check_goes_on(usb, job)
        self.check_strict(usb, "stick")
        self.check_works()

    @full
    def test_stalled_for_a_minute(self):
        """The guest has its error in bounded time, and the device is given up or works again: never a hang."""
        self.start_network()
        client, usb, place, disk = self.stick_in_guest()
        job = self.keep_busy(usb, READ, place, disk)
        self.wire.stall()
        self.agent.finish(job, 150)
        self.check_alive()
        self.wire.resume()
        client.stop()
        usb.close()
        self.agent.wait_usb(STICK, present=False)
        self.wire.stop()
        self.start_network()
        self.check_next_client()


class DriverTest(FailureRig):
    @classmethod
    def start(cls):
        cls.server, cls.vm = cls.shared.run_vm()

    def test_unbound(self):
        """The guest's driver is taken from the device in mid-transfer and given back."""
        client, usb, place, disk = self.stick_in_guest()
        for script in (READ, WRITE):
            place, = self.agent.wait_mount()
            disk = "/dev/" + os.path.basename(place)[4:].rstrip("0123456789")
            job = self.keep_busy(usb, script, place, disk)
            interface = self.agent.shell("cd /sys/bus/usb/drivers/usb-storage; ls -d *:1.0").strip()
            self.agent.shell("echo %s >/sys/bus/usb/drivers/usb-storage/unbind" % interface, 60)
            self.agent.finish(job, 60)
            self.agent.wait_mount(0)
            self.agent.shell("echo %s >/sys/bus/usb/drivers/usb-storage/bind" % interface, 60)
            self.check_works()
        self.check_strict(usb, "stick")
        self.assertEqual(usb.log("stick")["opens"], 1)


class FilterTest(UsbRig):
    """QEMU's own usb-redir filter refuses what qrdp's policy lets through."""

    @classmethod
    def start(cls):
        cls.vm = cls.shared.machine(display="dbus,p2p=yes", extra=[
            "-chardev", "dbus,id=redir0,name=org.qemu.usbredir",
            "-device", "usb-redir,chardev=redir0,bus=testusb.0,port=2,filter=0x03:-1:-1:-1:0|-1:-1:-1:-1:1"])
        cls.server = cls.shared.serve(cls.vm)

    def test_rejected(self):
        client, usb = self.bring([standin.spec("keyboard")])
        wait_for(lambda: "filter" in self.usb("list"), 30, lambda: "the refusal: " + self.usb("list"))
        say(self.usb("list").strip().splitlines()[-1])
        self.assertFalse([d for d in self.agent.usb() if d["id"] == KEYBOARD])
        self.assertEqual(self.server.log().count("usb-redir device denies it"), 1, self.server.log())
        client.stop()
        usb.close()
        wait_for(lambda: "No USB device" in self.usb("list"), 20, lambda: self.usb("list"))
        client, usb = self.bring([standin.spec("loop")])
        self.agent.wait_usb(LOOP)


class RaceTest(UsbRig):
    """Every pair of what plugs and unplugs, the second before the first has had its effect."""

    @classmethod
    def start(cls):
        cls.server, cls.vm = cls.shared.run_vm()

    def row(self):
        rows = [l.split()[0] for l in self.usb("list").splitlines() if LOOP in l]
        return rows[0] if rows else "0"

    def try_usb(self, *words):
        """Words may be refused: there is nothing to detach, say."""
        run_once(self.server.directory, "usb", "--run-dir=" + self.server.run_dir, *words)

    def events(self, usb):
        def plug():
            if "loop" not in usb.command("list"):
                usb.plug(standin.spec("loop"))

        def unplug():
            if "loop" in usb.command("list"):
                usb.unplug("loop")
        return {
            "plug": plug,
            "unplug": unplug,
            "deny": lambda: self.try_usb("deny", LOOP),
            "allow": lambda: self.try_usb("allow", LOOP),
            "detach": lambda: self.try_usb("detach", self.row()),
            "device_del": self.delete,
            "unbind": lambda: self.agent.run(
                "for d in /sys/bus/usb/devices/*; do grep -qs 1209 $d/idVendor && echo 0 >$d/authorized; done"),
        }

    def delete(self):
        lost = [l.partition(" on ")[2].partition(",")[0] for l in self.usb("list").splitlines() if " on qrdp" in l]
        if lost:
            try:
                self.vm.qmp.command("device_del", id=lost[0])
            except Exception:  # it is gone already
                pass

    def settle(self, usb):
        """Whatever state that has left: plugged in again, the device works, on whatever slot there is."""
        self.try_usb("allow", LOOP)
        if "loop" in usb.command("list"):
            usb.unplug("loop")
        self.agent.wait_usb(LOOP, present=False)
        wait_for(lambda: LOOP not in self.usb("list"), 30, lambda: "the device to leave: " + self.usb("list"))
        usb.plug(standin.spec("loop"))
        self.agent.wait_usb(LOOP)
        answer = self.agent.shell("usbdo %s claim=0 out=01.c0ffee in=81.512" % LOOP).split("\n")
        self.assertEqual(answer[1:3], ["ok 3 ", "ok 3 c0ffee"])

    def run_pairs(self, pairs):
        client, usb = self.bring([standin.spec("loop")])
        self.agent.wait_usb(LOOP)
        events = self.events(usb)
        for first, second in pairs:
            with self.subTest(first=first, second=second):
                events[first]()
                events[second]()
                self.settle(usb)
                self.server.status()
        self.check_strict(usb, "loop")

    def test_some_pairs(self):
        self.run_pairs([("unplug", "plug"), ("deny", "allow"), ("unplug", "deny"), ("detach", "unplug"),
                        ("device_del", "unplug"), ("unplug", "device_del"), ("unbind", "detach"),
                        ("deny", "unplug")])

    @full
    def test_all_pairs(self):
        names = list(self.events(None))
        pairs = list(itertools.permutations(names, 2))
        random.Random(7).shuffle(pairs)
        self.run_pairs(pairs)

    def test_client_killed_amid_events(self):
        """The client dies right after something else has begun."""
        for name in ("plug", "unplug", "deny", "device_del"):
            say(name)
            client, usb = self.bring([standin.spec("loop")])
            self.agent.wait_usb(LOOP)
            if name == "plug":
                usb.unplug("loop")
            self.events(usb)[name]()
            client.process.kill()
            usb.close()
            self.agent.wait_usb(LOOP, present=False)
            wait_for(lambda: "No USB device" in self.usb("list"), 30, lambda: self.usb("list"))
            self.try_usb("allow", LOOP)
