"""(6) What breaks around a device: the network, the guest's driver, QEMU's filter, and two things at once."""

import itertools
import os
import random
import threading
import time

import standin
from qemu import QmpError
from qrdp import run_once
from rig import full, say
from test_stick import KEYBOARD, LOOP, STICK, UsbRig
from test_stick_failure import READ, WRITE, FailureRig
from wait import together, wait_for

MINUTE = 60


class NetworkRig(FailureRig):
    """The client is behind a proxy that stands for the network."""

    options = ()

    @classmethod
    def start(cls):
        cls.server, cls.vm = cls.shared.run_vm(options=cls.options)

    def start_network(self):
        self.wire = self.network(self.server.address)

    def client(self, server, *args, **options):
        return super().client(server, *args, address=self.wire.address, **options)


class NetworkTest(NetworkRig):
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
class MinuteTest(NetworkRig):
    """Nothing passes for a minute, and the client is cut off before that is over."""

    def stall(self):
        """A minute of it, while the guest reads: its error comes before that is over; the client and its devices."""
        self.start_network()
        client, usb, place, disk = self.stick_in_guest()
        job = self.keep_busy(usb, READ, place, disk)
        self.wire.stall()
        start = time.monotonic()
        status, text = self.agent.finish(job, MINUTE)
        self.assertNotEqual(status, 0, text)
        say("the guest's error came after %.1f s" % (time.monotonic() - start))
        wait_for(lambda: time.monotonic() - start > MINUTE, MINUTE + 1, "a minute to pass")
        self.check_alive()
        self.wire.resume()
        return client, usb

    def test_a_minute(self):
        client, usb = self.stall()
        client.stop()
        usb.close()
        self.agent.wait_usb(STICK, present=False)
        self.check_next_client()


@full
class PatientMinuteTest(MinuteTest):
    """The connection outlives it. The guest has given the stick up by then: plugged in again it works."""

    options = ["--stall-seconds=120"]

    def test_a_minute(self):
        client, usb = self.stall()
        usb.unplug("stick")
        self.agent.wait_usb(STICK, present=False)
        usb.plug(standin.spec("stick", image=self.image))
        self.check_works()
        self.assertTrue(client.alive())
        self.assertEqual(self.server.log().count("logged in"), 1)


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


class RaceTest(FailureRig):
    """Every pair of what plugs, unplugs and breaks, at the same time: the second begins within SPREAD of the first.

    QRDP_TEST_SEED chooses other moments.
    """

    SPREAD = 0.3  # seconds: as long as the slowest of them takes to have its effect

    @classmethod
    def start(cls):
        cls.server, cls.vm = cls.shared.run_vm()

    def setUp(self):
        super().setUp()
        self.wire = self.network(self.server.address)
        self.lock = threading.Lock()  # of the stand-in, QMP and the agent: each takes one command at a time
        self.bring_loop()

    def bring_loop(self):
        self.person, self.emulated = self.bring([standin.spec("loop")], address=self.wire.address)
        self.agent.wait_usb(LOOP)
        self.emulated.wait_ready()  # of a client that is killed later: what is connected breaks at once

    def events(self):
        return {
            "plug": lambda: self.plug(True),
            "unplug": lambda: self.plug(False),
            "deny": lambda: self.try_usb("deny", LOOP),
            "allow": lambda: self.try_usb("allow", LOOP),
            "detach": lambda: self.try_usb("detach", self.row()),
            "device_del": self.delete,
            "unbind": self.deauthorize,
            "kill": lambda: self.person.process.kill(),
            "reset": self.wire.reset,
            "guest_reset": self.reset_guest,
        }

    def row(self):
        rows = [l.split()[0] for l in self.usb("list").splitlines() if LOOP in l]
        return rows[0] if rows else "0"

    def try_usb(self, *words):
        """Words may be refused: there is nothing to detach, say."""
        run_once(self.server.directory, "usb", "--run-dir=" + self.server.run_dir, *words)

    def plug(self, there):
        with self.lock:
            try:
                if there and "loop" not in self.emulated.command("list"):
                    self.emulated.plug(standin.spec("loop"))
                elif not there and "loop" in self.emulated.command("list"):
                    self.emulated.unplug("loop")
            except standin.Refused:  # the client is dead
                pass

    def delete(self):
        lost = [l.partition(" on ")[2].partition(",")[0] for l in self.usb("list").splitlines() if " on qrdp" in l]
        with self.lock:
            try:
                if lost:
                    self.vm.qmp.command("device_del", id=lost[0])
            except QmpError:  # it is gone already
                pass

    def deauthorize(self):
        with self.lock:  # its answer is not waited for: a guest that is reset gives none
            self.agent.start_script(
                "for d in /sys/bus/usb/devices/*; do grep -qs 1209 $d/idVendor && echo 0 >$d/authorized; done")

    def reset_guest(self):
        with self.lock:
            self.vm.qmp.command("system_reset")

    def settle(self, names, boot):
        """Whatever state that has left: plugged in again, the device works, on whatever slot there is."""
        if "guest_reset" in names:
            wait_for(lambda: self.agent.ready() != boot, 90, "the guest to start again")
        self.try_usb("allow", LOOP)
        if {"kill", "reset"} & set(names):
            self.person.stop()
            self.emulated.close()
        else:
            self.plug(False)
        self.agent.wait_usb(LOOP, present=False)
        wait_for(lambda: LOOP not in self.usb("list"), 30, lambda: "the device to leave: " + self.usb("list"))
        if {"kill", "reset"} & set(names):
            self.bring_loop()
        else:
            self.plug(True)
        self.agent.wait_usb(LOOP)
        answer = self.agent.shell("usbdo %s claim=0 out=01.c0ffee in=81.512" % LOOP).split("\n")
        self.assertEqual(answer[1:3], ["ok 3 ", "ok 3 c0ffee"])

    def run_pairs(self, pairs):
        events, dice = self.events(), random.Random(int(os.environ.get("QRDP_TEST_SEED", "7")))
        for first, second in pairs:
            offset = dice.choice((0, dice.uniform(0, self.SPREAD)))
            with self.subTest(first=first, second=second, offset=offset):
                say("%s, and %s %d ms later" % (first, second, offset * 1000))
                boot = self.agent.ready() if "guest_reset" in (first, second) else None
                if first == "plug":
                    self.plug(False)
                    self.agent.wait_usb(LOOP, present=False)
                together((0, events[first]), (offset, events[second]))
                self.settle((first, second), boot)
                self.server.status()
        self.check_strict(self.emulated, "loop")

    def test_some_pairs(self):
        self.run_pairs([("unplug", "plug"), ("deny", "allow"), ("detach", "unplug"), ("unplug", "device_del"),
                        ("unbind", "detach"), ("plug", "deny"), ("device_del", "kill"), ("deny", "reset"),
                        ("guest_reset", "unplug")])

    @full
    def test_all_pairs(self):
        pairs = list(itertools.product(self.events(), repeat=2))
        random.Random(7).shuffle(pairs)
        self.run_pairs(pairs)
