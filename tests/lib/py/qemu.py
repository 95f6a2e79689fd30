"""A QEMU virtual machine with the test guest: command line, QMP, the agent inside."""

import base64
import collections
import json
import os
import socket
import subprocess
import time

import image
from proc import Process
from wait import Timeout, wait_for

BASE = os.environ.get("QRDP_TEST_BASE") or os.path.abspath(
    os.path.join(os.path.dirname(__file__), "..", "..", ".."))
GUEST_DIR = os.environ.get("QRDP_GUEST_DIR") or os.path.join(BASE, "build-guest")
QEMU = os.environ.get("QRDP_QEMU") or "qemu-system-x86_64"


class QmpError(AssertionError):
    pass


class Qmp:
    """A QMP connection. Events that arrive meanwhile are kept in self.events."""

    def __init__(self, path, seconds=20):
        self.events = []
        self.buffer = b""
        self.socket = connect_unix(path, seconds)
        self.socket.settimeout(seconds)
        self._read()  # the greeting
        self.command("qmp_capabilities")

    def _read(self):
        while b"\n" not in self.buffer:
            data = self.socket.recv(65536)
            if not data:
                raise QmpError("QEMU closed the QMP connection")
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return json.loads(line)

    def command(self, name, pass_fd=None, **arguments):
        """Runs a command (underscores in argument names become hyphens) and returns its result."""
        request = {"execute": name}
        if arguments:
            request["arguments"] = {k.replace("_", "-"): v for k, v in arguments.items()}
        line = json.dumps(request).encode() + b"\n"
        if pass_fd is None:
            self.socket.sendall(line)
        else:
            socket.send_fds(self.socket, [line], [pass_fd])
        while True:
            reply = self._read()
            if "event" in reply:
                self.events.append(reply)
            elif "error" in reply:
                raise QmpError("%s: %s" % (name, reply["error"]["desc"]))
            elif "return" in reply:
                return reply["return"]

    def wait_event(self, name, seconds=20):
        def seen():
            self.command("query-name")  # makes waiting events arrive
            for event in self.events:
                if event["event"] == name:
                    self.events.remove(event)
                    return event
            return None
        return wait_for(seen, seconds, "the QMP event " + name)

    def close(self):
        self.socket.close()

    # What tests ask for most.

    def send_key(self, *names, hold_ms=50):
        """Presses keys together, by QEMU's names (QKeyCode): send_key("ctrl", "c")."""
        self.command("send-key", keys=[{"type": "qcode", "data": n} for n in names],
                     **{"hold-time": hold_ms})

    def mouse(self, x=None, y=None, button=None, down=None):
        """An absolute position (0 to 32767) and/or a button change ("left", "middle", "right")."""
        events = []
        if x is not None:
            events += [{"type": "abs", "data": {"axis": "x", "value": x}},
                       {"type": "abs", "data": {"axis": "y", "value": y}}]
        if button:
            events.append({"type": "btn", "data": {"button": button, "down": bool(down)}})
        self.command("input-send-event", events=events)

    def screendump(self, path):
        """The guest's screen as QEMU has it, as an Image; path is a scratch file."""
        self.command("screendump", filename=path)
        with open(path, "rb") as ppm:
            return image.read_ppm(ppm.read())

    def human(self, line):
        return self.command("human-monitor-command", **{"command-line": line})


def connect_unix(path, seconds):
    """Connects to a unix socket that may not be there yet."""
    def attempt():
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.connect(path)
            return sock
        except OSError:
            sock.close()
            return None
    return wait_for(attempt, seconds, "a listener on " + path)


class AgentError(AssertionError):
    pass


InputEvent = collections.namedtuple("InputEvent", "time device type code value")
EV_KEY, EV_REL, EV_ABS, EV_LED = 1, 2, 3, 17


class Agent:
    """The guest's agent. A request may be left running: start() returns a number for finish()."""

    def __init__(self, path, seconds=60):
        self.path = path
        self.seconds = seconds
        self.socket = connect_unix(path, 20)
        self.buffer = b""
        self.next_id = 1
        self.answers = {}
        self.ready(seconds)

    def ready(self, seconds=60):
        """Waits until the guest has started (again, after a reset); the identity of its boot."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                boot = self.finish(self.start("ping"), min(5, seconds))[1].strip()
                self.shell("while [ ! -e /run/settled ] || [ ! -e /run/shell.pid ]; do sleep 0.1; done")
                return boot
            except Timeout:
                if time.monotonic() >= deadline:
                    raise Timeout("waited %g s for the guest to start and its agent to answer" % seconds)

    def start(self, verb, argument=""):
        number, self.next_id = self.next_id, self.next_id + 1
        self.socket.sendall(("%d %s %s" % (number, verb, argument)).rstrip().encode() + b"\n")
        return number

    def finish(self, number, seconds=20):
        """Waits for the answer of a started request; (status, text)."""
        deadline = time.monotonic() + seconds
        while number not in self.answers:
            left = deadline - time.monotonic()
            if left <= 0:
                raise Timeout("waited %g s for the guest's agent to answer" % seconds)
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(1 << 16)
            except socket.timeout:
                continue
            if not data:
                raise AgentError("QEMU closed the agent's connection")
            self.buffer += data
            *lines, self.buffer = self.buffer.split(b"\n")
            for line in lines:
                ident, _, rest = line.partition(b" ")
                status, _, text = rest.partition(b" ")
                if ident.isdigit() and status.lstrip(b"-").isdigit():
                    self.answers[int(ident)] = (int(status),
                                                base64.b64decode(text).decode(errors="replace"))
        return self.answers.pop(number)

    def ask(self, verb, argument="", seconds=20):
        status, text = self.finish(self.start(verb, argument), seconds)
        if status:
            raise AgentError("%s %s: %s" % (verb, argument, text.strip()))
        return text

    # Scripts

    def start_script(self, script):
        """Starts a shell script in the guest; finish(number, seconds) gives (status, output)."""
        return self.start("exec", base64.b64encode(script.encode()).decode())

    def run(self, script, seconds=30):
        """Runs a shell script in the guest; (status, output)."""
        return self.finish(self.start_script(script), seconds)

    def shell(self, script, seconds=30):
        """Runs a shell script in the guest that must succeed; its output."""
        status, output = self.run(script, seconds)
        if status:
            raise AgentError("in the guest, status %d from: %s\n%s" % (status, script, output))
        return output

    # USB

    def usb(self):
        """USB devices but hubs: dicts with id ("46f4:0001"), serial, speed, port, drivers (set)."""
        devices = []
        text = self.shell(r"""
cd /sys/bus/usb/devices 2>/dev/null || exit 0; for d in *-*; do
    [ -f $d/idVendor ] || continue
    [ "$(cat $d/bDeviceClass 2>/dev/null)" = 09 ] && continue
    echo "$d|$(cat $d/idVendor):$(cat $d/idProduct)|$(cat $d/serial 2>/dev/null)|$(cat $d/speed)|$(
        for i in $d/$d:*; do [ -e $i/driver ] && basename $(readlink $i/driver); done | tr '\n' ' ')"
done; true""")
        for line in text.splitlines():
            port, ident, serial, speed, drivers = (line.split("|") + [""] * 4)[:5]
            if not speed:
                continue  # it went away while it was looked at
            devices.append({"port": port, "id": ident, "serial": serial, "speed": float(speed),
                            "drivers": set(drivers.split())})
        return devices

    def wait_usb(self, ident, driver=None, present=True, seconds=30):
        """Waits until a device (and its driver) is there, or gone."""
        def seen():
            found = [d for d in self.usb()
                     if d["id"] == ident and (driver is None or driver in d["drivers"])]
            return (found or [None])[0] if present else not found
        return wait_for(seen, seconds, lambda: "USB device %s %s in the guest, which has %s" % (
            ident, "with driver " + driver if driver else "to come" if present else "to go", self.usb()))

    def mounts(self):
        """Sticks mounted by the guest: {"/mnt/usb-sda1": "vfat"}."""
        return {f[1]: f[2] for f in
                (line.split() for line in self.shell("cat /proc/mounts").splitlines())
                if f[1].startswith("/mnt/usb-")}

    def wait_mount(self, count=1, seconds=60):
        """Waits until the guest has mounted this many sticks' partitions; their places, sorted."""
        return wait_for(lambda: len(self.mounts()) == count and sorted(self.mounts()) or
                        (count == 0 and not self.mounts()), seconds,
                        lambda: "%d mounted sticks in the guest; USB says: %s" % (
                            count, self.shell("cat /run/usb.log 2>/dev/null; true")))

    def usb_log(self):
        """The lines about USB that the guest's screen has shown."""
        return self.shell("cat /run/usb.log 2>/dev/null; true")

    # Input and screen

    def events(self):
        """Input events since the last call, as InputEvent tuples."""
        found = []
        for line in self.ask("keys").splitlines():
            when, device, kind, code, value = line.split("|")
            found.append(InputEvent(float(when), device, int(kind), int(code), int(value)))
        return found

    def inputs(self):
        """Input devices: {name: {"node":, "abs": {code: (min, max)}, "leds": mask}}."""
        devices = {}
        for line in self.ask("inputs").splitlines():
            node, name, *rest = line.split("|")
            info = {"node": node, "abs": {}, "leds": 0}
            for item in rest:
                words = item.split()
                if words[0] == "abs":
                    info["abs"][int(words[1])] = (int(words[2]), int(words[3]))
                elif words[0] == "leds":
                    info["leds"] = int(words[1])
            devices[name] = info
        return devices

    def drm(self, mode="preferred"):
        """Takes the screen with the DRM program: "preferred" (follows the host), "WxH" or "off"."""
        words = self.ask("drm", mode).split()
        return tuple(int(w) for w in words) if words else None

    def pattern(self, name, arg=""):
        self.ask("pattern", "%s %s" % (name, arg))

    def animate(self, name, fps=30):
        self.ask("animate", "%s %d" % (name, fps))

    def animate_stop(self):
        """The number of frames that were drawn."""
        return int(self.ask("animate", "off"))

    def flip(self, on=True):
        """A block that changes colour on every key press: (x, y, size)."""
        return tuple(int(w) for w in self.ask("flip", "on" if on else "off").split())

    def vbe(self, width, height, bits, number):
        """On standard VGA: a mode of 8 (palette), 15, 16, 24 or 32 bits with a picture, past the driver."""
        self.ask("vbe", "%d %d %d %d" % (width, height, bits, number))

    def screen(self):
        """(width, height, CRC-32 of the visible pixels), as the guest itself sees them."""
        width, height, crc = self.ask("fbhash", seconds=60).split()
        return int(width), int(height), int(crc, 16)

    def close(self):
        self.socket.close()


def guest_arguments(directory, video="virtio", memory=256, append="", usb=True, agent=True, kernel=True,
                    initrd=None):
    """QEMU's arguments for the test guest, without display and QMP.

    video: "std" (bochs, VGA) or "virtio" (virtio-vga: follows window sizes). The agent's socket is
    DIRECTORY/agent, the serial console goes to DIRECTORY/serial.log. kernel=False leaves it to the firmware
    what to start. With an agent keys do not repeat: on a busy machine a key's release may well be later than
    the quarter of a second after which Linux repeats it.
    """
    image = os.path.join(GUEST_DIR, "kernel")
    if not os.path.exists(image):
        raise AssertionError("no test guest in %s: run tests/guest/build.sh %s" % (
            GUEST_DIR, GUEST_DIR))
    arguments = ["-machine", "q35,accel=tcg", "-cpu", "max", "-m", str(memory), "-nodefaults",
                 "-no-user-config",
                 "-serial", "file:" + os.path.join(directory, "serial.log"),
                 "-device", {"std": "VGA", "virtio": "virtio-vga"}[video]]
    if kernel:
        words = ["console=ttyS0", "console=tty0", "quiet", "loglevel=3"] + ["norepeat=1"] * agent + append.split()
        arguments += ["-kernel", image, "-initrd", initrd or os.path.join(GUEST_DIR, "initramfs"),
                      "-append", " ".join(words)]
    if agent:
        arguments += ["-device", "virtio-serial-pci",
                      "-chardev", "socket,id=agent,server=on,wait=off,path=" +
                      os.path.join(directory, "agent"),
                      "-device", "virtserialport,chardev=agent,name=org.qrdp.agent"]
    if usb:
        arguments += ["-device", "qemu-xhci,id=testusb,p2=4,p3=4",
                      "-device", "usb-tablet,bus=testusb.0,port=1"]
    return arguments


class Machine:
    """QEMU with the test guest, started by the test itself (not by qrdp run).

    directory holds its sockets and logs: qmp, agent, serial.log, qemu.log. It is kept short, because a
    unix socket's path may have 107 characters.
    """

    def __init__(self, directory, video="virtio", display="none", extra=(), append="", memory=256,
                 wait=True, usb=True, initrd=None):
        os.makedirs(directory, exist_ok=True)
        self.directory = directory
        self.qmp_path = os.path.join(directory, "qmp")
        self.process = Process(
            [QEMU] + guest_arguments(directory, video, memory, append, usb=usb, initrd=initrd) +
            ["-display", display, "-qmp", "unix:%s,server=on,wait=off" % self.qmp_path,
             # A second one, because a QMP socket serves one client at a time and qrdp uses the first.
             "-qmp", "unix:%s2,server=on,wait=off" % self.qmp_path] + list(extra),
            os.path.join(directory, "qemu.log"))
        try:
            self.qmp = Qmp(self.qmp_path + "2")
            self.agent = Agent(os.path.join(directory, "agent")) if wait else None
        except BaseException:
            self.process.kill()
            raise

    def connect_agent(self, seconds=60):
        self.agent = Agent(os.path.join(self.directory, "agent"), seconds)
        return self.agent

    def screen(self):
        return self.qmp.screendump(os.path.join(self.directory, "screen.ppm"))

    def add_stick(self, path, name="stick", port=None):
        """Plugs an emulated USB stick with this image into the guest, without qrdp."""
        self.qmp.command("blockdev-add", node_name=name, driver="raw",
                         file={"driver": "file", "filename": path})
        extra = {"port": str(port)} if port else {}
        self.qmp.command("device_add", driver="usb-storage", id=name, bus="testusb.0", drive=name, **extra)

    def remove_stick(self, name="stick"):
        self.qmp.command("device_del", id=name)
        self.qmp.wait_event("DEVICE_DELETED")
        self.qmp.command("blockdev-del", node_name=name)

    def stop(self):
        for client in (self.agent, self.qmp):
            if client:
                client.close()
        return self.process.kill()


def make_stick(path, megabytes=16, files=(), label="STICK"):
    """A stick's image: one FAT partition starting at sector 2048, holding files ((name, bytes), ...).

    Only tools without mounting are used: the partition table is written here, mkfs.vfat and mtools do the
    rest.
    """
    start, sectors = 2048, megabytes * 2048
    with open(path, "wb") as stick:
        stick.truncate(sectors * 512)
        entry = (b"\0\xfe\xff\xff\x0c\xfe\xff\xff" + start.to_bytes(4, "little") +
                 (sectors - start).to_bytes(4, "little"))
        stick.write(b"\0" * 446 + entry + b"\0" * 48 + b"\x55\xaa")
    env = dict(os.environ, PATH=os.environ.get("PATH", "") + ":/sbin:/usr/sbin", MTOOLS_SKIP_CHECK="1")
    subprocess.run(["mkfs.vfat", "-n", label, "--offset", str(start), path,
                    str((sectors - start) // 2)], check=True, env=env, stdout=subprocess.DEVNULL)
    for name, content in files:
        subprocess.run(["mcopy", "-i", "%s@@%d" % (path, start * 512), "-", "::" + name], check=True,
                       env=env, input=content)
