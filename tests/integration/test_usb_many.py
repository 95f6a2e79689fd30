"""Many devices, several clients with devices, and slots that do not come."""

import array
import os
import select
import socket
import threading

import qrdp
import standin
from qrdp import run_once
from rig import PASSWORD, USER, full, say
from test_stick import KEYBOARD, STICK, UsbRig
from wait import wait_for

LOOP = "1209:0003"


class QmpProxy:
    """A monitor in front of QEMU's that plugs nothing: it says that it has.

    Descriptors are passed on, because qrdp hands QEMU its end of the display's connection.
    """

    LIES = (b'"chardev-add"', b'"device_add"')

    def __init__(self, path, target):
        self.path, self.target = path, target
        self.plugged = 0
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(path)
        self.socket.listen(4)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            with client, socket.socket(socket.AF_UNIX) as monitor:
                monitor.connect(self.target)
                self.pass_on(client, monitor)

    def pass_on(self, client, monitor):
        while True:
            for ready in select.select([client, monitor], [], [])[0]:
                data, fds, _, _ = socket.recv_fds(ready, 65536, 4)
                if not data:
                    return
                if ready is client and any(lie in data for lie in self.LIES):
                    self.plugged += b'"device_add"' in data
                    client.sendall(b'{"return": {}}\r\n')
                else:
                    socket.send_fds(monitor if ready is client else client, [data], array.array("i", fds))
                for fd in fds:
                    os.close(fd)

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


class NoSlotTest(UsbRig):
    """QEMU says that it has plugged a slot, and never offers it."""

    @classmethod
    def start(cls):
        cls.vm = cls.shared.machine(display="dbus,p2p=yes")
        cls.proxy = QmpProxy(cls.shared.path("proxy"), cls.vm.qmp_path)
        cls.addClassCleanup(cls.proxy.close)
        cls.server = cls.shared._server(qrdp.Qrdp(
            cls.shared.path("serve"), serve=["--qmp=" + cls.proxy.path], credentials=(USER, PASSWORD)))

    def test_refused(self):
        client, usb = self.bring([standin.spec("loop")])
        wait_for(lambda: "did not offer it" in self.usb("list"), 60, lambda: self.usb("list"))
        self.assertIn("refused", self.usb("list"))
        self.assertEqual(self.server.log().count("did not offer it"), 1)
        self.assertEqual(self.proxy.plugged, 1)
        say("refused; allowed by the operator, it is tried again")
        self.usb("allow", LOOP)
        wait_for(lambda: self.proxy.plugged == 2, 20, "another attempt: " + self.usb("list"))


def loops(names, first=0x100):
    """Specs of loop devices with these names and product numbers of their own."""
    return [standin.spec("loop", name=name, pid="%04x" % (first + n)) for n, name in enumerate(names)]


class Counting(UsbRig):
    def counts(self):
        """How many devices the table has in each state."""
        found = {}
        for device in self.server.status()["usb"]["devices"]:
            found[device["state"]] = found.get(device["state"], 0) + 1
        return found

    def wait_counts(self, seconds=120, **wanted):
        wait_for(lambda: self.counts() == wanted, seconds, lambda: "%r; there is: %s" % (
            wanted, self.usb("list")))

    def wait_guest(self, count, seconds=120):
        wait_for(lambda: len(self.ours()) == count, seconds, lambda: "%d devices in the guest, which has %r" % (
            count, sorted(self.ours())))

    def ours(self):
        """Ids of the clients' devices that the guest has, in two processes: agent.usb() needs a hundred."""
        lines = self.agent.shell("cat /sys/bus/usb/devices/*/uevent 2>/dev/null | grep ^PRODUCT=1209/; true",
                                 120).split()
        return {"1209:%04x" % int(line.split("/")[1], 16) for line in lines}


class ManyTest(Counting):
    """Two people at one machine, with a box of devices each."""

    @classmethod
    def start(cls):
        cls.server, cls.vm = cls.shared.run_vm(options=["--share"])

    def test_sixteen(self):
        """More than there are slots at first, all at once; they work, and go in another order."""
        image = self.stick()
        names = ["loop%d" % n for n in range(14)]
        client, usb = self.bring(
            loops(names) + [standin.spec("stick", image=image), standin.spec("keyboard")],
            ids=["1209:%04x" % (0x100 + n) for n in range(14)] + [STICK, KEYBOARD])
        self.wait_counts(connected=16)
        self.wait_guest(16)
        self.assertEqual(self.server.status()["usb"]["slots"], 16)
        place, = self.agent.wait_mount()
        self.agent.wait_usb("1209:0002", "usbhid")
        usb.type("echo many >/tmp/many\n")
        self.check_copy(place, image, megabytes=2)
        wait_for(lambda: self.agent.run("cat /tmp/many")[1] == "many\n", 60, "what was typed to arrive")

        say("half of them go, and come again while others go")
        for name in names[::2]:
            usb.unplug(name)
        self.wait_guest(9)
        for even, odd in zip(names[::2], names[1::2]):
            usb.plug(standin.spec("loop", name=even, pid="%04x" % (0x100 + names.index(even))))
            usb.unplug(odd)
        self.wait_guest(9)
        self.wait_counts(connected=9)
        self.assertEqual(self.ours(), {"1209:%04x" % (0x100 + n) for n in range(0, 14, 2)} |
                         {"1209:0001", "1209:0002"})
        self.check_strict(usb, "stick", "keyboard", *names[::2])

    def test_two_clients(self):
        """Each has devices of the same kind; one person leaves, the other's go on."""
        image, other = self.stick("a.img"), self.stick("b.img")
        anne, anne_usb = self.bring([standin.spec("stick", image=image, serial="A"), standin.spec("loop")],
                                    name="anne")
        mine, = self.agent.wait_mount()
        os.mkdir(self.path("bob"))
        bob_usb = standin.Standin(self.path("bob"), [standin.spec("stick", image=other, serial="B"),
                                                     standin.spec("keyboard")])
        self.addCleanup(bob_usb.close)
        bob = self.client(self.server, ["/usb:id:1209:0001#1209:0002"], env=bob_usb.env, name="bob")
        self.wait_counts(connected=4)
        places = self.agent.wait_mount(2)
        self.assertEqual({d["client"] for d in self.server.status()["usb"]["devices"]},
                         {c["id"] for c in self.server.status()["clients"]})
        for place in places:
            self.agent.shell("echo %s >%s/place && sync" % (place, place))

        say("one client is killed while both sticks are written")
        jobs = [self.agent.start_script(
            "while [ ! -e /tmp/enough ]; do dd if=/dev/urandom of=%s/data bs=64k count=4 conv=fsync "
            "2>/dev/null || exit 1; done" % place) for place in places]
        anne_usb.wait_log("stick", lambda log: log["ep02.bytes"] > 1 << 19, 120, "writing")
        bob_usb.wait_log("stick", lambda log: log["ep02.bytes"] > 1 << 19, 120, "writing")
        anne.process.kill()
        self.wait_counts(connected=2)
        start = bob_usb.log("stick")["ep02.bytes"]
        bob_usb.wait_log("stick", lambda log: log["ep02.bytes"] > start + (1 << 19), 120, "writing")
        self.agent.shell("touch /tmp/enough")
        ends = [self.agent.finish(job, 120)[0] for job in jobs]
        self.assertEqual(ends, [1 if place == mine else 0 for place in places])
        self.agent.wait_mount(1)
        self.agent.shell("rm /tmp/enough")
        self.check_strict(bob_usb, "stick", "keyboard")


@full
class FullTest(Counting):
    """Every slot that there can be, and more devices than that."""

    @classmethod
    def start(cls):
        cls.server, cls.vm = cls.shared.run_vm(options=["--share", "--usb-slots=28"])

    def test_full(self):
        boxes = []
        for n, name in enumerate(("anne", "bob")):
            os.mkdir(self.path(name + "-usb"))
            first = 0x100 + 15 * n
            usb = standin.Standin(self.path(name + "-usb"), loops(["d%d" % i for i in range(15)], first))
            self.addCleanup(usb.close)
            ids = "#".join("1209:%04x" % (first + i) for i in range(15))
            self.client(self.server, ["/usb:id:" + ids], env=usb.env, name=name)
            boxes.append(usb)
        self.wait_counts(400, connected=28, refused=2)
        self.wait_guest(28, 400)
        listed = self.usb("list")
        self.assertEqual(listed.count("all 28 redirection slots of the VM are in use"), 2)
        self.assertIn("0 of 28 redirection slots are free", listed)
        self.assertEqual(self.server.log().count("not passed on"), 2)
        code, out, error = run_once(self.server.directory, "usb", "--run-dir=" + self.server.run_dir,
                                    "allow", listed.partition("refused")[0].split()[-1])
        self.assertEqual(code, 0, error)
        self.wait_counts(connected=28, refused=2)

        say("one goes: one of the refused gets its slot")
        boxes[0].unplug("d3")
        self.wait_counts(connected=28, refused=1)
        self.wait_guest(28)
        for usb in boxes:
            self.check_strict(usb, *sorted(usb.devices()))
