"""(5) The client's USB devices in the guest: sticks, a keyboard, plugging, policy, slots."""

import hashlib
import os
import subprocess

import standin
from qemu import EV_KEY
from qrdp import run_once
from rig import USER, SharedRig, say
from wait import wait_for

STICK, KEYBOARD, LOOP = "1209:0001", "1209:0002", "1209:0003"
TABLET = "0627:0001"  # every machine's own
ALLOWED_BYTES = 65536  # of qrdp's memory: less than a slot's buffers, a device's tables or a transfer


def on_image(image, name):
    """SHA-256 of a file on a stick's image, read on the client's side."""
    done = subprocess.run(["mtype", "-i", image + "@@1M", "::" + name], stdout=subprocess.PIPE, check=True,
                          env=dict(os.environ, MTOOLS_SKIP_CHECK="1"))
    return hashlib.sha256(done.stdout).hexdigest()


def write_file(agent, path, megabytes, seconds=120):
    """Writes random data to a file of the guest and syncs; its SHA-256."""
    return agent.shell("dd if=/dev/urandom of=/tmp/data bs=1M count={1} 2>/dev/null && "
                       "dd if=/tmp/data of={0} bs=64k 2>/dev/null && sync && "
                       "sha256sum </tmp/data && rm /tmp/data".format(path, megabytes), seconds).split()[0]


def read_file(agent, path, seconds=120):
    """SHA-256 of a file of the guest, read from its medium and not from the guest's cache."""
    return agent.shell("echo 3 >/proc/sys/vm/drop_caches; sha256sum <" + path, seconds).split()[0]


class UsbRig(SharedRig):
    """A machine, and clients that bring devices."""

    left = None  # what qrdp held after the class's first test, with nobody there

    @classmethod
    def start(cls):
        cls.server, cls.vm = cls.shared.run_vm()

    def setUp(self):
        super().setUp()
        self.agent = self.vm.agent
        self.addCleanup(self.check_left)

    def check_left(self):
        """Clients are stopped by now: nothing of theirs is left.

        Nor in qrdp: the first time its descriptors and memory are noted, later they must not be more.
        """
        wait_for(lambda: not [d for d in self.agent.usb() if d["id"] != TABLET], 60,
                 lambda: "the client's devices to leave the guest, which has %s" % self.agent.usb())
        wait_for(lambda: "No USB device" in self.usb("list"), 10,
                 lambda: "the table of devices to be empty: " + self.usb("list"))
        wait_for(self.nobody_left, 10, lambda: "every client and slot to be free: %s" % self.server.status())
        if self.left is None:
            type(self).left = self.holdings()
        files, heap = self.left
        wait_for(lambda: self.holdings()[0] <= files and self.holdings()[1] <= heap + ALLOWED_BYTES, 10,
                 lambda: "qrdp to have at most %d files open and %d bytes allocated as before, and %d more: "
                 "it has %d and %d" % (files, heap, ALLOWED_BYTES, *self.holdings()))

    def nobody_left(self):
        status = self.server.status()
        return not status["clients"] and status["usb"]["free"] == status["usb"]["slots"]

    def holdings(self):
        """(descriptors, bytes allocated) of qrdp now."""
        return len(os.listdir("/proc/%d/fd" % self.server.process.pid)), self.server.status()["heap_bytes"]

    def bring(self, devices, ids=None, **options):
        """A connected client with these devices, or whose they are that have these ids; (client, usb)."""
        usb = standin.Standin(self.dir, devices)
        self.addCleanup(usb.close)
        ids = ids or dict.fromkeys(standin.IDS[d.split(":")[0]] for d in devices)
        client = self.client(self.server, ["/usb:id:" + "#".join(ids)], env=usb.env, **options)
        return client, usb

    def usb(self, *words):
        """What "qrdp usb WORDS" prints; it must succeed."""
        code, out, error = run_once(self.server.directory, "usb", "--run-dir=" + self.server.run_dir, *words)
        self.assertEqual(code, 0, error or out)
        return out

    def log_since(self, mark):
        return self.server.log()[mark:]

    def check_strict(self, usb, *names):
        for name in names:
            log = usb.log(name)
            self.assertEqual(log["violations"], 0, log)

    def check_keyboard(self, usb):
        """What the client's keyboard types arrives, and what the guest lights."""
        usb.type("echo It works: 100% | tr a-z A-Z >/tmp/typed\n")
        wait_for(lambda: self.agent.run("cat /tmp/typed")[1] == "IT WORKS: 100%\n", 60,
                 "what the keyboard typed to arrive in the guest")
        usb.command("key keyboard 0 39")
        wait_for(lambda: usb.leds()["caps"], 60, "the guest to light caps lock")
        usb.command("key keyboard 0 39")
        wait_for(lambda: not usb.leds()["caps"], 60, "the guest to darken caps lock")
        self.check_strict(usb, "keyboard")

    def check_copy(self, place, image, name="data", megabytes=8):
        """Writes, reads back and compares on both sides; leaves the stick unmounted."""
        written = write_file(self.agent, "%s/%s" % (place, name), megabytes)
        self.assertEqual(read_file(self.agent, "%s/%s" % (place, name)), written)
        self.agent.shell("umount %s && sync" % place)
        self.assertEqual(on_image(image, name), written)


class StickTest(UsbRig):
    def check_stick(self, speed):
        image = self.stick(files=[("hello.txt", b"hello\n")])
        client, usb = self.bring([standin.spec("stick", image=image, serial="S1", speed=speed)])
        place, = self.agent.wait_mount()
        device = self.agent.wait_usb(STICK, "usb-storage")
        self.assertEqual(device["serial"], "S1")
        part = os.path.basename(place).partition("-")[2]
        self.assertEqual(self.agent.shell("cd /sys/class/block/%s; cat start size" % part).split(),
                         ["2048", str(16 * 2048 - 2048)])
        self.assertEqual(self.agent.shell("cat %s/hello.txt" % place), "hello\n")
        say("%s speed: 8 MiB written and read back" % speed)
        self.check_copy(place, image)
        self.check_strict(usb, "stick")
        log = usb.log("stick")
        self.assertEqual(log["resets"], 0, log)
        self.assertEqual(log["set_configuration"], 1, log)
        return device

    def test_high_speed(self):
        self.assertEqual(self.check_stick("high")["speed"], 5000)
        self.assertIn("shown at super speed", self.usb("list"))

    def test_super_speed(self):
        self.assertEqual(self.check_stick("super")["speed"], 5000)

    def test_keyboard(self):
        client, usb = self.bring([standin.spec("keyboard")])
        self.agent.wait_usb(KEYBOARD, "usbhid")
        self.check_keyboard(usb)

    def test_both_under_video(self):
        """A keyboard types and the whole screen moves while a stick is written and read."""
        self.addCleanup(self.agent.drm, "off")
        image = self.stick()
        client, usb = self.bring([standin.spec("stick", image=image), standin.spec("keyboard")])
        place, = self.agent.wait_mount()
        self.agent.wait_usb(KEYBOARD, "usbhid")
        self.agent.drm()
        self.agent.events()
        self.agent.animate("scroll", 10)
        running = self.agent.start_script(
            "rm -f /tmp/stop; dd if=/dev/urandom of=/tmp/data bs=1M count=1 2>/dev/null; "
            "sum=$(sha256sum </tmp/data); "
            "while [ ! -e /tmp/stop ]; do "
            "dd if=/tmp/data of={0}/data bs=64k conv=fsync 2>/dev/null || exit 1; "
            "echo 3 >/proc/sys/vm/drop_caches; [ \"$(sha256sum <{0}/data)\" = \"$sum\" ] || exit 2; done; "
            "echo $sum; rm /tmp/data".format(place))
        seen, expected = [], 0

        def typed():
            seen.extend(e.code for e in self.agent.events() if e.type == EV_KEY and e.value == 1)
            return len(seen) >= expected
        # A word at a time: the agent is drawing, and the guest's kernel keeps few events for it.
        for word in "the quick brown fox jumps over the lazy dog".split():
            usb.type(word)
            expected += len(word)
            wait_for(typed, 30, lambda: "%d strokes in the guest, which saw %d" % (expected, len(seen)))
        self.assertEqual(len(seen), expected)
        pictures = set()
        wait_for(lambda: pictures.add(client.screen().crc()) or len(pictures) >= 5, 60,
                 lambda: "5 pictures in the window meanwhile, seen: %d" % len(pictures))
        self.agent.shell("touch /tmp/stop")
        status, sums = self.agent.finish(running, 60)
        self.agent.animate_stop()
        self.assertEqual(status, 0, sums)
        self.agent.shell("umount %s && sync" % place)
        self.assertEqual(on_image(image, "data"), sums.split()[0])
        self.check_strict(usb, "stick", "keyboard")

    def test_hotplug(self):
        """Plugged after the client has connected, unplugged, plugged again, three times."""
        image = self.stick(files=[("hello.txt", b"hello\n")])
        spec = standin.spec("stick", image=image)
        client, usb = self.bring([], ids=[STICK])
        for _ in range(3):
            name = usb.plug(spec)
            place, = self.agent.wait_mount()
            self.assertEqual(self.agent.shell("cat %s/hello.txt" % place), "hello\n")
            self.check_strict(usb, name)
            self.assertIn("3 of 4 redirection slots are free", self.usb("list"))
            usb.unplug(name)
            self.agent.wait_usb(STICK, present=False)
            self.agent.wait_mount(0)
            wait_for(lambda: "4 of 4 redirection slots are free" in self.usb("list"), 10,
                     lambda: "the slot to be free again: " + self.usb("list"))

    def test_next_client(self):
        """Client after client: each finds the slots free."""
        image = self.stick(files=[("hello.txt", b"hello\n")])
        for _ in range(3):
            client, usb = self.bring([standin.spec("stick", image=image)])
            place, = self.agent.wait_mount()
            self.assertEqual(self.agent.shell("cat %s/hello.txt" % place), "hello\n")
            client.stop()
            usb.close()


class PolicyTest(UsbRig):
    """One slot in use at a time, a rule against one device, and the operator's verbs."""

    @classmethod
    def start(cls):
        cls.server, cls.vm = cls.shared.run_vm(
            options=["--usb-policy=-1,0x1209,0x0003,-1,0|0x03,-1,-1,-1,0|-1,-1,-1,-1,1"])

    def refusals(self, mark):
        return [line for line in self.log_since(mark).splitlines() if "not passed on" in line]

    def test_refused_and_allowed(self):
        mark = len(self.server.log())
        client, usb = self.bring([standin.spec("keyboard"), standin.spec("loop")])
        wait_for(lambda: self.usb("list").count("refused") == 2, 30,
                 lambda: "both devices to be refused: " + self.usb("list"))
        lines = self.refusals(mark)
        self.assertEqual(len(lines), 2, lines)
        for ident, why in ((KEYBOARD, "class 0x03"), (LOOP, LOOP)):
            shown = [l for l in self.usb("list").splitlines() if ident in l]
            self.assertEqual(len(shown), 1, shown)
            reason = shown[0].rpartition(": ")[2]
            self.assertEqual(len([l for l in lines if l.endswith(reason)]), 1, (reason, lines))
            self.assertIn(reason, self.server.status_text())
            self.assertIn(" from %s@127.0.0.1: refused, %s\n" % (USER, reason), self.server.status_text())
            say(reason)
        self.assertFalse([d for d in self.agent.usb() if d["id"].startswith("1209:")])

        say("allowed, denied, allowed again")
        for _ in range(2):
            self.usb("allow", KEYBOARD)
            self.agent.wait_usb(KEYBOARD, "usbhid")
            wait_for(lambda: "connected" in self.usb("list"), 10, lambda: self.usb("list"))
            self.usb("deny", KEYBOARD)
            self.agent.wait_usb(KEYBOARD, present=False)
            wait_for(lambda: "4 of 4 redirection slots" in self.usb("list"), 10, lambda: self.usb("list"))
            self.assertIn("denied by the operator", self.server.status_text())
        self.usb("allow", KEYBOARD)
        self.agent.wait_usb(KEYBOARD, "usbhid")
        usb.type("ok")
        self.check_strict(usb, "keyboard")

        say("detached: the client must plug it in again")
        row, = [l.split()[0] for l in self.usb("list").splitlines() if KEYBOARD in l]
        self.usb("detach", row)
        self.agent.wait_usb(KEYBOARD, present=False)
        wait_for(lambda: KEYBOARD not in self.usb("list"), 10, lambda: self.usb("list"))
        code, out, error = run_once(self.server.directory, "usb", "--run-dir=" + self.server.run_dir,
                                    "detach", row)
        self.assertNotEqual(code, 0)
        self.assertIn("There is no USB device", out + error)
        usb.unplug("keyboard")
        usb.plug(standin.spec("keyboard"))
        self.agent.wait_usb(KEYBOARD, "usbhid")


class OwnMachineTest(UsbRig):
    """qrdp serve: a machine with one chardev of its own and two ports left."""

    @classmethod
    def start(cls):
        cls.vm = cls.shared.machine(display="dbus,p2p=yes", extra=[
            "-chardev", "dbus,id=redir0,name=org.qemu.usbredir",
            "-device", "usb-redir,chardev=redir0,bus=testusb.0,port=2"])
        cls.server = cls.shared.serve(cls.vm)

    def test_slots_run_out(self):
        mark = len(self.server.log())
        devices = [standin.spec("loop", name="d%d" % n, pid="010%d" % n) for n in range(4)]
        client, usb = self.bring(devices, ids=["1209:010%d" % n for n in range(4)])
        wait_for(lambda: self.usb("list").count("connected") == 3 and "refused" in self.usb("list"), 60,
                 lambda: "three devices connected and one refused: " + self.usb("list"))
        wait_for(lambda: len([d for d in self.agent.usb() if d["id"].startswith("1209:010")]) == 3, 30,
                 lambda: "three devices in the guest: %s" % self.agent.usb())
        listed = self.usb("list")
        self.assertIn("redir0", listed)
        self.assertIn("no free USB port", listed)
        self.assertEqual(self.log_since(mark).count("no free USB port"), 1)
        self.assertIn("no free USB port", self.server.status_text())

        say("one goes, the refused one gets its slot")
        refused, = [l for l in listed.splitlines() if "no free USB port" in l]
        gone, = [l for l in listed.splitlines() if " on redir0" in l]
        usb.unplug("d" + gone.partition("1209:010")[2][0])
        wait_for(lambda: self.usb("list").count("connected") == 3, 30, lambda: self.usb("list"))
        self.agent.wait_usb("1209:010" + refused.partition("1209:010")[2][0])

    def test_stick(self):
        image = self.stick()
        client, usb = self.bring([standin.spec("stick", image=image)])
        place, = self.agent.wait_mount()
        self.check_copy(place, image, megabytes=2)
        self.check_strict(usb, "stick")


class LostSlotTest(UsbRig):
    """The operator unplugs QEMU's half of a slot under a device."""

    @classmethod
    def start(cls):
        cls.server, cls.vm = cls.shared.run_vm()

    def test_moves_on(self):
        client, usb = self.bring([standin.spec("keyboard")])
        self.agent.wait_usb(KEYBOARD, "usbhid")
        row, = [l for l in self.usb("list").splitlines() if KEYBOARD in l]
        lost = row.partition(" on ")[2].partition(",")[0]
        self.vm.qmp.command("device_del", id=lost)
        wait_for(lambda: "connected" in self.usb("list") and " on %s," % lost not in self.usb("list"), 30,
                 lambda: "the keyboard on another slot than %s: %s" % (lost, self.usb("list")))
        self.agent.wait_usb(KEYBOARD, "usbhid")
        usb.type("echo here >/tmp/again\n")
        wait_for(lambda: self.agent.run("cat /tmp/again")[1] == "here\n", 30, "typing to arrive again")
