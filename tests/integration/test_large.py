"""A screen of 3840x2160, the client's as large."""

from rig import Rig, full_run
from wait import wait_for

SIZE = (3840, 2160)


class LargeTest(Rig):
    def test_4k(self):
        server, vm = self.run_vm(video="virtio", append="vt.global_cursor_default=0", extra=[
            "-global", "virtio-vga.xres=%d" % SIZE[0], "-global", "virtio-vga.yres=%d" % SIZE[1]])
        self.display(width=SIZE[0], height=SIZE[1])
        client = self.client(server, size=SIZE)
        self.assertEqual(vm.agent.drm(), SIZE)
        for name in ("text", "noise") if full_run else ("text",): # nothing makes noise smaller: 25 MB
            vm.agent.pattern(name, 1)
            shown = client.wait_pixels(vm.screen, 60)
            self.assertEqual(shown.size, SIZE)

        def row():  # null until the client's thread has reported for the first time
            return server.status()["clients"][0]["display"] or {"film_codec": "none"}
        vm.agent.animate("film", 10)
        wait_for(lambda: row()["film_codec"] != "none", 60, lambda: "a film of 960x540: %s" % row())
        vm.agent.animate_stop()
        client.wait_pixels(vm.screen, 60)
