"""What each client in the field must be able to do: one test per row of the matrix (matrix.py).

All clients meet the same qrdp, QEMU and guest. A test that a client cannot pass for a reason of its own is
skipped with that reason; what qrdp does wrong fails.
"""

import os
import tempfile

import standin
from qemu import EV_ABS, EV_KEY
from test_audio import AudioTest
from test_devices import SerialTests
from test_input import BTN_LEFT, TABLET
from test_network import RTT_US, Detection
from test_resize import STEADY
from test_stick import KEYBOARD, LOOP, STICK
from test_stick_failure import READ, WRITE, FailureRig
from wait import wait_for


class Features(Detection, FailureRig):
    """The rows, in the order of the matrix. stock is set by matrix.py."""

    stock = None

    @classmethod
    def start(cls):
        cls.server, cls.vm = cls.shared.run_vm(append=STEADY, options=["--tls-login"])

    def setUp(self):
        super().setUp()
        reason = self.stock.cannot.get(self.feature())
        if reason:
            self.skipTest(reason)
        self.addCleanup(self.vm.agent.drm, "off")

    def feature(self):
        return self._testMethodName.partition("_")[2]

    def client(self, server, args=(), **options):
        return super().client(server, args, program=self.stock.program, **options)

    # What other tests know how to do with a device
    tty, state, check_adapter = SerialTests.tty, SerialTests.state, SerialTests.check_adapter
    headset, play, gone = AudioTest.headset, AudioTest.play, AudioTest.gone
    wait_guest, sound, figures = AudioTest.wait_guest, AudioTest.sound, AudioTest.figures

    # Login and picture

    def check_login(self, security):
        client = self.client(self.server, ["/sec:" + security])
        client.wait_pixels(self.vm.screen, 60)

    def test_nla(self):
        self.check_login("nla")

    def test_tls(self):
        self.check_login("tls")

    def test_picture(self):
        """The first picture and those after it are the guest's, pixel by pixel."""
        self.agent.drm()
        self.agent.pattern("text", 2)
        client = self.client(self.server)
        for number, name in enumerate(("text", "bars", "gradient"), 2):
            self.agent.pattern(name, number)
            client.wait_pixels(self.vm.screen, 60)

    def test_legacy(self):
        """Without the graphics pipeline."""
        self.agent.drm()
        client = self.client(self.server, ["/network:lan", "/bpp:32"])
        for number, name in enumerate(("text", "bars", "gradient"), 2):
            self.agent.pattern(name, number)
            client.wait_pixels(self.vm.screen, 60)

    def test_detection(self):
        """Auto-detection of the network: its questions are answered, with the graphics pipeline and without."""
        self.agent.drm()
        network = self.network(self.server.address, rtt_ms=RTT_US / 1000)
        for args in ((), ("/network:lan", "/bpp:32")):
            client = self.client(self.server, args, address=network.address)
            self.check_measured(client)
            client.stop()
            wait_for(lambda: not self.server.status()["clients"], 60, "the client to be gone")

    def test_resize(self):
        """The guest's mode switches reach the window, and the window's size the guest."""
        client = self.client(self.server, ["/dynamic-resolution"])
        for size in ((1024, 768), (1600, 1200)):
            self.agent.drm("%dx%d" % size)
            wait_for(lambda: client.geometry()[2:] == size, 60, lambda: "a window of %s, it is %s" % (
                size, client.geometry()))
            client.wait_pixels(self.vm.screen, 60)
        self.agent.drm("preferred")
        for number, size in enumerate(((1100, 750), (802, 602))):
            def follows():
                if client.geometry()[2:] != size:
                    client.display.tool("xdotool", "windowsize", client.window, *size)
                return self.vm.screen().size == size
            wait_for(follows, 60, lambda: "the guest to show %s, it shows %s in a window of %s" % (
                size, self.vm.screen().size, client.geometry()), 0.5)
            self.agent.pattern("gradient", number)
            client.wait_pixels(self.vm.screen, 60)

    # Hands

    def test_typing(self):
        client = self.client(self.server)
        client.wait_pixels(self.vm.screen, 60)
        self.agent.shell("rm -f /tmp/typed")
        client.key("ctrl+c")
        self.agent.events()
        text, seen = "echo It works: 100% >/tmp/typed\n", []
        for at in range(0, len(text), 4):
            # A few at a time: QEMU's PS/2 keyboard drops what its queue of 16 bytes cannot hold.
            few = text[at:at + 4]
            client.type(few)
            wanted = len(seen) + len(few)

            def arrived():
                seen.extend(e for e in self.agent.events()
                            if e.type == EV_KEY and not e.value and e.code not in (42, 54))
                return len(seen) >= wanted
            wait_for(arrived, 60, lambda: "%r to be typed in the guest, which saw %s" % (text, seen))
        wait_for(lambda: self.agent.run("cat /tmp/typed")[1] == "It works: 100%\n", 60,
                 lambda: "the shell to write the file: %r" % (self.agent.run("cat /tmp/typed"),))

    def test_click(self):
        client = self.client(self.server)
        client.wait_pixels(self.vm.screen, 60)
        width, height = self.vm.screen().size
        axes = self.agent.inputs()[TABLET]["abs"]
        self.agent.events()
        for x, y in ((640, 400), (17, 733), (1111, 5)):
            seen = []
            client.click(x, y)

            def clicked():
                seen.extend(self.agent.events())
                return [e.value for e in seen if e.type == EV_KEY and e.code == BTN_LEFT] == [1, 0]
            wait_for(clicked, 60, lambda: "a click in the guest, which saw %s" % seen)
            found = {e.code: e.value for e in seen if e.type == EV_ABS and e.device == TABLET}
            at = [found[a] * size / (axes[a][1] + 1) for a, size in ((0, width), (1, height))]
            self.assertTrue(abs(at[0] - x) <= 1 and abs(at[1] - y) <= 1, (at, x, y))

    # Devices

    def test_stick(self):
        """Mounted, written and read, and equal on both sides."""
        path = self.stick(files=[("hello.txt", b"hello\n")])
        client, usb = self.bring([standin.spec("stick", image=path)])
        place, = self.agent.wait_mount(seconds=120)
        self.assertEqual(self.agent.shell("cat %s/hello.txt" % place), "hello\n")
        self.check_copy(place, path, megabytes=2)
        self.check_strict(usb, "stick")

    def test_keyboard(self):
        client, usb = self.bring([standin.spec("keyboard")])
        self.agent.wait_usb(KEYBOARD, "usbhid", seconds=60)
        self.agent.shell("rm -f /tmp/typed")
        self.check_keyboard(usb)

    def test_requests(self):
        """Alternate settings, interrupt both ways, vendor requests, bulk both ways, a halt cleared."""
        client, usb = self.bring([standin.spec("loop")])
        self.agent.wait_usb(LOOP, seconds=60)
        lines = self.agent.shell(
            "usbdo %s claim=0 setif=0.1 out=02.c0ffee in=82.64 out=01.+3000 in=81.4096 "
            "cout=40.01.0.0.0badcafe cin=c0.02.0.0.4 halt=81 out=01.aa55 in=81.512 setif=0.0 "
            "out=01.77 in=81.512" % LOOP, 120).splitlines()
        self.assertFalse([l for l in lines if l.startswith("error")], lines)
        for word in ("c0ffee", "0badcafe", "aa55", "77"):
            self.assertTrue([l for l in lines if word in l], (word, lines))
        self.assertTrue([l for l in lines if l.startswith("ok 3000 ")], lines)
        self.check_strict(usb, "loop")

    def test_serial(self):
        """An adapter's modem lines, bytes there and back, what it says unasked; unplugged while open."""
        self.check_adapter("ftdi", "ftdi_sio", 20000, turns=1)

    def test_replug_busy(self):
        """Unplugged with sixteen reads at the client, and plugged again."""
        client, usb = self.bring([standin.spec("ftdi")])
        port = self.tty("ftdi", "ftdi_sio")
        running = self.agent.start_script("ttydo /dev/%s baud=9600 hup" % port)
        usb.wait_log("ftdi", lambda log: log["ep81.queued"] > 10, 60, "reading ahead")
        usb.unplug("ftdi")
        self.agent.finish(running, 90)
        self.agent.wait_usb(standin.IDS["ftdi"], present=False, seconds=60)
        usb.plug(standin.spec("ftdi"))
        self.tty("ftdi", "ftdi_sio")

    def test_audio(self):
        """A tone reaches the headset: each packet once, in order, unchanged, at the right pitch."""
        usb, record = self.headset()
        self.play(usb, record, 48000, 3000, 180)

    def test_hotplug(self):
        """Plugged after the client has connected, unplugged, plugged again."""
        device = standin.spec("stick", image=self.stick(files=[("hello.txt", b"hello\n")]))
        client, usb = self.bring([], ids=[STICK])
        for _ in range(2):
            name = usb.plug(device)
            place, = self.agent.wait_mount(seconds=120)
            self.assertEqual(self.agent.shell("cat %s/hello.txt" % place), "hello\n")
            usb.unplug(name)
            self.agent.wait_usb(STICK, present=False, seconds=60)
            self.agent.wait_mount(0)

    def test_unplug_busy(self):
        client, usb, place, disk = self.stick_in_guest()
        job = self.keep_busy(usb, WRITE, place, disk)
        usb.unplug("stick")
        self.agent.finish(job, 60)
        self.agent.wait_usb(STICK, present=False, seconds=60)
        usb.plug(standin.spec("stick", image=self.image))
        self.check_works()

    def test_two(self):
        """A keyboard types while a stick is read."""
        path = self.stick(files=[("data", os.urandom(1 << 20))])
        client, usb = self.bring([standin.spec("stick", image=path), standin.spec("keyboard")])
        place, = self.agent.wait_mount(seconds=120)
        self.agent.wait_usb(KEYBOARD, "usbhid", seconds=60)
        job = self.keep_busy(usb, READ, place, "/dev/" + os.path.basename(place)[4:].rstrip("0123456789"))
        self.agent.shell("rm -f /tmp/typed")
        usb.type("echo both >/tmp/typed\n")
        wait_for(lambda: self.agent.run("cat /tmp/typed")[1] == "both\n", 60, "typing to arrive in the guest")
        self.check_goes_on(usb, job)
        self.check_strict(usb, "stick", "keyboard")

    def test_stall(self):
        """The stick stalls in mid-transfer, on either pipe: the guest recovers and the data is right."""
        client, usb, place, disk = self.stick_in_guest()
        for ep in ("81", "02"):
            job = self.keep_busy(usb, READ, place, disk)
            before = usb.log("stick")["ep%s.stalls" % ep]
            usb.command("stall stick " + ep)
            usb.wait_log("stick", lambda log: log["ep%s.stalls" % ep] > before, 60, "the stall")
            self.check_goes_on(usb, job)
        self.check_strict(usb, "stick")

    def test_killed(self):
        """The client dies in mid-transfer; the next one finds everything as it should be."""
        client, usb, place, disk = self.stick_in_guest()
        job = self.keep_busy(usb, WRITE, place, disk)
        client.process.kill()
        usb.close()
        self.agent.finish(job, 60)
        self.agent.wait_usb(STICK, present=False, seconds=60)
        self.agent.wait_mount(0)
        self.check_next_client()

    def test_status(self):
        """qrdp status names the client's flavour."""
        client, usb = self.bring([standin.spec("loop")])
        self.agent.wait_usb(LOOP, seconds=60)
        wanted = "freerdp2" if self.stock.program.freerdp2 else "freerdp3"
        row, = self.server.status()["clients"]
        self.assertEqual(row.get("usb_flavour"), wanted, row)
        self.assertIn("UsbDevice 5, MessageId 0", row["usb_evidence"])
        self.assertIn("usb:       like %s\n" % wanted, self.server.status_text())
