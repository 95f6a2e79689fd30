"""Pictures that QEMU has in other ways than 32 bits in shared memory: the client's window is exact all the same."""

import os
import subprocess

import image
import qrdp
from rig import Rig, SharedRig
from wait import wait_for

STEADY = "vt.global_cursor_default=0"


class VgaDepthTest(SharedRig):
    """Standard VGA at other depths: QEMU makes 32 bits of them, and puts these into shared memory."""

    @classmethod
    def start(cls):
        cls.server, cls.vm = cls.shared.run_vm(video="std", append=STEADY)

    def mapped(self):
        with open("/proc/%d/maps" % self.server.process.pid) as maps:
            return any("memfd:" in line and line.split()[1] == "r--s" for line in maps)

    def depth(self, bits, colours):
        client = self.client(self.server)
        before = None
        for number, (width, height) in enumerate(((800, 600), (800, 600), (1024, 768))):
            self.vm.agent.vbe(width, height, bits, number + 1)
            wait_for(lambda: self.vm.screen().size == (width, height), 10, "QEMU to show the mode")
            shown = client.wait_pixels(self.vm.screen)
            self.assertNotEqual(shown.rgb, before)
            before = shown.rgb
        self.assertGreaterEqual(shown.colors(colours), colours)
        self.assertTrue(self.mapped(), "QEMU's own picture, which it made of the guest's")

    def test_8_bits_with_a_palette(self):
        self.depth(8, 200)

    def test_15_bits(self):
        self.depth(15, 2000)

    def test_16_bits(self):
        self.depth(16, 2000)

    def test_24_bits(self):
        self.depth(24, 2000)


class CopyTest(Rig):
    """A QEMU that does not share its memory, which all before 9.2 are: vm-probe, our own side without RDP, asks one
    that could for copies."""

    def probe(self, machine, *options):
        program = os.path.join(os.path.dirname(qrdp.binary()), "..", "tests", "integration", "vm-probe")
        picture = self.path("probe.ppm")
        done = subprocess.run([program, "--qmp=" + machine.qmp_path, "--ppm=" + picture, *options],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
        self.assertEqual(done.returncode, 0, done.stdout.decode(errors="replace"))
        with open(picture, "rb") as ppm:
            return image.read_ppm(ppm.read())

    def test_copies(self):
        machine = self.machine(video="virtio", display="dbus,p2p=yes", append=STEADY)
        for mode in ("1024x768", "1280x800"):
            machine.agent.drm(mode)
            machine.agent.pattern("text", 3)
            shown = self.probe(machine, "--copy", "--size=" + mode)
            self.assertIsNone(shown.difference(machine.screen()))
            self.assertGreater(shown.colors(), 1)
