"""Network auto-detection: how far and how wide the way to a client is, and what that costs."""

import os

from rig import SharedRig, say
from wait import wait_for, wait_still
from xclient import Program

RTT_US = 80000
# So much may a slow machine add, to the least of sixteen.
SLOW_US = 1000000


class WithoutDetection(Program):
    """xfreerdp3 as it is when its user has turned auto-detection off, which takes a file."""

    def start(self, options, user, password, log_path, env):
        path = os.path.splitext(log_path)[0] + ".rdp"
        with open(path, "w") as file:
            file.write("bandwidthautodetect:i:0\nnetworkautodetect:i:0\n")
        return super().start([path] + list(options), user, password, log_path, env)


class Detection:
    """What tests of it have in common: for a SharedRig with server and vm."""

    picture = 0

    def status(self):
        clients = self.server.status()["clients"]
        return clients[-1]["display"] or {} if clients else {}

    def draw(self, name="text"):
        self.picture += 1
        self.vm.agent.pattern(name, self.picture)

    def check_measured(self, client):
        """Pictures are drawn until everything is known of the network; what status says then."""
        def measured():
            status = self.status()
            wide = status.get("network_bytes_per_s", 0) > 0  # small pictures tell how far it is, large ones the rest
            self.draw("text" if wide else "noise")
            return (wide and status["probes_answered"] >= 4 and
                    0 < status["network_least_round_trip_us"] < RTT_US + SLOW_US and status)
        status = wait_for(measured, 90, lambda: "the network to be measured: %s" % self.status(), interval=0.3)
        self.assertTrue(status["auto_detect"])
        self.assertEqual(status["probes_stray"], 0)
        self.assertGreaterEqual(status["network_least_round_trip_us"], RTT_US)
        self.assertIn(" at least", self.server.status_text())
        client.wait_pixels(self.vm.screen)
        return status


class NetworkTest(Detection, SharedRig):
    @classmethod
    def start(cls):
        cls.server, cls.vm = cls.shared.run_vm(append="vt.global_cursor_default=0")
        cls.vm.agent.drm()

    def test_pipeline(self):
        network = self.network(self.server.address, rtt_ms=RTT_US / 1000)
        client = self.client(self.server, address=network.address)
        status = self.check_measured(client)
        self.assertEqual(status["codec"], "GFX")
        self.assertLess(status["probes"], 5 * status["frames"] + 5)

        say("nothing changes: nothing is sent")
        wait_still(lambda: network.stat()["down.bytes"], 60, "what the server sends", still=11, interval=0.5)

        say("it shows something again")
        before = status["probes"]
        wait_for(lambda: self.draw() or self.status()["probes"] > before, 60, "another question", interval=0.3)
        client.wait_pixels(self.vm.screen)

    def test_without_pipeline(self):
        """Clients that acknowledge pictures, and clients that do not."""
        network = self.network(self.server.address, rtt_ms=RTT_US / 1000)
        for codec, option in (("RemoteFX", "/rfx"), ("planar bitmaps", "/bpp:32")):
            say(codec)
            client = self.client(self.server, ["/network:lan", option], address=network.address)
            self.assertEqual(self.check_measured(client)["codec"], codec)
            client.stop()
            wait_for(lambda: not self.server.status()["clients"], 30, "the client to be gone")

    def test_not_detecting(self):
        client = self.client(self.server, program=WithoutDetection())
        for name in ("text", "noise", "text"):
            self.draw(name)
            client.wait_pixels(self.vm.screen)
        status = wait_for(self.status, 30, "the client's row in qrdp status")
        self.assertFalse(status["auto_detect"])
        self.assertNotIn("probes", status)
        self.assertNotIn("network:", self.server.status_text())
