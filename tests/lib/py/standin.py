"""The libusb stand-in as a test sees it: emulated USB devices in a stock client, and their strings.

    usb = standin.Standin(self.dir, [standin.spec("stick", image=self.stick(), serial="ABC")])
    client = self.client(server, ["/usb:id:1209:0001"], env=usb.env)
    usb.command("stall stick 81")
    assert usb.log("stick")["violations"] == 0

docs/testing-standin.md lists devices and commands. One Standin per client process: the control
socket is served by the first process that calls libusb_init() in that environment, which is why
nothing answers before the client has loaded its USB channel.
"""

import os
import socket
import tempfile

import qrdp
from wait import wait_for

VENDOR = 0x1209
# Of every kind, as lsusb shows it.
IDS = {"stick": "1209:0001", "keyboard": "1209:0002", "loop": "1209:0003", "multi": "1209:0004",
       "fido": "1209:0005", "ccid": "1209:0006", "ecm": "1209:0007", "headset": "1209:0008",
       "webcam": "1209:0009", "ftdi": "0403:6001", "cp210x": "10c4:ea60", "pl2303": "067b:2303"}


class Refused(AssertionError):
    """A command was answered with an error, or nobody is there to answer."""


def spec(kind, **options):
    """A device spec: spec("stick", image=path, serial="A1", speed="super", vid="1234")."""
    for value in options.values():
        if set(",;\n") & set(str(value)):
            raise ValueError("',' and ';' cannot be part of a device option: %r" % value)
    return kind + ":" + ",".join("%s=%s" % item for item in options.items())


def library():
    """libqrdp-standin.so: QRDP_STANDIN, or the one built with the qrdp under test."""
    path = os.environ.get("QRDP_STANDIN") or os.path.join(
        os.path.dirname(qrdp.binary()), "..", "tests", "standin", "libqrdp-standin.so")
    if not os.path.exists(path):
        raise AssertionError("no libusb stand-in at %s: run ./dev build, or set QRDP_STANDIN" % path)
    return os.path.abspath(path)


class Standin:
    """The devices of one client process. env: what to add to that process's environment."""

    def __init__(self, directory, devices=(), trace=None):
        # Its own directory, because a unix socket's path may have 107 characters.
        self._directory = tempfile.TemporaryDirectory(prefix="qrdp-s")
        self.path = os.path.join(self._directory.name, "control")
        self.env = {
            "LD_PRELOAD": library(),
            "QRDP_STANDIN_DEVICES": ";".join(devices),
            "QRDP_STANDIN_CONTROL": self.path,
            "QRDP_STANDIN_TRACE": trace or os.path.join(directory, "standin.log"),
        }
        self._socket = None
        self._lines = None

    def wait_ready(self, seconds=30):
        """Waits until the client has called libusb_init()."""
        def connected():
            s = socket.socket(socket.AF_UNIX)
            try:
                s.connect(self.path)
            except OSError:
                s.close()
                return None
            return s
        self.close()
        self._socket = wait_for(connected, seconds, "the client to use libusb", interval=0.02)
        self._socket.settimeout(30)
        self._lines = self._socket.makefile("r")
        return self

    def close(self):
        """Leaves the client alone; the next command connects again."""
        if self._socket:
            self._lines.close()
            self._socket.close()
        self._socket = None

    def command(self, line):
        """Sends one command; returns what follows "ok", raises Refused on "error"."""
        if not self._socket:
            self.wait_ready()
        try:
            self._socket.sendall(line.encode() + b"\n")
            answer = self._lines.readline()
        except OSError:
            answer = ""
        if not answer:
            self.close()
            raise Refused("%s: the client is gone" % line)
        if not answer.startswith("ok"):
            raise Refused("%s: %s" % (line, answer.strip()))
        return answer[2:].strip()

    def plug(self, device_spec):
        """Plugs a device in and returns its name."""
        return _fields(self.command("plug " + device_spec), ",")["name"]

    def unplug(self, name):
        self.command("unplug " + name)

    def devices(self):
        """What is plugged in: {name: {kind, vid, pid, bus, address, port, speed, opens}}."""
        found = [_fields(word, ",") for word in self.command("list").split()]
        return {device["name"]: device for device in found}

    def log(self, name):
        """Counters: {"resets": 1, "violations": 0, "ep81.bytes": 512, ...}."""
        return {k: int(v) for k, v in _fields(self.command("log " + name), " ").items()}

    def wait_log(self, name, condition, seconds=30, what="what was expected"):
        """Waits until condition(log) is true and returns that log."""
        def met():
            seen.update(self.log(name))
            return condition(seen)
        seen = {}
        wait_for(met, seconds, lambda: "%s to see %s; it has %r" % (
            name, what, {k: v for k, v in seen.items() if v}))
        return dict(seen)

    def type(self, text, name="keyboard"):
        """Types on the emulated keyboard (US layout)."""
        text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")
        self.command("type %s %s" % (name, text))

    def leds(self, name="keyboard"):
        """{"num": 0, "caps": 1, "scroll": 0} as the guest set them."""
        fields = _fields(self.command("leds " + name), " ")
        return {k: int(fields[k]) for k in ("num", "caps", "scroll")}


def _fields(text, separator):
    return dict(item.split("=", 1) for item in text.split(separator) if "=" in item)
