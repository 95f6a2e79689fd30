"""(3) The guest's mode switches reach the client, and the client's window size reaches the guest."""

from rig import SharedRig
from wait import wait_for, wait_still

STEADY = "vt.global_cursor_default=0"


class Modes:
    """The guest switches modes; the client's window follows, whatever it can decode."""

    video = None
    modes = ()

    @classmethod
    def start(cls):
        cls.server, cls.vm = cls.shared.run_vm(video=cls.video, append=STEADY)

    def setUp(self):
        super().setUp()
        self.addCleanup(self.vm.agent.drm, "off")

    def switch(self, *args):
        client = self.client(self.server, args=args)
        for number, mode in enumerate(self.modes):
            size = tuple(int(n) for n in mode.split("x"))
            self.assertEqual(self.vm.agent.drm(mode), size)
            self.vm.agent.pattern("bars", number)
            wait_for(lambda: client.geometry()[2:] == size, 15, lambda: "a window of %s, it is %s" % (
                size, client.geometry()))
            self.assertEqual(client.wait_pixels(self.vm.screen).size, size)
        self.vm.agent.drm("off")
        client.wait_pixels(self.vm.screen)

    def test_gfx(self):
        self.switch()

    def test_without_gfx(self):
        self.switch("/network:lan")  # see test_ladder.NO_GFX
        self.assertNotIn("GFX 0", self.server.status_text())


class VirtioModesTest(Modes, SharedRig):
    video, modes = "virtio", ("640x480", "1600x1200", "1024x768")


class StdModesTest(Modes, SharedRig):
    video, modes = "std", ("640x480", "1600x1200", "1024x768")


class DynamicResolutionTest(SharedRig):
    """The user drags the window; a DRM program in the guest follows, as a desktop would."""

    @classmethod
    def start(cls):
        cls.server, cls.vm = cls.shared.run_vm(video="virtio", append=STEADY)

    def setUp(self):
        super().setUp()
        self.addCleanup(self.vm.agent.drm, "off")

    def follow(self, client, *sizes):
        client.wait_pixels(self.vm.screen)
        for number, size in enumerate(sizes):
            self.drag(client, size)
            self.follows(client, size)
            self.vm.agent.pattern(("bars", "gradient", "text")[number % 3], number)
            client.wait_pixels(self.vm.screen)
            self.assertEqual(client.geometry()[2:], size)

    def drag(self, client, size):
        """Resizes the window; again if the client puts it back, answering a desktop size from before."""
        def there():
            if client.geometry()[2:] != size:
                client.display.tool("xdotool", "windowsize", client.window, *size)
            return self.vm.screen().size == size
        wait_for(there, 20, lambda: "the guest to show %s, it shows %s in a window of %s" % (
            size, self.vm.screen().size, client.geometry()), 0.5)

    def follows(self, client, size):
        wait_for(lambda: self.vm.screen().size == size, 15, lambda: "the guest to show %dx%d, it shows %s" % (
            size + (self.vm.screen().size,)))
        wait_for(lambda: self.vm.agent.screen()[:2] == size, 5, lambda: "the guest's program to show %s, not %s" % (
            size, self.vm.agent.screen()))

    def test_grow_and_shrink(self):
        client = self.client(self.server, args=["/dynamic-resolution"])
        self.vm.agent.drm("preferred")
        self.follow(client, (1440, 900), (1000, 700), (802, 602), (1600, 1000), (640, 480))

    def test_many_steps(self):
        """A drag is many sizes in a row: the last one counts."""
        client = self.client(self.server, args=["/dynamic-resolution"])
        self.vm.agent.drm("preferred")
        client.wait_pixels(self.vm.screen)
        for width in range(900, 1300, 20):
            client.display.tool("xdotool", "windowsize", client.window, width, width // 2)
        # The client answers each new desktop by resizing its window, so where they meet is open.
        wait_still(lambda: (self.vm.screen().size, client.geometry()), 20, "the window's size")
        self.vm.agent.pattern("gradient", 1)
        self.assertEqual(client.wait_pixels(self.vm.screen).size, client.geometry()[2:])
        self.follow(client, (1100, 750))

    def test_size_at_connection(self):
        """The size that the client asks for when it connects is the guest's, too."""
        self.vm.agent.drm("preferred")
        for size, args in (((1120, 630), []), ((1040, 700), ["/dynamic-resolution"])):
            with self.subTest(size=size):
                client = self.client(self.server, args=args, size=size)
                self.follows(client, size)
                client.wait_pixels(self.vm.screen)
                client.stop()

    def test_guest_that_does_not_follow(self):
        """The window stays usable when the guest keeps its mode."""
        client = self.client(self.server, args=["/dynamic-resolution"])
        self.vm.agent.drm("1024x768")
        self.vm.agent.pattern("bars")
        client.wait_pixels(self.vm.screen)
        client.display.tool("xdotool", "windowsize", client.window, 1300, 900)
        self.vm.agent.pattern("gradient", 3)
        wait_for(lambda: client.screen().crop(0, 0, 1024, 768).rgb == self.vm.screen().rgb, 15,
                 lambda: "the window to show the guest's 1024x768, window %s" % (client.geometry(),))
