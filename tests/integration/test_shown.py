"""(5) A high-speed stick at super speed: larger commands, transfers that end anywhere, ports that cannot."""

import os

import standin
from rig import say
from test_stick import STICK, UsbRig
from wait import wait_for

NOISE_AT = 8 << 20  # in an image, where its file system has nothing
# Direct reads and writes of {0}, whose data are in /tmp/data, in pieces of {1} bytes.
READ = "dd if={0} bs={1} count={2} iflag=direct 2>/dev/null | cmp -n $(({1} * {2})) - /tmp/data"
WRITE = "dd if=/tmp/data of={0} bs={1} count={2} oflag=direct 2>/dev/null"


class ShownRig(UsbRig):
    def disk(self, place):
        return os.path.basename(place).partition("-")[2].rstrip("0123456789")

    def largest(self, disk):
        """KiB that Linux asks of the disk at once."""
        return int(self.agent.shell("cat /sys/block/%s/queue/max_sectors_kb" % disk))

    def stick_in_guest(self):
        """(usb, name of the disk); nothing is mounted."""
        self.image = self.stick()
        with open(self.image, "r+b") as image:
            image.seek(NOISE_AT)
            image.write(os.urandom(1 << 20))
        client, usb = self.bring([standin.spec("stick", image=self.image, serial="S1")])
        place, = self.agent.wait_mount()
        self.agent.shell("umount " + place)
        return usb, self.disk(place)


class ShownTest(ShownRig):
    @classmethod
    def start(cls):
        cls.server, cls.vm = cls.shared.run_vm()

    def test_commands(self):
        """A MiB is one command each way, and what ends between the guest's packets of 1024 bytes arrives."""
        usb, disk = self.stick_in_guest()
        self.assertEqual(self.largest(disk), 1024)
        for direction, command in (("write", "2a, 1048576 bytes out"), ("read", "28, 1048576 bytes in")):
            self.agent.shell("usbbench seq /dev/%s %s %d 4" % (disk, direction, 1 << 20), 60)
            with open(self.path("standin.log")) as trace:
                self.assertEqual(trace.read().count("CBW opcode " + command), 4)
        for size in (512, 1536, 1024, 2560, 123392):
            self.agent.shell("dd if=/dev/urandom of=/tmp/data bs=1M count=1 2>/dev/null")
            self.agent.shell(WRITE.format("/dev/" + disk, size, 5), 60)
            self.agent.shell(READ.format("/dev/" + disk, size, 5), 60)
        self.check_strict(usb, "stick")
        self.assertEqual(usb.log("stick")["resets"], 0)

    def test_cut_short(self):
        """Data that end early on the device's packets of 512 bytes, empty ones, and stalls: Linux asks again."""
        usb, disk = self.stick_in_guest()
        self.agent.shell("dd if=/dev/urandom of=/tmp/data bs=1M count=3 2>/dev/null; "
                         "dd if=/tmp/data of=/dev/%s bs=1M count=3 conv=fsync 2>/dev/null" % disk, 60)
        for fault in ("short stick 81 512", "short stick 81 1536", "short stick 81 0", "stall stick 81"):
            # The disk is open before, so that the next thing asked of it are data.
            job = self.agent.start_script(
                "echo 3 >/proc/sys/vm/drop_caches; exec 3</dev/%s; dd bs=1M count=1 <&3 2>/dev/null >/tmp/read; "
                "echo 3 >/proc/sys/vm/drop_caches; rm -f /tmp/go; touch /tmp/opened; "
                "until [ -e /tmp/go ]; do usleep 10000; done; rm /tmp/opened; "
                "dd bs=1M count=2 <&3 2>/dev/null >>/tmp/read; cmp /tmp/read /tmp/data" % disk)
            wait_for(lambda: self.agent.run("[ -e /tmp/opened ]")[0] == 0, 30, "the disk to be open")
            before = usb.log("stick")
            usb.command(fault)
            self.agent.shell("touch /tmp/go")
            self.assertEqual(self.agent.finish(job, 60), (0, ""), fault)
            log = usb.log("stick")
            self.assertGreater(log["ep81.bytes"] - before["ep81.bytes"], 2 << 20, fault)
            say("%s: %d transfers" % (fault, log["ep81.transfers"] - before["ep81.transfers"]))
        self.check_strict(usb, "stick")

    def test_every_end(self):
        """Bulk-Only Transport by hand: what came, and the status word, whatever packets it fills."""
        usb, disk = self.stick_in_guest()
        with open(self.image, "rb") as image:
            image.seek(NOISE_AT)
            first = image.read(16)
        read = lambda blocks: "2800%08x00%04x00" % (NOISE_AT // 512, blocks)
        inquiry = "12000000ff00"

        def command(length, block, data, halt=False):
            return ["out=02.55534243%s%s80%s%02x%s" % (
                "01000000", length.to_bytes(4, "little").hex(), "00", len(block) // 2, block.ljust(32, "0")),
                data] + ["halt=81"] * halt + ["in=81.13"]

        def status(residue):
            return "ok 13 5553425301000000%s00" % residue.to_bytes(4, "little").hex()
        for fault, words, moved, residue in (
                ("", command(1536, read(3), "in=81.1536"), "ok 1536", 0),
                ("", command(1024, read(1), "in=81.1024", halt=True), "error", 512),
                ("", command(1024, inquiry, "in=81.1024"), "ok 36", 1024 - 36),
                ("", command(1 << 20, read(2048), "in=81.1048576"), "ok 1048576", 0),
                ("short stick 81 512", command(4096, read(8), "in=81.4096"), "ok 512", 0),
                ("short stick 81 0", command(4096, read(8), "in=81.4096"), "ok 0", 0),
                ("short stick 81 600064", command(1 << 20, read(2048), "in=81.1048576"), "ok 600064", 0)):
            if fault:
                usb.command(fault)
            lines = self.agent.shell("usbdo %s show=16 claim=0 %s" % (STICK, " ".join(words)), 60).splitlines()
            say("%s%s: %s" % (fault + ", " if fault else "", words[1], lines[2]))
            self.assertTrue(lines[1].startswith("ok 31"), lines)
            self.assertTrue(lines[2].startswith(moved), lines)
            if moved in ("ok 1536", "ok 512", "ok 1048576", "ok 600064"):
                self.assertIn(first.hex(), lines[2])
            self.assertTrue(lines[-1].startswith(status(residue)), lines)
        self.check_strict(usb, "stick")

    def test_uas_as_well(self):
        """Super speed with UAS as the other setting: usb-storage has it, over Bulk-Only Transport."""
        image = self.stick()
        client, usb = self.bring([standin.spec("stick", image=image, speed="super", uas="also")])
        self.assertEqual(self.agent.wait_usb(STICK, "usb-storage")["speed"], 5000)
        place, = self.agent.wait_mount()
        self.check_copy(place, image, megabytes=2)
        self.check_strict(usb, "stick")

    def test_uas_alone(self):
        """Super speed with UAS alone: no driver takes it, and the log says why."""
        client, usb = self.bring([standin.spec("stick", image=self.stick(), speed="super", uas="only")])
        device = self.agent.wait_usb(STICK)
        usb.wait_log("stick", lambda log: log["set_configuration"] == 1, 20, "the guest to configure it")
        self.assertEqual(self.agent.shell("cd /sys/bus/usb/devices; for d in *-[1-9]*:1.0; do "
                                          "[ $(cat ${d%:*}/idVendor) != 1209 ] || cat $d/bInterfaceClass; done"), "ff\n")
        self.assertEqual((device["speed"], device["drivers"]), (5000, set()))
        self.assertEqual(self.server.log().count("this storage speaks UAS alone"), 1)
        self.check_strict(usb, "stick")


class AsIsTest(ShownRig):
    @classmethod
    def start(cls):
        cls.server, cls.vm = cls.shared.run_vm(options=["--usb-as-is"])

    def test_high_speed(self):
        image = self.stick()
        client, usb = self.bring([standin.spec("stick", image=image)])
        place, = self.agent.wait_mount()
        self.assertEqual(self.agent.wait_usb(STICK)["speed"], 480)
        self.assertEqual(self.largest(self.disk(place)), 120)
        self.assertNotIn("shown", self.usb("list"))
        self.check_copy(place, image, megabytes=2)
        self.check_strict(usb, "stick")


class PortsTest(ShownRig):
    """Three ports, of which one can do super speed."""

    @classmethod
    def start(cls):
        extra = ["-device", "usb-ehci,id=slow", "-device", "qemu-xhci,id=half,p2=4,p3=1"]
        for number, port in enumerate(("slow.0,port=1", "half.0,port=3", "testusb.0,port=2")):
            extra += ["-chardev", "dbus,id=redir%d,name=org.qemu.usbredir" % number,
                      "-device", "usb-redir,chardev=redir%d,bus=%s" % (number, port)]
        cls.vm = cls.shared.machine(display="dbus,p2p=yes", extra=extra)
        cls.server = cls.shared.serve(cls.vm)

    def test_each(self):
        images, devices, ids = {}, [], []
        for name, pid in (("s1", "0101"), ("s2", "0102"), ("s3", "0103")):
            images[name] = self.stick(name + ".img", files=[("name", name.encode())])
            devices.append(standin.spec("stick", name=name, image=images[name], pid=pid, serial=name))
            ids.append("1209:" + pid)
        client, usb = self.bring(devices, ids=ids)
        places = {self.agent.shell("cat %s/name" % place): place for place in self.agent.wait_mount(3)}
        seen = {d["serial"]: d["speed"] for d in self.agent.usb() if d["id"] in ids}
        for name, ident in zip(images, ids):
            listed, = [l for l in self.usb("list").splitlines() if ident in l]
            say(listed)
            fast = " on redir2," in listed
            self.assertEqual(seen[name], 5000 if fast else 480)
            self.assertEqual("shown at super speed" in listed, fast)
            self.assertEqual(self.largest(self.disk(places[name])), 1024 if fast else 120)
            self.check_copy(places[name], images[name], megabytes=2)
        self.check_strict(usb, *images)
        self.assertEqual(sorted(seen.values()), [480, 480, 5000])
        self.assertEqual(self.server.log().count("not at super speed"), 2)
