"""(5) Every class of USB device that QEMU or a gadget can be, from a client with a real USB stack.

Two machines: the target behind qrdp, and the client machine with the stock xfreerdp3 and the devices. Each
device appears in the target, its driver binds, its work is done with the bytes compared at both ends, it is
unplugged and plugged in again.
"""

import hashlib
import os
import random

import clientvm
from qemu import EV_ABS, EV_KEY, EV_REL
from rig import SharedRig, full, say
from test_stick import on_image, read_file, write_file
from wait import wait_for

DISK, UAS, HID, SERIAL = "46f4:0001", "46f4:0003", "0627:0001", "0403:6001"
IDS = [DISK, UAS, HID, SERIAL]


def noise(size, seed=1):
    return random.Random(seed).randbytes(size)


class MachineRig(SharedRig):
    """Both machines, and one session that takes whatever of IDS is plugged in."""

    ids = IDS

    @classmethod
    def start(cls):
        # A cursor that blinks would have the client draw all the time.
        cls.server, cls.vm = cls.shared.run_vm(append="vt.global_cursor_default=0")
        cls.machine = clientvm.ClientMachine(cls.shared.path("client"))
        cls.shared.addCleanup(cls.machine.stop)
        cls.session = None

    def setUp(self):
        super().setUp()
        self.agent = self.vm.agent
        if not self.session:
            type(self).session = self.machine.connect(self.server, self.ids)

    def wait_device(self, ident, serial, driver=None, agent=None, present=True):
        """Waits until the device with this id and serial number is there with its driver, or gone."""
        agent = agent or self.agent

        def seen():
            found = [d for d in agent.usb() if d["id"] == ident and d["serial"] == serial and
                     (driver is None or driver in d["drivers"])]
            return (found or [None])[0] if present else not found
        return wait_for(seen, 60, lambda: "%s (%s) %s; there is %s; qrdp: %s" % (
            ident, serial, "with driver %s" % driver if present else "to go", agent.usb(),
            self.server.status_text()), 0.2)

    def in_and_out(self, ident, serial, driver, plug, unplug, work):
        """The whole life of a device: twice plugged in, at work, and unplugged."""
        for turn in range(2):
            plug()
            try:
                device = self.wait_device(ident, serial, driver)
                work(device, turn)
            finally:
                unplug()
            self.wait_device(ident, serial, present=False)


@full
class ClassesTest(MachineRig):
    def check_disk(self, kind, ident, driver, speed, mbits):
        path = self.stick(files=[("hello.bin", noise(300000))])
        image = lambda: self.machine.plug_disk(kind, "disk", path, speed, serial="DISK1")
        sums = []

        def work(device, turn):
            place, = self.agent.wait_mount(1, 120)
            self.assertEqual(device["speed"], mbits)
            if turn:
                self.assertEqual(read_file(self.agent, place + "/data"), sums[0])
            else:
                self.assertEqual(read_file(self.agent, place + "/hello.bin"),
                                 hashlib.sha256(noise(300000)).hexdigest())
                sums.append(write_file(self.agent, place + "/data", 2))
                self.assertEqual(read_file(self.agent, place + "/data"), sums[0])
            self.agent.shell("umount %s && sync" % place)

        self.in_and_out(ident, "DISK1", driver, image, lambda: self.machine.unplug_disk("disk"), work)
        self.assertEqual(on_image(path, "data"), sums[0])

    def test_storage_high_speed(self):
        self.check_disk("usb-storage", DISK, "usb-storage", "high", 480)

    def test_storage_super_speed(self):
        self.check_disk("usb-storage", DISK, "usb-storage", "super", 5000)

    def test_uas_high_speed(self):
        self.check_disk("usb-uas", UAS, "uas", "high", 480)

    def check_input(self, kind, act, wanted):
        """act() uses the device at the client; wanted(events) is true when all came."""
        def work(device, turn):
            wait_for(lambda: [n for n in self.agent.inputs() if n.startswith("QEMU")], 30, "an input device")
            self.agent.events()
            act()
            seen = []
            wait_for(lambda: seen.extend(self.agent.events()) or wanted(seen), 60,
                     lambda: "the events of the %s; seen: %s" % (kind, seen))
        self.in_and_out(HID, "HID1", "usbhid", lambda: self.machine.plug(kind, "hid", serial="HID1"),
                        lambda: self.machine.unplug("hid"), work)

    def test_keyboard(self):
        def act():
            for key in "q", "r", "d", "p":
                self.machine.qmp.send_key(key)
        self.check_input("usb-kbd", act, lambda seen: [
            (e.code, e.value) for e in seen if e.type == EV_KEY and e.value != 2] == [
                (code, value) for code in (16, 19, 32, 25) for value in (1, 0)])

    def test_mouse(self):
        def act():
            for _ in range(10):
                self.machine.qmp.command("input-send-event", events=[
                    {"type": "rel", "data": {"axis": "x", "value": 7}},
                    {"type": "rel", "data": {"axis": "y", "value": -3}}])
            for down in True, False:
                self.machine.qmp.mouse(button="right", down=down)
        self.check_input("usb-mouse", act, lambda seen: (
            sum(e.value for e in seen if e.type == EV_REL and e.code == 0),
            sum(e.value for e in seen if e.type == EV_REL and e.code == 1),
            [e.value for e in seen if e.type == EV_KEY and e.code == 0x111]) == (70, -30, [1, 0]))

    def test_tablet(self):
        def last(seen, code):
            return ([e.value for e in seen if e.type == EV_ABS and e.code == code] or [None])[-1]
        self.check_input("usb-tablet", lambda: self.machine.qmp.mouse(12345, 23456),
                         lambda seen: (last(seen, 0), last(seen, 1)) == (12345, 23456))

    def test_serial(self):
        line = self.machine.line("ttl")
        self.addCleanup(line.close)
        down, up = noise(20000, 2), noise(20000, 3)

        def work(device, turn):
            node = "/dev/ttyUSB0"
            wait_for(lambda: self.agent.run("[ -c %s ]" % node)[0] == 0, 30, node)
            self.agent.shell("stty -F %s 115200 raw -echo -ixon -ixoff" % node)
            # Opening the port empties the device's buffer: the other end speaks when it hears the port open.
            running = self.agent.start_script(
                "echo %s | xxd -r -p >/tmp/up; exec 3<>%s; cat /tmp/up >&3; head -c %d <&3 | sha256sum" % (
                    up.hex(), node, len(down)))
            came = b""
            while len(came) < len(up):
                came += line.recv(65536)
            self.assertEqual(came, up)
            line.sendall(down)
            status, text = self.agent.finish(running, 120)
            self.assertEqual(text.split()[0], hashlib.sha256(down).hexdigest())
        self.in_and_out(SERIAL, "SER1", "ftdi_sio",
                        lambda: self.machine.plug("usb-serial", "serial", serial="SER1", chardev="ttl"),
                        lambda: self.machine.unplug("serial"), work)
