"""A network that fails for a moment: the device stays in the guest until its client is back."""

import os
import random
import time

import ownnet
import standin
from qrdp import run_once
from rig import full, full_run, say
from test_stick import KEYBOARD, STICK, UsbRig, on_image
from wait import together, wait_for

SERIAL = "GRACE-1"
# Writes files until /tmp/stop exists and notes what was acknowledged; {0} is the stick's place.
WRITE = ("n=0; : >/tmp/sums; while [ ! -e /tmp/stop ]; do n=$((n+1)); "
         "dd if=/dev/urandom of=/tmp/data bs=64k count=8 2>/dev/null; "
         "dd if=/tmp/data of={0}/f$((n%12)) bs=64k conv=fsync 2>/dev/null || exit 1; "
         "echo f$((n%12)) $(sha256sum </tmp/data) >>/tmp/sums; done")
FRIEND, FRIENDS_PASSWORD = "friend", "Wrong-Horse-8"


class GraceRig(UsbRig):
    grace = 300  # longer than any test: nothing here may depend on how fast the machine is
    options = ()

    @classmethod
    def start(cls):
        cls.server, cls.vm = cls.shared.run_vm(options=["--usb-grace=%d" % cls.grace, *cls.options])

    def setUp(self):
        super().setUp()
        self.image = self.stick(files=[("hello.txt", b"hello\n")])
        self.marked = self.unplugged()

    def unplugged(self):
        """How many devices the guest has seen going."""
        return int(self.agent.run("dmesg | grep -c 'USB disconnect'")[1])

    def bring_stick(self, image=None, serial=SERIAL, address=None, args=(), name=None, **options):
        usb = standin.Standin(self.dir, [standin.spec("stick", image=image or self.image, serial=serial,
                                                      **options)])
        self.addCleanup(usb.close)
        client = self.client(self.server, ["/usb:id:" + STICK] + list(args), env=usb.env, address=address,
                             name=name)
        return client, usb

    def start_writing(self, usb):
        """Files are being written to the mounted stick."""
        place, = self.agent.wait_mount()
        self.agent.shell("rm -f /tmp/stop /tmp/sums")
        job = self.agent.start_script(WRITE.format(place))
        usb.wait_log("stick", lambda log: log["ep02.bytes"] > 1 << 20, 60, "files being written")
        return place, job

    def wait_listed(self, *words):
        wait_for(lambda: all(w in self.usb("list") for w in words), 60,
                 lambda: "a device with %s: %s" % (words, self.usb("list")))

    def check_goes_on(self, usb, place, job):
        """The writer goes on; what it was told to be written is on the medium. The guest saw no unplug."""
        before = usb.log("stick")["ep02.bytes"]
        usb.wait_log("stick", lambda log: log["ep02.bytes"] > before + (1 << 20), 120, "writing to go on")
        self.agent.shell("touch /tmp/stop")
        status, text = self.agent.finish(job, 120)
        self.assertEqual((status, text), (0, ""))
        self.assertEqual(self.unplugged(), self.marked)
        self.assertEqual(self.agent.mounts().get(place), "vfat")
        sums = dict(line.split()[:2] for line in self.agent.shell("cat /tmp/sums").splitlines())
        self.agent.shell("umount %s && sync" % place, 60)
        self.assertGreater(len(sums), 2)
        for name, wanted in sums.items():
            self.assertEqual(on_image(self.image, name), wanted, name)
        return sums

    def check_stalled(self, *said):
        """The network of a client that writes stalls, and the user connects again from elsewhere."""
        network = self.network(self.server.address)
        client, usb = self.bring_stick(address=network.address)
        place, job = self.start_writing(usb)
        network.stall()
        mark = len(self.server.log())
        again, usb2 = self.bring_stick()
        wait_for(lambda: "given back to the guest" in self.log_since(mark), 90,
                 lambda: "the device to be given back: " + self.usb("list"))
        for text in said:
            self.server.wait_log(text, 30)
        self.assertEqual(len([d for d in self.agent.usb() if d["id"] == STICK]), 1)
        client.process.kill()
        self.check_goes_on(usb2, place, job)

    def slots_free(self):
        wait_for(lambda: "4 of 4 redirection slots" in self.usb("list"), 30, lambda: self.usb("list"))


class ReconnectTest(GraceRig):
    def test_reset_and_auto_reconnect(self):
        """The connection is reset twice in mid-write, and the client comes back by itself."""
        network = self.network(self.server.address)
        client, usb = self.bring_stick(address=network.address, args=["+auto-reconnect"])
        place, job = self.start_writing(usb)
        row = self.usb("list").split()[0]
        for turn in range(2):
            mark = len(self.server.log())
            network.reset()
            wait_for(lambda: "given back to the guest" in self.log_since(mark), 90,
                     lambda: "the device to be given back: " + self.usb("list"))
            before = usb.log("stick")["ep02.bytes"]
            usb.wait_log("stick", lambda log: log["ep02.bytes"] > before + (1 << 19), 120, "writing to go on")
        self.assertEqual(self.usb("list").split()[:2], [row, "connected"])
        self.check_goes_on(usb, place, job)

    def test_client_killed(self):
        """The client dies in mid-write; another one brings the same stick, and another user gets nothing."""
        client, usb = self.bring_stick()
        place, job = self.start_writing(usb)
        client.process.kill()
        usb.close()
        self.wait_listed("suspended", " s left")
        self.assertIn("suspended", self.server.status_text())
        self.assertEqual(self.unplugged(), self.marked)

        say("somebody else with the same stick")
        code, out, error = run_once(self.server.directory, "passwd",
                                    "--auth-file=" + os.path.join(self.server.directory, "auth"), FRIEND,
                                    stdin=FRIENDS_PASSWORD + "\n")
        self.assertEqual(code, 0, error)
        other = self.stick("other.img")
        theirs = standin.Standin(self.dir, [standin.spec("stick", image=other, serial=SERIAL)])
        self.addCleanup(theirs.close)
        friend = self.client(self.server, ["/usb:id:" + STICK], env=theirs.env,
                             credentials=(FRIEND, FRIENDS_PASSWORD))
        self.wait_listed("connected", "suspended")
        self.agent.wait_mount(2)
        friend.stop()
        self.agent.wait_mount(1)
        self.marked += 1

        say("the first one again")
        client, usb = self.bring_stick()
        self.wait_listed("connected")
        self.check_goes_on(usb, place, job)
        self.check_strict(usb, "stick")

    def test_stalled_connection(self):
        """The old connection seems to be alive when the user connects again: it gives way."""
        self.check_stalled()

    def test_keyboard(self):
        """An interrupt endpoint is read again after the drop, and the guest is well meanwhile."""
        network = self.network(self.server.address)
        usb = standin.Standin(self.dir, [standin.spec("keyboard", serial=SERIAL)])
        self.addCleanup(usb.close)
        self.client(self.server, ["/usb:id:" + KEYBOARD, "+auto-reconnect"], env=usb.env, address=network.address)
        self.agent.wait_usb(KEYBOARD, "usbhid")
        for turn in range(3):
            usb.type("echo turn %d >/tmp/typed\n" % turn)
            wait_for(lambda: self.agent.run("cat /tmp/typed")[1] == "turn %d\n" % turn, 60, "typing to arrive")
            mark = len(self.server.log())
            network.reset()
            self.agent.ask("ping", seconds=30)
            wait_for(lambda: "given back to the guest" in self.log_since(mark), 90,
                     lambda: "the keyboard to be given back: " + self.usb("list"))
        usb.type("echo end >/tmp/typed\n")
        wait_for(lambda: self.agent.run("cat /tmp/typed")[1] == "end\n", 60, "typing to arrive")
        self.assertEqual(self.unplugged(), self.marked)

    def test_open_serial_port(self):
        """A program that has a serial port open goes on with it."""
        network = self.network(self.server.address)
        usb = standin.Standin(self.dir, [standin.spec("pl2303", serial=SERIAL)])
        self.addCleanup(usb.close)
        self.client(self.server, ["/usb:id:" + standin.IDS["pl2303"], "+auto-reconnect"], env=usb.env,
                    address=network.address)
        self.agent.wait_usb(standin.IDS["pl2303"], "pl2303")
        wait_for(lambda: self.agent.run("test -e /dev/ttyUSB0")[0] == 0, 30, "the serial port")
        job = self.agent.start_script("rm -f /tmp/go; ttydo /dev/ttyUSB0 echo=5000 until=/tmp/go echo=5000 >/tmp/tty")
        for turn in range(2):
            wait_for(lambda: "ok echo" in self.agent.run("cat /tmp/tty")[1], 60, "bytes to come back")
            mark = len(self.server.log())
            network.reset()
            wait_for(lambda: "given back to the guest" in self.log_since(mark), 90,
                     lambda: "the adapter to be given back: " + self.usb("list"))
        self.agent.shell("touch /tmp/go")
        status, text = self.agent.finish(job, 90)
        self.assertEqual(status, 0, self.agent.shell("cat /tmp/tty"))
        self.assertEqual(self.unplugged(), self.marked)


@full
class LostTest(GraceRig):
    """The network is lost and nobody is told: what is sent gets no answer, not even the kernel's."""

    @classmethod
    def start(cls):
        cls.network = ownnet.OwnNetwork()
        cls.shared.addCleanup(cls.network.leave)
        super().start()

    def lose(self, seconds):
        self.network.lose()
        start = time.monotonic()
        wait_for(lambda: time.monotonic() - start > seconds, 60, "%d seconds to pass" % seconds)
        self.network.find()

    def test_session_goes_on(self):
        """Five seconds: the session goes on, and so does the writer."""
        client, usb = self.bring_stick()
        place, job = self.start_writing(usb)
        mark = len(self.server.log())
        self.lose(5)
        self.check_goes_on(usb, place, job)
        self.assertNotIn("connection ended", self.log_since(mark))

    def test_client_comes_back(self):
        """A quarter of a minute: the stock client gives up after nine seconds and connects again.

        By then the guest must not have been told that its requests have failed: it would reset the stick.
        """
        client, usb = self.bring_stick(args=["+auto-reconnect"])
        place, job = self.start_writing(usb)
        mark = len(self.server.log())
        self.lose(15)
        wait_for(lambda: "given back to the guest" in self.log_since(mark), 90,
                 lambda: "the device to be given back: " + self.log_since(mark))
        self.check_goes_on(usb, place, job)


class ShareTest(GraceRig):
    """Several clients at once: a login ends nobody, so what looks like a second device may be the first one."""
    options = ("--share",)

    def test_stalled_connection(self):
        """The old connection is not closed, and silent: it is ended, and its stick goes on."""
        self.check_stalled("it is silent, and its user is back with the same device")

    def test_stalled_serial_port(self):
        """A program has a serial port open, nothing is on its way, and the client changes networks."""
        network = self.network(self.server.address)
        devices = [standin.spec("pl2303", serial=SERIAL)]
        usb = standin.Standin(self.dir, devices)
        self.addCleanup(usb.close)
        client = self.client(self.server, ["/usb:id:" + standin.IDS["pl2303"]], env=usb.env, address=network.address)
        self.agent.wait_usb(standin.IDS["pl2303"], "pl2303")
        wait_for(lambda: self.agent.run("test -e /dev/ttyUSB0")[0] == 0, 30, "the serial port")
        job = self.agent.start_script("rm -f /tmp/go; ttydo /dev/ttyUSB0 echo=5000 until=/tmp/go echo=5000 >/tmp/tty")
        wait_for(lambda: "ok echo" in self.agent.run("cat /tmp/tty")[1], 60, "bytes to come back")
        network.stall()
        mark = len(self.server.log())
        usb2 = standin.Standin(self.dir, devices)
        self.addCleanup(usb2.close)
        self.client(self.server, ["/usb:id:" + standin.IDS["pl2303"]], env=usb2.env)
        wait_for(lambda: "given back to the guest" in self.log_since(mark), 90,
                 lambda: "the adapter to be given back: " + self.usb("list"))
        self.agent.shell("touch /tmp/go")
        status, text = self.agent.finish(job, 90)
        self.assertEqual(status, 0, self.agent.shell("cat /tmp/tty"))
        self.assertEqual(self.unplugged(), self.marked)
        client.process.kill()

    def test_two_alike(self):
        """Two sticks with one serial number, and both clients are well: there are two in the guest."""
        client, usb = self.bring_stick()
        first, = self.agent.wait_mount()
        twin, usb2 = self.bring_stick(image=self.stick("twin.img", files=[("hello.txt", b"twin\n")]))
        places = self.agent.wait_mount(2)
        self.assertEqual(sorted(self.agent.shell("cat %s/hello.txt" % p) for p in places), ["hello\n", "twin\n"])
        self.assertEqual(self.unplugged(), self.marked)
        self.assertEqual(self.usb("list").count(" connected "), 2, self.usb("list"))
        self.assertTrue(client.process.alive())
        self.check_strict(usb, "stick")
        self.check_strict(usb2, "stick")


class SerialTest(GraceRig):
    def baud(self, usb, kind):
        return int(dict(word.split("=") for word in usb.command("state " + kind).split())["baud"])

    def test_open_port(self):
        """Two serial ports are open when the connection breaks, and go on at the same speed."""
        network = self.network(self.server.address)
        usb = standin.Standin(self.dir, [standin.spec("ftdi", serial="F1"), standin.spec("pl2303", serial="P1")])
        self.addCleanup(usb.close)
        self.client(self.server, ["/usb:id:%s#%s" % (standin.IDS["ftdi"], standin.IDS["pl2303"]),
                                  "+auto-reconnect"], env=usb.env, address=network.address)
        jobs = {}
        for kind, driver in (("ftdi", "ftdi_sio"), ("pl2303", "pl2303")):
            self.agent.wait_usb(standin.IDS[kind], driver, seconds=60)
            port = wait_for(lambda: self.agent.run(
                "ls /sys/bus/usb-serial/drivers/%s/ | grep ttyUSB" % driver)[1].strip(), 30, "a serial port")
            jobs[kind] = self.agent.start_script(
                "ttydo /dev/%s baud=9600 dtr=1 rts=1 wait=cts line >/tmp/%s 2>&1 && "
                "ttydo /dev/%s hup >>/tmp/%s 2>&1" % (port, kind, port, kind))
            wait_for(lambda: abs(self.baud(usb, kind) - 9600) < 96, 60,
                     lambda: "the port to be open: " + self.agent.run("cat /tmp/" + kind)[1])
            ep = "ep83.queued" if kind == "pl2303" else "ep81.queued"
            usb.wait_log(kind, lambda log: log[ep] > 10, 60, "reading ahead")
            # What is asked while the connection breaks ends with an error: not in the midst of the modem lines.
            wait_for(lambda: "ok wait=cts" in self.agent.run("cat /tmp/" + kind)[1], 60,
                     lambda: "the modem lines to be set: " + self.agent.run("cat /tmp/" + kind)[1])
        mark = len(self.server.log())
        network.reset()
        wait_for(lambda: self.log_since(mark).count("given back to the guest") == 2, 90,
                 lambda: "both devices to be given back: " + self.usb("list"))
        for kind in jobs:
            self.assertAlmostEqual(self.baud(usb, kind), 9600, delta=96)
            usb.command("send %s after the storm" % kind)
            wait_for(lambda: "after the storm" in self.agent.run("cat /tmp/" + kind)[1], 60,
                     lambda: "a line to arrive: " + self.agent.run("cat /tmp/" + kind)[1])
        self.assertEqual(self.unplugged(), self.marked)
        for kind, job in jobs.items():
            usb.unplug(kind)
            self.agent.finish(job, 90)


class UnplugTest(GraceRig):
    def wait_unplugged(self, count=1):
        wait_for(lambda: self.unplugged() == self.marked + count, 60,
                 lambda: "the guest to lose the device: " + self.usb("list"))
        self.agent.wait_mount(0)

    def test_at_once(self):
        say("a client that signs off")
        client, usb = self.bring_stick()
        self.agent.wait_mount()
        client.stop()
        self.wait_unplugged()
        self.slots_free()

        say("no serial number")
        client, usb = self.bring_stick(serial="")
        self.agent.wait_mount()
        client.process.kill()
        self.wait_unplugged(2)
        self.slots_free()

        say("detached by the operator while it waits")
        client, usb = self.bring_stick()
        self.agent.wait_mount()
        client.process.kill()
        self.wait_listed("suspended")
        self.assertEqual(self.unplugged(), self.marked + 2)
        self.usb("detach", self.usb("list").split()[0])
        self.wait_unplugged(3)
        self.slots_free()

    def test_other_medium(self):
        """The same stick to look at, with another size: unplugged, and plugged in as a new one."""
        client, usb = self.bring_stick()
        self.agent.wait_mount()
        client.process.kill()
        self.wait_listed("suspended")
        larger = self.stick("larger.img", megabytes=20)
        client, usb = self.bring_stick(image=larger)
        self.server.wait_log("plugged in as a new device: its medium is not the same one", 60)
        wait_for(lambda: self.unplugged() == self.marked + 1, 60, "the guest to lose the device")
        self.wait_listed("connected")
        self.agent.wait_usb(STICK, "usb-storage")
        self.check_strict(usb, "stick")


class ReturnTest(GraceRig):
    """Something else happens while a stick that has come back is being looked at, or at any moment of its return."""

    def begin(self):
        """A mounted stick, whose client comes back by itself."""
        self.wire = self.network(self.server.address)
        self.person, self.emulated = self.bring_mine()
        self.place, = self.agent.wait_mount()

    def bring_mine(self):
        return self.bring_stick(address=self.wire.address, args=["+auto-reconnect"])

    def row(self):
        return self.usb("list").split()[0]

    def slot(self):
        return self.usb("list").partition(" on ")[2].partition(",")[0].split()[0]

    def replug(self):
        self.emulated.unplug("stick")
        self.plug()

    def plug(self):
        self.emulated.plug(standin.spec("stick", image=self.image, serial=SERIAL))

    def come_back(self):
        """Until the stick's answer to the first question about its medium is waited for."""
        self.mark = len(self.server.log())
        self.emulated.command("hang stick 81")
        self.wire.reset()
        self.wait_listed("resuming")

    def go_on(self):
        self.emulated.command("unhang stick 81")

    def wait_given_back(self):
        wait_for(lambda: "given back to the guest" in self.log_since(self.mark), 90,
                 lambda: "the device to be given back: " + self.usb("list"))

    def unplugged_client(self):
        """The guest loses it; plugged in again it is a new device."""
        self.emulated.unplug("stick")
        self.agent.wait_mount(0)
        self.slots_free()
        self.plug()

    def deleted(self):
        """QEMU's end goes: the device gets another slot, as a new one."""
        self.vm.qmp.command("device_del", id=self.slot())
        self.agent.wait_mount(0)
        self.go_on()

    def dropped(self):
        """Once more away: nothing is lost."""
        seen = self.unplugged()
        self.wire.reset()
        self.wait_listed("suspended")
        self.wait_listed("resuming")
        self.go_on()
        self.wait_given_back()
        self.assertEqual(self.unplugged(), seen)

    def killed(self):
        """Another client of the same user brings it: nothing is lost."""
        seen = self.unplugged()
        self.person.process.kill()
        self.emulated.close()
        self.wait_listed("suspended")
        self.person, self.emulated = self.bring_mine()
        self.wait_given_back()
        self.assertEqual(self.unplugged(), seen)

    def detached(self):
        self.usb("detach", self.row())
        self.agent.wait_mount(0)
        self.slots_free()
        self.go_on()
        self.replug()

    def denied(self):
        self.usb("deny", STICK)
        self.agent.wait_mount(0)
        self.slots_free()
        self.go_on()
        self.usb("allow", STICK)

    def guest_reset(self):
        boot = self.agent.ready()
        self.vm.qmp.command("system_reset")
        self.go_on()
        self.wait_given_back()
        wait_for(lambda: self.agent.ready() != boot, 90, "the guest to start again")

    def check_stick(self):
        """It is there, and what is written is on the medium."""
        wait_for(lambda: "connected" in self.usb("list"), 60, lambda: "the stick: " + self.usb("list"))
        self.place, = self.agent.wait_mount()
        written = self.agent.shell("date +%%N >%s/now; sync; sha256sum <%s/now" % (self.place, self.place), 60)
        self.assertEqual(on_image(self.image, "now"), written.split()[0])

    def test_while_it_is_looked_at(self):
        self.begin()
        events = [self.unplugged_client, self.deleted, self.dropped]
        if full_run:
            events += [self.killed, self.detached, self.denied, self.guest_reset]
        for event in events:
            with self.subTest(event.__name__):
                say(event.__name__)
                self.come_back()
                event()
                self.check_stick()
        self.check_strict(self.emulated, "stick")

    @full
    def test_at_any_moment(self):
        """An event some time after the connection has broken: before, while or after the stick comes back."""
        self.begin()
        dice = random.Random(int(os.environ.get("QRDP_TEST_SEED", "7")))
        events = {
            "unplug": self.replug,
            "drop": self.wire.reset,
            "detach": lambda: self.try_usb("detach", self.row()),
            "deny": lambda: self.try_usb("deny", STICK),
            "device_del": lambda: self.try_delete(),
            "guest_reset": lambda: self.vm.qmp.command("system_reset"),
        }
        for name, event in list(events.items()) * 3:
            offset = dice.uniform(0, 4)
            with self.subTest(event=name, offset=offset):
                say("%s after %d ms" % (name, offset * 1000))
                boot = self.agent.ready()
                self.emulated.command("delay stick 100")
                together((0, self.wire.reset), (offset, event))
                self.emulated.command("delay stick 0")
                if name == "guest_reset":
                    wait_for(lambda: self.agent.ready() != boot, 90, "the guest to start again")
                self.try_usb("allow", STICK)
                if name == "detach":
                    self.replug()
                self.check_stick()
        self.check_strict(self.emulated, "stick")

    def try_usb(self, *words):
        run_once(self.server.directory, "usb", "--run-dir=" + self.server.run_dir, *words)

    def try_delete(self):
        if " on qrdp" in self.usb("list"):
            self.vm.qmp.command("device_del", id=self.slot())


class ShortGraceTest(GraceRig):
    grace = 3

    def test_nobody_comes(self):
        client, usb = self.bring_stick()
        place, job = self.start_writing(usb)
        client.process.kill()
        self.server.wait_log("its client was not back within 3 s", 60)
        self.assertNotEqual(self.agent.finish(job, 60)[0], 0)
        wait_for(lambda: self.unplugged() == self.marked + 1, 60, "the guest to lose the device")
        self.slots_free()
        self.agent.wait_mount(0)

        say("and the next one is a new one")
        client, usb = self.bring_stick()
        self.agent.wait_mount()
        self.check_strict(usb, "stick")
