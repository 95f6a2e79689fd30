"""Viewers that keep up with each other get the same frames, and none waits for one that does not."""

import signal

from rig import Rig
from wait import wait_for


class ShareTest(Rig):
    def shares(self):
        """Of each client, oldest first, whom it shares with."""
        return [client["shares_with"] for client in self.server.status()["clients"]]

    def frames(self):
        return self.server.status()["clients"][0]["display"]["frames"]

    def wait_shared(self, what):
        wait_for(lambda: all(self.shares()), 60, lambda: "%s; status: %s" % (what, self.server.status_text()))

    def test_stopped_viewer(self):
        self.server, vm = self.run_vm(video="virtio", append="vt.global_cursor_default=0",
                                      options=["--share", "--stall-seconds=300"])
        first = self.client(self.server, args=["-grab-keyboard"])
        second = self.client(self.server, args=["-grab-keyboard"])
        vm.agent.drm()
        vm.agent.pattern("text", 1)
        self.wait_shared("the two to share")
        ids = [client["id"] for client in self.server.status()["clients"]]
        self.assertEqual(self.shares(), [[ids[1]], [ids[0]]])
        self.assertIn("made once", self.server.status_text())
        vm.agent.pattern("gradient", 3)
        for client in (first, second):
            client.wait_pixels(vm.screen)

        second.process.signal(signal.SIGSTOP)
        self.addCleanup(second.process.signal, signal.SIGCONT)
        vm.agent.animate("scroll", 10)
        wait_for(lambda: not any(self.shares()), 20, "the two to part")
        before = self.frames()
        wait_for(lambda: self.frames() >= before + 10, 30, "the first one to go on")
        second.process.signal(signal.SIGCONT)
        self.assertGreater(vm.agent.animate_stop(), 5)
        for client in (first, second):
            client.wait_pixels(vm.screen)
        self.wait_shared("the two to share again")
        vm.agent.pattern("noise", 4)
        for client in (first, second):
            client.wait_pixels(vm.screen)
