"""The servers and viewers of ./dev bench display: each peer is a QEMU of its own and a program that looks at it.

All machines play the same scenes. Only one runs at a time, the others are stopped, so that none takes a processor
from what is measured.
"""

import os
import socket
import subprocess
import time

import proxy
import qemu
import qrdp
import rig
from figures import keep_priority, memory_mb, run_seconds
from wait import Timeout, wait_for

NAMES = ("qrdp", "vnc-tight", "vnc-zrle", "spice", "spice-mjpeg", "dbus")
NONE = "none"    # QEMU without any display: what serving costs is measured against it
MACHINES = {"vnc-tight": "vnc", "vnc-zrle": "vnc"}    # peers that share one; the others have their own
VIEWERS = {"qrdp": "rdp-viewer", "vnc-tight": "vnc-viewer", "vnc-zrle": "vnc-viewer", "spice": "spice-viewer",
           "spice-mjpeg": "spice-viewer", "dbus": "dbus-viewer"}
BLOCK = (40, 40)    # a pixel of the block that a key press changes (tests/guest/screen.c)


def viewer_program(peer):
    """The viewer of a peer: QRDP_VIEWERS, or beside what ./dev built last."""
    directory = os.environ.get("QRDP_VIEWERS") or os.path.join(
        os.path.dirname(qrdp.binary()), "..", "tests", "bench")
    path = os.path.join(directory, VIEWERS[peer])
    if not os.path.exists(path):
        raise AssertionError("no %s: ./dev bench display installs its library and builds it; QRDP_VIEWERS names "
                             "another directory" % path)
    return path


class Viewer:
    """A program that looks (viewer.c)."""

    def __init__(self, argv, log_path, pass_fds=()):
        self.log_path = log_path
        with open(log_path, "ab") as log:
            self.child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                                          pass_fds=pass_fds, start_new_session=True)
        keep_priority(self.child.pid)
        try:
            line = self._line()
            if not line.startswith("READY "):
                raise AssertionError("%s: %s" % (argv[0], line))
        except BaseException:
            self.stop()
            raise

    def _line(self):
        while True:
            line = self.child.stdout.readline().decode(errors="replace").strip()
            if not line:
                with open(self.log_path, errors="replace") as log:
                    raise AssertionError("the viewer has ended: " + log.read()[-1000:])
            if line.split()[0] in ("READY", "ok", "error"):    # libraries print, too
                return line

    def ask(self, *words):
        """One command; {name: text}."""
        self.child.stdin.write(" ".join(str(w) for w in words).encode() + b"\n")
        self.child.stdin.flush()
        line = self._line()
        if not line.startswith("ok"):
            raise AssertionError("the viewer, %s: %s" % (" ".join(str(w) for w in words), line))
        return dict(word.split("=", 1) for word in line.split()[1:])

    def hash(self):
        return int(self.ask("hash")["hash"], 16)

    def stop(self):
        self.child.stdin.close()
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.child.stdout.close()


class Server:
    """A machine, and what serves its screen."""

    def __init__(self, bench, name):
        self.directory = bench.path(name)
        self.kind = name
        self.port = free_port()
        display, extra = "none", []
        if name == "vnc":
            extra = ["-vnc", "127.0.0.1:%d" % (self.port - 5900)]
        elif name in ("spice", "spice-mjpeg"):
            extra = ["-spice", "addr=127.0.0.1,port=%d,disable-ticketing=on,image-compression=auto_glz,"
                     "streaming-video=%s" % (self.port, "off" if name == "spice" else "filter")]
        elif name in ("qrdp", "dbus"):
            display = "dbus,p2p=yes"
        # With the HPET the guest's tick wakes QEMU's main loop 250 times a second, which hides the small scenes.
        self.machine = qemu.Machine(
            self.directory, video=bench.vga, display=display, memory=320, usb=False,
            append="vt.global_cursor_default=0", wait=False,
            extra=extra + ["-machine", "hpet=off,vmport=off", "-device", "virtio-keyboard-pci"])
        bench.stack.callback(self.machine.stop)
        keep_priority(self.machine.process.pid)
        self.qmp, self.agent = self.machine.qmp, self.machine.connect_agent()
        self.agent.drm("%dx%d" % bench.size)
        self.cpu = self.qmp.command("query-cpus-fast")[0]["thread-id"]
        self.qrdp = None
        if name == "qrdp":
            self.qrdp = qrdp.Qrdp(bench.path("serve"), serve=["--qmp=" + self.machine.qmp_path], log_level="info",
                                  options=["--share"],
                                  credentials=(rig.USER, rig.PASSWORD))
            bench.stack.callback(self.qrdp.stop)
            keep_priority(self.qrdp.process.pid)
            self.port = int(self.qrdp.address.rpartition(":")[2])
        self.network = None
        if bench.rtt or bench.rate:
            self.network = proxy.DelayProxy(bench.directory, "127.0.0.1:%d" % self.port, rtt_ms=bench.rtt,
                                            rate_mbit=bench.rate, strict=True, name="proxy-" + name)
            bench.stack.callback(self.network.stop)
            keep_priority(self.network.child.pid)
            self.port = int(self.network.address.rpartition(":")[2])
        self.qmp.command("stop")

    def serving(self):
        """Processor seconds of all that serves: QEMU's threads but the guest's processor, and qrdp."""
        with open("/proc/%d/task/%d/schedstat" % (self.machine.process.pid, self.cpu)) as guest:
            spent = run_seconds(self.machine.process.pid) - int(guest.read().split()[0]) / 1e9
        return spent + self.program()

    def program(self):
        """Processor seconds of qrdp alone."""
        return run_seconds(self.qrdp.process.pid) if self.qrdp else 0

    def shared(self):
        """Whether all of qrdp's viewers get the same frames."""
        return all(client["shares_with"] for client in self.qrdp.status()["clients"])

    def memory(self):
        """MB of qrdp without the guest's frame buffer, which is QEMU's and mapped."""
        memory = memory_mb(self.qrdp.process.pid)
        return memory["Pss_Anon"] + memory["Pss_File"]

    def screendump(self, path):
        self.qmp.command("screendump", filename=path)
        return path

    def viewer(self, peer, words):
        """Connects a viewer; peer is one of NAMES that this serves."""
        argv = [viewer_program(peer)]
        log_path = os.path.join(self.directory, "viewer-%s.log" % peer)
        if peer == "dbus":
            ours, theirs = socket.socketpair()
            with ours, theirs:
                self.qmp.command("getfd", pass_fd=theirs.fileno(), fdname="viewer")
                self.qmp.command("add_client", protocol="@dbus-display", fdname="viewer")
                return Viewer(argv + [str(ours.fileno())], log_path, pass_fds=[ours.fileno()])
        argv += ["127.0.0.1", str(self.port)]
        if peer == "qrdp":
            argv += list(self.qrdp.credentials) + list(words)
        elif peer in ("vnc-tight", "vnc-zrle"):
            argv.append({"vnc-tight": "tight copyrect", "vnc-zrle": "zrle"}[peer])
        return Viewer(argv, log_path)


def free_port():
    """Above 5900, where VNC's displays begin."""
    while True:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            if s.getsockname()[1] > 5900:
                return s.getsockname()[1]


def wait_same(server, viewer, seconds):
    """Waits until the viewer's picture is the guest's; whether it became that."""
    wanted = server.agent.screen()[2]
    try:
        wait_for(lambda: viewer.hash() == wanted, seconds, "the same picture", interval=0.02)
        return True
    except Timeout:
        return False


def now_us():
    return time.monotonic_ns() // 1000
