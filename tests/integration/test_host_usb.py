"""Devices plugged into the server itself: qrdp usb attach, through the same slots and policy.

The stand-in takes libusb's place inside qrdp.
"""

import os
import re
import signal

import standin
from proc import children
from qrdp import run_once
from rig import Rig, SharedRig, say
from test_stick import KEYBOARD, LOOP, STICK, read_file, write_file
from wait import wait_for


class HostUsbTest(SharedRig):
    @classmethod
    def start(cls):
        cls.image = cls.shared.stick(files=[("hello.txt", b"hello\n")])
        cls.host = standin.Standin(cls.shared.dir, [
            standin.spec("stick", image=cls.image, serial="H1"), standin.spec("keyboard"),
            standin.spec("loop"), standin.spec("loop", name="twin1", pid="0100"),
            standin.spec("loop", name="twin2", pid="0100")])
        cls.addClassCleanup(cls.host.close)
        cls.server, cls.vm = cls.shared.run_vm(
            options=["--usb-policy=-1,0x1209,0x0003,-1,0|-1,-1,-1,-1,1"], env=cls.host.env)

    def setUp(self):
        super().setUp()
        self.agent = self.vm.agent
        self.refused("attach", "1209:9999")  # qrdp asks libusb only when it has to: the stand-in is there now
        self.addCleanup(self.check_left)

    def check_left(self):
        wait_for(lambda: re.match(r"No USB device .*\n(\d+) of \1 ", self.usb("list")), 60,
                 lambda: "the table of devices to be empty: " + self.usb("list"))
        wait_for(lambda: not [d for d in self.agent.usb() if d["id"].startswith("1209:")], 60,
                 lambda: "the devices to leave the guest, which has %s" % self.agent.usb())

    def ask(self, *words):
        return run_once(self.server.directory, "usb", "--run-dir=" + self.server.run_dir, *words,
                        seconds=60)

    def usb(self, *words):
        code, out, error = self.ask(*words)
        self.assertEqual(code, 0, error or out)
        return out

    def refused(self, *words):
        code, out, error = self.ask(*words)
        self.assertEqual((code, out), (1, ""))
        return error

    def wait_log(self, name, **values):
        self.host.wait_log(name, lambda log: all(log[k] == v for k, v in values.items()), 60, str(values))

    def test_stick(self):
        self.assertEqual(self.host.log("stick")["kernel"], 1)
        row = self.usb("attach", STICK)
        self.assertIn("connected", row)
        self.assertIn("this host's 1-", row)
        place, = self.agent.wait_mount()
        self.wait_log("stick", kernel=0, claimed=1)
        self.assertEqual(self.agent.wait_usb(STICK, "usb-storage")["serial"], "H1")
        self.assertEqual(self.agent.shell("cat %s/hello.txt" % place), "hello\n")
        written = write_file(self.agent, place + "/data", 4)
        self.assertEqual(read_file(self.agent, place + "/data"), written)
        self.assertIn("number %s already" % row.split()[0], self.refused("attach", STICK))
        self.agent.shell("umount " + place)

        say("detached: this host's driver has it again")
        self.usb("detach", row.split()[0])
        self.agent.wait_usb(STICK, present=False)
        self.wait_log("stick", kernel=1, claimed=0, opens=0)
        wait_for(lambda: STICK not in self.usb("list"), 30, lambda: self.usb("list"))

        say("attached again, by bus and device, and unplugged")
        device = self.host.devices()["stick"]
        self.usb("attach", "%s-%s" % (device["bus"], device["address"]))
        self.agent.wait_mount()
        self.host.unplug("stick")
        self.agent.wait_usb(STICK, present=False)
        wait_for(lambda: STICK not in self.usb("list"), 30, lambda: self.usb("list"))
        self.host.plug(standin.spec("stick", image=self.image, serial="H1"))
        self.assertEqual(self.host.log("stick")["violations"], 0)

    def test_keyboard(self):
        row = self.usb("attach", KEYBOARD)
        self.agent.wait_usb(KEYBOARD, "usbhid")
        self.host.type("echo typed >/tmp/typed\n")
        wait_for(lambda: self.agent.run("cat /tmp/typed")[1] == "typed\n", 60, "what was typed to arrive")
        self.usb("deny", KEYBOARD)
        self.agent.wait_usb(KEYBOARD, present=False)
        self.wait_log("keyboard", kernel=1, claimed=0)
        self.assertIn("denied by the operator", self.usb("list"))
        self.usb("allow", row.split()[0])
        self.agent.wait_usb(KEYBOARD, "usbhid")

        say("QEMU's half of the slot goes: it gets another")
        lost = self.usb("list").partition(" on ")[2].partition(",")[0]
        self.vm.qmp.command("device_del", id=lost)
        wait_for(lambda: "connected" in self.usb("list") and " on %s," % lost not in self.usb("list"), 60,
                 lambda: "the keyboard on another slot than %s: %s" % (lost, self.usb("list")))
        self.agent.wait_usb(KEYBOARD, "usbhid")
        self.usb("detach", KEYBOARD)
        self.wait_log("keyboard", kernel=1, claimed=0, opens=0)

    def test_policy(self):
        mark = len(self.server.log())
        error = self.refused("attach", LOOP)
        self.assertRegex(error, r"^qrdp: refused: %s .*, this host's 1-\d+: " % LOOP)
        reason = error.strip().rpartition(": ")[2]
        row, = re.findall(r"^denied by --usb-policy \('qrdp usb allow (\d+)' lets it in\)$", reason)
        self.assertEqual(self.server.log()[mark:].count(reason), 1)
        self.assertEqual(self.host.log("loop")["claimed"], 0)
        self.assertIn(reason, self.server.status_text())
        self.assertIn("number %s already, and refused: %s" % (row, reason), self.refused("attach", LOOP))
        self.usb("allow", row)
        self.agent.wait_usb(LOOP)
        self.usb("detach", LOOP)

    def test_wrong_names(self):
        for which, part in (("1209:9999", "no USB device 1209:9999"), ("9-99", "no USB device 9-99"),
                            ("stick", "by VID:PID"), ("1209:0100", "name one by bus and device: ")):
            self.assertIn(part, self.refused("attach", which))

    def test_may_not(self):
        """What libusb refuses is explained with the file and the fix; then it works."""
        device = self.host.devices()["keyboard"]
        self.host.command("forbid keyboard 1")
        error = self.refused("attach", KEYBOARD)
        self.assertIn("/dev/bus/usb/%03d/%03d: let it read and write that file" % (
            int(device["bus"]), int(device["address"])), error)
        self.host.command("forbid keyboard 0")
        self.usb("attach", KEYBOARD)
        self.agent.wait_usb(KEYBOARD, "usbhid")
        self.usb("detach", KEYBOARD)


class HostUsbEndTest(Rig):
    """However it ends, this host has its device back."""

    def check_given_back(self, end):
        image = self.stick()
        host = standin.Standin(self.dir, [standin.spec("stick", image=image)])
        server, vm = self.run_vm(env=host.env)
        code, out, error = run_once(server.directory, "usb", "--run-dir=" + server.run_dir, "attach", STICK,
                                    seconds=60)
        self.assertEqual(code, 0, error)
        vm.agent.wait_mount()
        end(server, vm)
        server.process.wait_exit(60)
        with open(host.env["QRDP_STANDIN_TRACE"]) as trace:
            calls = trace.read()
        self.assertGreater(calls.rindex("attach_kernel_driver 0"), calls.rindex("claim_interface 0"))
        self.assertGreater(calls.rindex("close"), calls.rindex("open"))

    def test_qrdp_ends(self):
        self.check_given_back(lambda server, vm: server.process.signal(signal.SIGTERM))

    def test_machine_dies(self):
        self.check_given_back(lambda server, vm: [os.kill(p, signal.SIGKILL) for p in
                                                  children(server.process.pid)])
