"""(1) The window shows the guest's frame buffer, pixel by pixel, once it is still."""


from rig import SharedRig, say
from wait import wait_for

STEADY = "vt.global_cursor_default=0"


class Scenes:
    """What is checked for every kind of graphics card."""

    video = mapped = None

    @classmethod
    def start(cls):
        cls.server, cls.vm = cls.shared.run_vm(video=cls.video, append=STEADY)

    def setUp(self):
        super().setUp()
        self.addCleanup(self.vm.agent.drm, "off")

    def settle(self, client):
        """Window, QEMU and the guest itself agree on every pixel."""
        shown, inside = None, None

        def agree():
            nonlocal shown, inside
            shown = client.wait_pixels(self.vm.screen)
            inside = self.vm.agent.screen()
            return inside == shown.size + (shown.crc(),)
        wait_for(agree, 20, lambda: "the guest's own picture %s to be the window's %s" % (
            inside, shown.size + (shown.crc(),)))
        return shown

    def test_console(self):
        client = self.client(self.server)
        before = self.settle(client)
        self.assertGreater(before.colors(), 1)
        client.type("seq 1 200; ls -l /bin\n")
        wait_for(lambda: client.screen().difference(before), 20, "the typed command to show")
        self.settle(client)

    def test_scenes(self):
        client = self.client(self.server)
        self.vm.agent.drm()
        for name in ("bars", "gradient", "noise", "text", "solid"):
            self.vm.agent.pattern(name, 5)
            shown = self.settle(client)
            if name != "solid":
                self.assertGreater(shown.colors(), 1, name)
        say("from scene to scene while connected, now a client that comes when all is still")
        client.stop()
        self.vm.agent.pattern("gradient", 7)
        self.settle(self.client(self.server))

    def test_still_after_animation(self):
        client = self.client(self.server)
        self.vm.agent.drm()
        for name in ("scroll", "bars", "noise"):
            self.vm.agent.animate(name, 25)
            seen = set()
            wait_for(lambda: seen.add(client.screen().crc()) or len(seen) >= 5, 20,
                     lambda: "5 pictures of the animation in the window, seen: %d" % len(seen))
            self.assertGreater(self.vm.agent.animate_stop(), 5)
            self.settle(client)

    def test_hidden_window(self):
        """A minimised window (SuppressOutput) costs nothing and is right when it is back."""
        client = self.client(self.server)
        self.vm.agent.drm()
        self.vm.agent.pattern("text", 1)
        self.settle(client)
        client.display.tool("xdotool", "windowunmap", client.window)
        wait_for(lambda: "paused" in self.server.status_text(), 10,
                 lambda: "the client to suppress output; status: " + self.server.status_text())
        frames = self.frames()
        self.vm.agent.animate("noise", 20)
        seen = set()
        wait_for(lambda: seen.add(self.vm.screen().crc()) or len(seen) >= 10, 20,
                 "the guest to draw while nobody looks")
        self.vm.agent.animate_stop()
        self.vm.agent.pattern("gradient", 9)
        self.assertLessEqual(self.frames() - frames, 1) # one may have been under way
        client.display.tool("xdotool", "windowmap", client.window)
        self.settle(client)
        wait_for(lambda: "paused" not in self.server.status_text(), 10,
                 "the client to want output again")
        wait_for(lambda: self.frames() > frames, 10, "qrdp status to count the picture that is shown")

    def test_memory_path(self):
        """Which of the two ways from QEMU this class tests."""
        self.client(self.server).wait_pixels(self.vm.screen)
        with open("/proc/%d/maps" % self.server.process.pid) as maps:
            shared = [line for line in maps if "memfd:" in line and line.split()[1] == "r--s"]
        self.assertEqual(bool(shared), self.mapped, shared)

    def frames(self):
        client, = self.server.status()["clients"]
        return client["display"]["frames"]


class VirtioScreenTest(Scenes, SharedRig):
    """virtio-gpu: QEMU's picture is shared memory (org.qemu.Display1.Listener.Unix.Map)."""

    video, mapped = "virtio", True


class StdScreenTest(Scenes, SharedRig):
    """VGA (bochs): video memory is not shared, QEMU sends copies."""

    video, mapped = "std", False
