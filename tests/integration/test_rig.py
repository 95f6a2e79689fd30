"""The rig itself: if these fail, the others mean nothing."""

from rig import Rig, say
from qemu import EV_ABS, EV_KEY
from wait import wait_for

KEY_A, BTN_LEFT = 30, 0x110


class GuestTest(Rig):
    def test_input_screen_and_stick(self):
        vm = self.machine(video="virtio")
        agent = vm.agent
        say("input")
        agent.wait_usb("0627:0001", "usbhid")
        agent.events()
        vm.qmp.send_key("a")
        vm.qmp.mouse(16384, 8192)
        vm.qmp.mouse(button="left", down=True)
        seen = []

        def arrived():
            seen.extend((e.type, e.code, e.value) for e in agent.events())
            return {(EV_KEY, KEY_A, 1), (EV_ABS, 0, 16384), (EV_ABS, 1, 8192),
                    (EV_KEY, BTN_LEFT, 1)} <= set(seen)
        wait_for(arrived, 10, lambda: "the key and the click in the guest, which saw %s" % seen)

        say("a stick comes and goes")
        vm.add_stick(self.stick(files=[("HELLO.TXT", b"hello\n")]))
        self.assertEqual(agent.wait_mount(), ["/mnt/usb-sda1"])
        self.assertEqual(agent.shell("cat /mnt/usb-sda1/hello.txt"), "hello\n")
        vm.remove_stick()
        agent.wait_mount(0)
        agent.wait_usb("46f4:0001", present=False)

        say("screen")
        self.assertEqual(agent.drm("preferred"), (1280, 800))
        for name in ("bars", "gradient", "noise", "text", "scroll"):
            agent.pattern(name, 3)
            shown = vm.screen()
            self.assertEqual(agent.screen(), shown.size + (shown.crc(),), name)
            self.assertGreater(shown.colors(), 1, name)
        x, y, size = agent.flip()
        before = vm.screen().pixel(x + size // 2, y + size // 2)
        vm.qmp.send_key("b")
        wait_for(lambda: vm.screen().pixel(x + size // 2, y + size // 2) != before, 10,
                 "the block to change colour")
        self.assertEqual(agent.drm("640x480"), (640, 480))
        self.assertEqual(vm.screen().size, (640, 480))
        agent.drm("off")


class DisplayTest(Rig):
    def test_client_starts(self):
        """Nobody listens: the stock client starts on the virtual X server and says so."""
        class Nowhere:
            address, credentials = "127.0.0.1:9", ("tester", "secret-in-no-list")
        client = self.client(Nowhere, connect=False)
        with open("/proc/%d/cmdline" % client.process.pid) as cmdline:
            self.assertNotIn("secret", cmdline.read())
        self.assertNotEqual(client.wait_exit(), 0)
        self.assertIn("ERRCONNECT", client.log())
