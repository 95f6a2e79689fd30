"""The libusb stand-in as a test sees it: plug devices into a stock client, and pull its strings.

    stick = standin.make_image("/tmp/x/stick.img", 32 << 20, {"hello.txt": b"hi"})
    usb = standin.Standin("/tmp/x", [standin.spec("stick", image=stick, serial="ABC")])
    client = subprocess.Popen(["xfreerdp3", ..., "/usb:id:1209:0001"], env=usb.env())
    usb.wait_ready()
    usb.command("stall stick 81")
    assert usb.log("stick")["violations"] == 0

docs/testing-standin.md lists the commands. One Standin per client process: the control socket is
served by the first process that calls libusb_init() in that environment.
"""

import hashlib
import os
import socket
import struct
import subprocess
import tempfile
import time

SECTOR = 512
PARTITION_START = 2048  # sectors

VENDOR = 0x1209
PRODUCTS = {"stick": 0x0001, "keyboard": 0x0002, "loop": 0x0003}


class StandinError(Exception):
    """A command was answered with an error, or the socket is gone."""


def spec(kind, **options):
    """A device spec: spec("stick", image=path, serial="A1", speed="super", vid="1234")."""
    for value in options.values():
        if any(c in str(value) for c in ",;"):
            raise ValueError("',' and ';' cannot be part of a device option: %r" % value)
    return kind + ":" + ",".join("%s=%s" % item for item in options.items())


def find_library():
    """libqrdp-standin.so: $QRDP_STANDIN_LIB, or the one in $MESON_BUILD_ROOT."""
    path = os.environ.get("QRDP_STANDIN_LIB")
    if not path and os.environ.get("MESON_BUILD_ROOT"):
        path = os.path.join(
            os.environ["MESON_BUILD_ROOT"], "tests", "standin", "libqrdp-standin.so"
        )
    if not path or not os.path.exists(path):
        raise StandinError("set QRDP_STANDIN_LIB to the built libqrdp-standin.so")
    return os.path.abspath(path)


class Standin:
    """The environment of one client process, and the control socket inside it."""

    def __init__(self, directory, devices=(), library=None, trace=None):
        self.library = library or find_library()
        self.devices = list(devices)
        self.trace = trace
        # A socket path has 107 bytes at most, so it is not put into deep test directories.
        self._own_dir = None
        self.path = os.path.join(os.path.abspath(directory), "standin-%d.sock" % id(self))
        if len(self.path) > 100:
            self._own_dir = tempfile.TemporaryDirectory(prefix="qrdp-")
            self.path = os.path.join(self._own_dir.name, "standin.sock")
        self._socket = None
        self._buffer = b""

    def env(self, base=None):
        """The environment for the client (a copy of @base or of ours)."""
        env = dict(os.environ if base is None else base)
        # Only the client is to see emulated devices; LD_PRELOAD of a sanitizer must not remain.
        env["LD_PRELOAD"] = self.library
        env["QRDP_STANDIN_DEVICES"] = ";".join(self.devices)
        env["QRDP_STANDIN_CONTROL"] = self.path
        if self.trace:
            env["QRDP_STANDIN_TRACE"] = self.trace
        return env

    def wait_ready(self, timeout=30, process=None):
        """Waits until the client has called libusb_init(); fails early if @process ends."""
        deadline = time.monotonic() + timeout
        while True:
            s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                s.connect(self.path)
                break
            except OSError as e:
                s.close()
                if process is not None and process.poll() is not None:
                    raise StandinError("the client ended before it used USB") from e
                if time.monotonic() > deadline:
                    raise StandinError("the client did not use USB in %s s" % timeout) from e
                time.sleep(0.02)
        s.settimeout(30)
        self.close()
        self._socket = s

    def close(self):
        if self._socket:
            self._socket.close()
        self._socket = None
        self._buffer = b""

    def command(self, line):
        """Sends one command; returns what follows "ok", raises StandinError on "error"."""
        if not self._socket:
            self.wait_ready()
        try:
            self._socket.sendall(line.encode() + b"\n")
            while b"\n" not in self._buffer:
                data = self._socket.recv(4096)
                if not data:
                    raise StandinError("the client is gone")
                self._buffer += data
        except OSError as e:
            self.close()
            raise StandinError("the client is gone: %s" % e) from e
        answer, self._buffer = self._buffer.split(b"\n", 1)
        text = answer.decode()
        if not text.startswith("ok"):
            raise StandinError("%s: %s" % (line, text))
        return text[2:].strip()

    def plug(self, device_spec):
        """Plugs a device in and returns its name."""
        return _fields(self.command("plug " + device_spec), ",")["name"]

    def unplug(self, name):
        self.command("unplug " + name)

    def list(self):
        """What is plugged in: {name: {kind, vid, pid, bus, address, port, speed, opens}}."""
        devices = [_fields(word, ",") for word in self.command("list").split()]
        return {d["name"]: d for d in devices}

    def log(self, name):
        """Counters: {"resets": 1, "violations": 0, "ep81.bytes": 512, ...}."""
        return {k: int(v) for k, v in _fields(self.command("log " + name), " ").items()}

    def type(self, text, name="keyboard"):
        text = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")
        self.command("type %s %s" % (name, text))

    def leds(self, name="keyboard"):
        """{"num": 0, "caps": 1, "scroll": 0} as the guest set them."""
        fields = _fields(self.command("leds " + name), " ")
        return {k: int(fields[k]) for k in ("num", "caps", "scroll")}

    def wait_log(self, name, condition, timeout=30):
        """Waits until condition(log) is true and returns that log."""
        deadline = time.monotonic() + timeout
        while True:
            log = self.log(name)
            if condition(log):
                return log
            if time.monotonic() > deadline:
                raise StandinError("%s never came to the awaited state: %r" % (name, log))
            time.sleep(0.02)


def _fields(text, separator):
    return dict(item.split("=", 1) for item in text.split(separator) if "=" in item)


def _mbr(sectors, kind, boot_code=b"", start=PARTITION_START):
    """A master boot record with one active partition from @start to the end."""
    if len(boot_code) > 440:
        raise ValueError("boot code does not fit into the boot record")
    # No cylinders: 0xfe 0xff 0xff says "use the LBA fields".
    entry = struct.pack("<B3sB3sII", 0x80, b"\xfe\xff\xff", kind, b"\xfe\xff\xff",
                        start, sectors - start)
    return boot_code.ljust(446, b"\0") + entry + bytes(48) + b"\x55\xaa"


def make_image(path, size, files=None, label="QRDP", boot_code=b""):
    """A disk image of @size bytes with one partition: ext2 holding @files ({name: bytes}), or
    zeros if files is None. Returns @path."""
    sectors = size // SECTOR
    with open(path, "wb") as f:
        f.truncate(sectors * SECTOR)
        f.write(_mbr(sectors, 0x83, boot_code))
    if files is None:
        return path
    with tempfile.TemporaryDirectory(prefix="qrdp-image-") as root:
        for name, data in files.items():
            target = os.path.join(root, name)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb") as f:
                f.write(data)
        subprocess.run(
            ["mke2fs", "-q", "-F", "-t", "ext2", "-m", "0", "-L", label, "-d", root,
             "-E", "root_owner=0:0,offset=%d" % (PARTITION_START * SECTOR), path,
             "%dk" % ((sectors - PARTITION_START) * SECTOR // 1024)],
            check=True, env=dict(os.environ, PATH=os.environ.get("PATH", "") + ":/sbin:/usr/sbin"),
        )
    return path


def sha256(path, offset=0, length=None):
    """The checksum of a file, or of part of it."""
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        f.seek(offset)
        while length is None or length > 0:
            data = f.read(1 << 20 if length is None else min(1 << 20, length))
            if not data:
                break
            digest.update(data)
            if length is not None:
                length -= len(data)
    return digest.hexdigest()
