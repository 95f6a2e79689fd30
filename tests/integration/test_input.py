"""(2) What the user's hands do arrives in the guest: text, every key, locks, pointer, buttons, wheel."""

import ctypes

from qemu import EV_ABS, EV_KEY, EV_REL
from rig import SharedRig, say
from wait import wait_for, wait_still

KEYBOARD, TABLET = "AT Translated Set 2 keyboard", "QEMU QEMU USB Tablet"
MOUSE = "ImExPS/2 Generic Explorer Mouse"
KEY_LEFTSHIFT, KEY_RIGHTSHIFT, KEY_RIGHTCTRL = 42, 54, 97
BTN_LEFT, BTN_RIGHT, BTN_MIDDLE, BTN_SIDE, BTN_EXTRA = 0x110, 0x111, 0x112, 0x113, 0x114
REL_X, REL_Y, REL_WHEEL = 0, 1, 8
LOCK, CAPS_LED = 2, 2  # Caps Lock in an X modifier mask, and in Linux's mask of LEDs

# Linux codes of the keys that a PC keyboard with 102 keys and its extended ones have, without those that
# change a lock. The X keycode is 8 more.
PLAIN_KEYS = [c for c in range(1, 89) if c not in (58, 69, 70, 84, 85)]
EXTENDED_KEYS = [96, 97, 98, 99, 100, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 119, 125, 126, 127]


def x_locks(display):
    """The locked modifiers of an X display."""
    x11 = ctypes.CDLL("libX11.so.6")
    x11.XOpenDisplay.restype = ctypes.c_void_p
    connection = ctypes.c_void_p(x11.XOpenDisplay(display.name.encode()))
    state = (ctypes.c_ubyte * 64)()
    x11.XkbGetState(connection, 0x100, state)
    x11.XCloseDisplay(connection)
    return state[9]  # XkbStateRec.locked_mods


class InputTest(SharedRig):
    @classmethod
    def start(cls):
        cls.server, cls.vm = cls.shared.run_vm(append="vt.global_cursor_default=0")

    def setUp(self):
        super().setUp()
        self.seen = []
        self.addCleanup(self.settle)

    def settle(self):
        """Nothing of this test is left to surprise the next one."""
        self.wait_released()
        self.vm.agent.events()

    def wait_released(self):
        def held():
            self.events()
            down = set()
            for event in self.seen:
                if event.type == EV_KEY:
                    (down.add if event.value else down.discard)(event.code)
            return down
        wait_for(lambda: not held(), 10, lambda: "the keys %s to be released" % held())

    def events(self):
        """All events since the test's begin (or since forget())."""
        self.seen += self.vm.agent.events()
        return self.seen

    def forget(self):
        self.vm.agent.events()
        self.seen = []

    def wait_events(self, wanted, seconds=15):
        """Waits until the guest has seen these (type, code, value), in this order."""
        def missing():
            left = list(wanted)
            for event in self.events():
                if left and (event.type, event.code, event.value) == left[0]:
                    left.pop(0)
            return left
        wait_for(lambda: not missing(), seconds, lambda: "the guest to see %s; it saw %s" % (
            missing(), [tuple(e[2:]) for e in self.seen]))

    def type_file(self, client, text):
        """Types text into cat in the guest; what it read."""
        self.vm.agent.shell("rm -f /tmp/t /tmp/t.end")
        client.key("ctrl+c")
        for few in ("cat", " >/t", "mp/t", "; ec", "ho >", "/tmp", "/t.e", "nd\n"):
            self.type_few(client, few)
        wait_for(lambda: self.vm.agent.run("test -e /tmp/t")[0] == 0, 20, "cat to start in the guest")
        for at in range(0, len(text), 4):
            self.type_few(client, text[at:at + 4])
        client.key("ctrl+d")
        wait_for(lambda: self.vm.agent.run("test -e /tmp/t.end")[0] == 0, 20,
                 lambda: "cat to end; it has read " + self.vm.agent.shell("cat /tmp/t"))
        return self.vm.agent.shell("cat /tmp/t")

    def type_few(self, client, text):
        """Types and waits until the guest has seen it: QEMU's PS/2 keyboard drops what its queue of 16
        bytes cannot hold, when the machine is slow."""
        self.forget()
        client.type(text)
        typed = lambda: [e for e in self.events() if e.type == EV_KEY and not e.value
                         and e.code not in (KEY_LEFTSHIFT, KEY_RIGHTSHIFT)]
        wait_for(lambda: len(typed()) >= len(text), 20, lambda: "the guest to see %r; it saw %s" % (
            text, [tuple(e[2:]) for e in self.seen]), 0.02)

    # Keys

    def test_text(self):
        text = ("The quick brown fox; jumps over 13 lazy dogs\n" +
                "".join(chr(c) for c in range(33, 127)) + "\n")
        self.assertEqual(self.type_file(self.client(self.server), text), text)

    def test_unicode(self):
        """A client that sends characters instead of keys; the guest's layout is us."""
        text = "Zwei Haxen: {~} [@] \\ 5%\n"
        client = self.client(self.server, args=["/kbd:unicode"])
        self.assertEqual(self.type_file(client, text), text)

    def test_every_key(self):
        client = self.client(self.server)
        every = PLAIN_KEYS + EXTENDED_KEYS
        for at in range(0, len(every), 4):
            keys = every[at:at + 4]
            self.forget()
            client.key(*["%03d" % (code + 8) for code in keys])  # "9" would be a digit, 009 is a key
            self.wait_events([(EV_KEY, code, value) for code in keys for value in (1, 0)], 30)

    def test_held_keys_when_client_dies(self):
        client = self.client(self.server)
        client.key_down(KEY_LEFTSHIFT + 8)
        client.key_down(KEY_RIGHTCTRL + 8)
        client.mouse(300, 200)
        client.button(1, True)
        self.wait_events([(EV_KEY, KEY_LEFTSHIFT, 1), (EV_KEY, KEY_RIGHTCTRL, 1), (EV_KEY, BTN_LEFT, 1)])
        client.kill()
        self.wait_released()

    def test_locks(self):
        display = self.display()
        self.assertEqual(x_locks(display) & LOCK, 0)
        client = self.client(self.server)
        self.addCleanup(lambda: self.leds() & CAPS_LED and self.vm.qmp.send_key("caps_lock"))
        self.vm.qmp.send_key("caps_lock")
        wait_for(lambda: self.leds() & CAPS_LED, 10, "the guest to light Caps Lock")
        wait_for(lambda: x_locks(display) & LOCK, 10, "the client to follow the guest's Caps Lock")
        client.stop()
        display.tool("xdotool", "key", "Caps_Lock")
        self.assertEqual(x_locks(display) & LOCK, 0)
        self.client(self.server)
        wait_for(lambda: not self.leds() & CAPS_LED, 10, "the guest to follow the client's Caps Lock")

    def leds(self):
        return self.vm.agent.inputs()[KEYBOARD]["leds"]

    # Pointer

    def guest_position(self):
        """The guest's pixel that the tablet points at."""
        found = {e.code: e.value for e in self.events() if e.type == EV_ABS and e.device == TABLET}
        axes = self.vm.agent.inputs()[TABLET]["abs"]
        size = self.vm.screen().size
        return tuple(found.get(a, -1) * size[a] / (axes[a][1] + 1) for a in (0, 1))

    def test_clicks(self):
        client = self.client(self.server)
        for x, y, number, code in ((1, 1, 1, BTN_LEFT), (640, 400, 3, BTN_RIGHT), (1279, 799, 2, BTN_MIDDLE),
                                   (17, 733, 1, BTN_LEFT), (1111, 5, 3, BTN_RIGHT)):
            self.forget()
            client.click(x, y, number)
            self.wait_events([(EV_KEY, code, 1), (EV_KEY, code, 0)])
            at = self.guest_position()
            self.assertTrue(abs(at[0] - x) <= 1 and abs(at[1] - y) <= 1, "%s is not %s" % (at, (x, y)))
            first = [e for e in self.seen if e.device == TABLET][0]
            self.assertEqual(first.type, EV_ABS, "the button came before the pointer was there")

    def test_wheel(self):
        client = self.client(self.server)
        client.mouse(50, 50)
        for number, value in ((4, 1), (5, -1), (5, -1), (4, 1)):
            client.button(number, True)
            client.button(number, False)
        self.wait_events([(EV_REL, REL_WHEEL, value) for value in (1, -1, -1, 1)])

    def test_relative_mouse(self):
        """Without a tablet the guest has only its PS/2 mouse; the client still has an absolute one."""
        say("the tablet is pulled out")
        tablet, = [n["name"] for n in self.vm.qmp.command("qom-list", path="/machine/peripheral-anon")
                   if n["type"] == "child<usb-tablet>"]
        self.vm.qmp.command("device_del", id="/machine/peripheral-anon/" + tablet)
        self.addCleanup(self.vm.agent.wait_usb, "0627:0001", "usbhid")
        self.addCleanup(self.vm.qmp.command, "device_add", driver="usb-tablet", bus="testusb.0", port="1")
        self.vm.agent.wait_usb("0627:0001", present=False)
        client = self.client(self.server)
        client.mouse(200, 300)
        client.mouse(210, 310)
        wait_for(lambda: self.moved() != (0, 0), 10, "the pointer to move in the guest")
        before = wait_still(self.moved, 10, "the pointer in the guest")
        client.mouse(350, 270)
        wanted = (before[0] + 140, before[1] - 40)
        wait_for(lambda: self.moved() == wanted, 10,
                 lambda: "the pointer to move to %s in the guest, it moved to %s, in %s" % (
                     wanted, self.moved(), [tuple(e[2:]) for e in self.seen]))
        for number, code in ((1, BTN_LEFT), (2, BTN_MIDDLE), (3, BTN_RIGHT), (8, BTN_SIDE), (9, BTN_EXTRA)):
            client.button(number, True)
            client.button(number, False)
            self.wait_events([(EV_KEY, code, 1), (EV_KEY, code, 0)])
        client.button(4, True)
        client.button(4, False)
        self.wait_events([(EV_REL, REL_WHEEL, 1)])

    def moved(self):
        """How far the mouse has moved since forget()."""
        steps = [e for e in self.events() if e.type == EV_REL and e.device == MOUSE]
        return tuple(sum(e.value for e in steps if e.code == axis) for axis in (REL_X, REL_Y))
