"""The ladder: every kind of client gets a picture, and once it is still, the guest's to the pixel.

A rung is tested with a client that has only that. Those of fewer than 32 bits, which stock clients raise as soon as
the server offers, are played by ./dev bench's viewer. Also here: a client that stops reading.
"""

import os
import re
import shutil
import signal
import sys
import unittest

import image
from proc import Process
from rig import PASSWORD, USER, Rig, SharedRig
from wait import wait_for

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench"))
from peers import Viewer, viewer_program  # noqa: E402

# FreeRDP 3.10 turns the pipeline on with its automatic connection type, and even with -gfx.
NO_GFX = ("/network:lan",)
STEADY = "vt.global_cursor_default=0"
SCENES = (("bars", 1), ("gradient", 3), ("text", 2))
FEW_FRAMES = 6


def cut(picture, *bits):
    """The picture with so many bits of red, green and blue, as FreeRDP's client widens them again."""
    rgb = bytearray(picture.rgb)
    for at, n in enumerate(bits):
        kept = [value >> (8 - n) for value in range(256)]
        rgb[at::3] = rgb[at::3].translate(bytes(
            min((k << (8 - n)) + (0 if n == 8 else k >> (n - 3)), 255) for k in kept))
    return image.Image(picture.width, picture.height, rgb)


class LadderTest(SharedRig):
    @classmethod
    def start(cls):
        cls.server, cls.vm = cls.shared.run_vm(video="virtio", append=STEADY, options=["--tls-login"])

    def setUp(self):
        super().setUp()
        self.vm.agent.drm()
        self.addCleanup(self.vm.agent.drm, "off")

    def rows(self):
        return [c["display"] for c in self.server.status()["clients"] if c["display"]]

    def row(self):
        return wait_for(self.rows, 10, "the client's row in qrdp status")[0]

    def play(self, wait_exact, film=None):
        """Scenes that stand still, then one that moves and stops; each time the picture must become exact.

        film: how what moves must be shown, as qrdp status calls it; without, some pictures of it must come.
        """
        for name, number in SCENES:
            self.vm.agent.pattern(name, number)
            wait_exact()
        before = self.row()["frames"]

        def moving():
            row = self.row()
            return row["film_codec"] == film if film else row["frames"] >= before + FEW_FRAMES
        self.vm.agent.animate("film", 15)
        try:
            # a machine that is busy may show too few frames a second for a film, for a while
            wait_for(moving, 40,
                     lambda: "%s of what moves, since frame %d: %s" % (film or "pictures", before, self.row()))
        finally:
            self.vm.agent.animate_stop()  # the machine is the other tests', too
        wait_exact()

    def show(self, expected, *args, film=None):
        """expected: what qrdp status calls the way the pictures take; film: and what moves in them."""
        client = self.client(self.server, args=args)
        found = wait_for(lambda: self.row()["codec"], 10, "the client's codec")
        if expected == "NSCodec" and found == "GFX":
            self.skipTest("this xfreerdp3 (3.33 does) takes the graphics pipeline with /nsc")
        self.assertEqual(found, expected)
        self.play(lambda: client.wait_pixels(self.vm.screen), film)

    # With the graphics pipeline

    def test_h264(self):
        self.show("GFX", "/gfx:AVC420", film="H.264")

    def test_pipeline_alone(self):
        """Version 8 of the pipeline, the smallest that there is: no H.264, and less memory than others."""
        self.show("GFX", "/gfx:RFX,thin-client,mask:0x7fe", film="RemoteFX")

    def test_phone(self):
        """8.1 only, a small cache, H.264 without 4:4:4: mobile clients of the first years with a pipeline."""
        self.show("GFX", "/gfx:AVC420,small-cache,mask:0x7fd", film="H.264")
        self.assertEqual(self.row()["gfx_version"], "0x00080105")

    def test_newest_without_h264(self):
        """10.7 with AVC_DISABLED: what the vendor's mobile clients advertise today."""
        self.show("GFX", "/gfx:RFX,small-cache", film="RemoteFX")

    # Without it: 32 bits

    def test_remotefx(self):
        self.show("RemoteFX", *NO_GFX, "/rfx")

    def test_nscodec(self):
        self.show("NSCodec", *NO_GFX, "/nsc")

    def test_bitmaps(self):
        self.show("planar bitmaps", *NO_GFX, "/bpp:32")

    def test_bitmaps_16(self):
        """xfreerdp3 asks for 16 bits and says that it can do 32: it gets 32, and equal pixels."""
        self.show("planar bitmaps", *NO_GFX, "/bpp:16")

    # Fewer bits

    def depth(self, bits, *colours):
        try:
            program = viewer_program("qrdp")
        except AssertionError as why:
            raise unittest.SkipTest(str(why))
        host, port = self.server.address.rsplit(":", 1)
        viewer = Viewer([program, host, port, USER, PASSWORD, "bpp=%d" % bits], self.path("viewer.log"))
        self.addCleanup(viewer.stop)

        shown = self.path("shown.ppm")

        def difference():
            viewer.ask("save", shown)
            with open(shown, "rb") as ppm:
                return image.read_ppm(ppm.read()).difference(cut(self.vm.screen(), *colours))
        self.play(lambda: wait_for(lambda: not difference(), 20, lambda: "the guest's picture in %d bits: %s" % (
            bits, difference()), 0.2))
        row = self.row()
        self.assertEqual((row["codec"], row["bits_per_pixel"]), ("interleaved bitmaps", bits))

    def test_15_bits(self):
        self.depth(15, 5, 5, 5)

    def test_16_bits(self):
        self.depth(16, 5, 6, 5)

    def test_24_bits(self):
        self.depth(24, 8, 8, 8)

    def test_rdesktop(self):
        """rdesktop knows neither NLA nor codecs; like xfreerdp3 it can do 32 bits when it asks for 16."""
        if not shutil.which("rdesktop"):
            raise unittest.SkipTest("rdesktop is not installed")
        for bpp in (32, 16):
            display = self.display()
            title = "qrdp-rdesktop-%d" % bpp
            certificates = self.path("home%d" % bpp)
            os.makedirs(certificates, exist_ok=True)
            client = Process(["rdesktop", "-u", USER, "-p", "-", "-g", "1280x800", "-a", bpp, "-T", title,
                              self.server.address], self.path("rdesktop%d.log" % bpp),
                             env=dict(display.env, HOME=certificates), stdin_text=PASSWORD + "\nyes\n")
            self.addCleanup(client.stop)

            def window():
                if not client.alive():
                    raise AssertionError("rdesktop ended: " + client.output())
                return display.tool("xdotool", "search", "--name", "^%s$" % title, check=False).split()
            found = wait_for(window, 30, lambda: "rdesktop's window: " + client.output())[-1]
            display.tool("xdotool", "windowmove", found, 0, 0)
            try:
                display.screenshot(found)
            except ValueError as odd: # Debian 13: the first visual of its Xvfb that rdesktop takes has red last
                raise unittest.SkipTest("rdesktop draws on a visual that cannot be compared: %s" % odd)
            for name, number in SCENES:
                self.vm.agent.pattern(name, number)
                wait_for(lambda: display.screenshot(found).rgb == self.vm.screen().rgb, 20,
                         "rdesktop to show the guest's screen", 0.3)
            display.screenshot(found).save_png(self.path("rdesktop%d.png" % bpp))
            self.assertEqual(self.row()["codec"], "planar bitmaps")
            client.stop()


class StallTest(Rig):
    def test_client_that_stops_reading(self):
        server, vm = self.run_vm(video="virtio", append=STEADY, options=["--share", "--stall-seconds=4"])
        quick, stuck = (self.client(server, args=["-grab-keyboard"]) for _ in range(2))
        vm.agent.drm()
        stuck.wait_pixels(vm.screen)
        stuck.process.signal(signal.SIGSTOP)
        self.addCleanup(stuck.process.signal, signal.SIGCONT)
        vm.agent.animate("noise", 10)
        seen = set()
        cut_off = re.compile("it read nothing|it acknowledged no picture")
        wait_for(lambda: seen.add(quick.screen().crc()) or cut_off.search(server.log()), 25,
                 lambda: "the stopped client to be cut off; the log ends: " + server.log()[-1500:])
        # how many depends on the machine; a client that waits for the stopped one shows what it showed
        self.assertGreater(len(seen), 1, "the other client was held up")
        wait_for(lambda: len(server.status()["clients"]) == 1, 10, "one client to be left")
        vm.agent.animate_stop()
        quick.wait_pixels(vm.screen)
