"""Real libvirt, embedded in virsh, starts qrdp as its RDP helper."""

import os
import re
import signal
import socket
import subprocess
import time

import qemu
import qrdp
import standin
import xclient
from rig import Rig, say
from wait import wait_for

USER, PASSWORD = "joe", "s3cret-w\u00f6rd"

QEMU_CONF = """
qemu_rdp = "%(helper)s"
rdp_tls_x509_cert_dir = "%(pki)s"
stdio_handler = "file"
security_driver = "none"
user = "root"
group = "root"
namespaces = []
cgroup_controllers = []
"""

DOMAIN = """
<domain type='qemu'>
 <name>t1</name><memory unit='MiB'>256</memory><vcpu>1</vcpu>
 <os><type machine='q35'>hvm</type><kernel>%(guest)s/kernel</kernel>
  <initrd>%(guest)s/initramfs</initrd>
  <cmdline>console=ttyS0 console=tty0 quiet loglevel=3 vt.global_cursor_default=0</cmdline></os>
 <features><acpi/></features><cpu mode='maximum'/>
 <devices>
  <controller type='usb' model='qemu-xhci' ports='8'/>
  <video><model type='virtio'/></video>
  %(graphics)s
  <channel type='unix'><source mode='bind' path='%(directory)s/agent'/>
   <target type='virtio' name='org.qrdp.agent'/></channel>
  <input type='tablet' bus='usb'/>
  <redirdev bus='usb' type='dbus'/><redirdev bus='usb' type='dbus'/>
  <memballoon model='none'/>
 </devices>
</domain>
"""

DBUS = "<graphics type='dbus'/>"
LISTEN = "<listen type='address' address='127.0.0.1'/>"


def rdp(credentials="username='%s' passwd='%s'" % (USER, PASSWORD), port="autoport='yes'"):
    return "<graphics type='rdp' %s %s>%s</graphics>" % (port, credentials, LISTEN)


class Virsh:
    """One virsh with the embedded driver: as long as it lives it is the daemon."""

    def __init__(self, directory):
        self.log_path = os.path.join(directory, "virsh.log")
        self.count = 0
        with open(self.log_path, "wb") as log:
            self.child = subprocess.Popen(
                ["virsh", "-q", "-c", "qemu:///embed?root=" + directory], stdin=subprocess.PIPE,
                stdout=log, stderr=log, env=qrdp.environment(directory), start_new_session=True)

    def send(self, command):
        self.count += 1
        self.child.stdin.write(("%s\necho DONE%d\n" % (command, self.count)).encode())
        self.child.stdin.flush()
        return self.count

    def log(self):
        with open(self.log_path, "rb") as log:
            return log.read().decode(errors="replace")

    def output(self, number, seconds=60):
        """What command NUMBER printed."""
        wait_for(lambda: re.search("^DONE%d" % number, self.log(), re.M), seconds,
                 lambda: "virsh, which said: " + self.log()[-2000:])
        start = re.search("^DONE%d" % (number - 1), self.log(), re.M)
        text = self.log()[start.end() if start else 0:]
        text = text[:re.search("^DONE%d" % number, text, re.M).start()]
        return re.sub("virsh # .*", "", text)  # readline repeats the command

    def run(self, command):
        text = self.output(self.send(command))
        if "error:" in text:
            raise AssertionError("virsh %s: %s" % (command, text))
        return text

    def fail(self, command):
        text = self.output(self.send(command))
        if "error:" not in text:
            raise AssertionError("virsh %s went well: %s" % (command, text))
        return text

    def stop(self):
        if self.child.poll() is None:
            self.child.stdin.close()
            try:
                self.child.wait(30)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait()


def process_gone(pid):
    """No such process, or one that only waits for a slow PID 1 to reap it."""
    try:
        with open("/proc/%d/stat" % pid) as stat:
            return stat.read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


class LibvirtTest(Rig):
    def setUp(self):
        super().setUp()
        os.makedirs(self.path("etc"))
        pki = self.make_certificate()
        with open(self.path("etc", "qemu.conf"), "w") as conf:
            conf.write(QEMU_CONF % {"helper": qrdp.binary(), "pki": pki})
        self.virsh = Virsh(self.dir)
        self.addCleanup(self.check_reports)
        self.addCleanup(self.virsh.stop)
        self.addCleanup(lambda: self.virsh.output(self.virsh.send("destroy t1")))

    def check_reports(self):
        self.assertEqual(qrdp.reports(self.dir), {})

    def make_certificate(self):
        """The pair that qrdp makes on first start has the names that libvirt wants."""
        server = self._server(qrdp.Qrdp(self.path("pki"), serve=["--qmp=" + self.path("nobody")],
                                        ready=0))
        made = self.path("pki", "qrdp", "server-key.pem")
        wait_for(lambda: os.path.exists(made), 20, lambda: "a certificate: " + server.log())
        self.assertEqual(server.stop(), 0)
        return os.path.dirname(made)

    def domain(self, graphics):
        path = self.path("domain.xml")
        with open(path, "w") as xml:
            xml.write(DOMAIN % {"guest": qemu.GUEST_DIR, "directory": self.dir, "graphics": graphics})
        return path

    def start(self, graphics):
        """Starts the domain; the address of its RDP display."""
        self.virsh.run("create " + self.domain(graphics))
        return self.virsh.run("domdisplay t1").strip().replace("rdp://", "")

    def bus(self):
        return re.search(r"dbus\+unix://(\S+)", self.virsh.run("domdisplay t1 --all")).group(1)

    def helper_pid(self):
        directory = self.path("run", "qemu", "rdp")
        with open(os.path.join(directory, os.listdir(directory)[0])) as pidfile:
            return int(pidfile.read())

    def helper_log(self):
        directory = self.path("log", "qemu")
        names = [n for n in os.listdir(directory) if n.endswith("qemu-rdp.log")]
        with open(os.path.join(directory, names[0]), errors="replace") as log:
            return log.read()

    def status(self, *arguments):
        code, out, error = qrdp.run_once(self.dir, *arguments,
                                         "--dbus-address=unix:path=" + self.bus())
        self.assertEqual(code, 0, error)
        return out

    def client_of(self, address, password=PASSWORD, user=USER, **options):
        self.count = getattr(self, "count", 0) + 1
        client = xclient.Client(self.display(), self.dir, address, user, password,
                                name="client%d" % self.count, **options)
        self.addCleanup(client.stop)
        return client

    def assert_console(self, client):
        """The client is in and shows more than an empty window."""
        client.connect()
        wait_for(lambda: client.screen().colors() > 1, 20, "the guest's console in the window")
        return client

    def assert_refused(self, address, password, user=USER):
        client = self.client_of(address, password, user)
        self.assertNotEqual(client.wait_exit(60), 0)

    def assert_helper_ends(self, pid, seconds=10):
        wait_for(lambda: process_gone(pid), seconds, lambda: "qrdp to end: " + self.helper_log())

    def test_console_stick_and_destroy(self):
        address = self.start(DBUS + rdp())
        pid = self.helper_pid()
        agent = qemu.Agent(self.path("agent"))
        say("logins")
        self.assert_refused(address, "wrong")
        usb = standin.Standin(self.dir, [standin.spec("stick", image=self.stick(
            files=[("HELLO.TXT", b"hello\n")]))])
        client = self.client_of(address, args=["/usb:id:1209:0001"], env=usb.env).connect()
        say("the stick")
        place = agent.wait_mount()[0]
        self.assertEqual(agent.shell("cat %s/hello.txt" % place), "hello\n")
        self.assertIn(USER, self.status("status"))
        self.assertIn("1209:0001", self.status("usb", "list"))

        say("a third slot, a new password")
        with open(self.path("redir.xml"), "w") as xml:
            xml.write("<redirdev bus='usb' type='dbus'/>")
        self.virsh.run("attach-device t1 " + self.path("redir.xml"))
        port = address.rpartition(":")[2]
        with open(self.path("graphics.xml"), "w") as xml:
            xml.write(rdp("username='jane' passwd='n3w'",
                          "port='%s' autoport='yes' listen='127.0.0.1'" % port))
        self.virsh.run("update-device t1 %s --live" % self.path("graphics.xml"))
        self.assertTrue(client.alive())  # who is in stays in
        self.assert_refused(address, PASSWORD)
        second = self.assert_console(self.client_of(address, "n3w", "jane"))
        wait_for(lambda: not client.alive(), 20, "the first client to make room")

        say("destroy")
        self.virsh.run("destroy t1")
        self.assert_helper_ends(pid)
        wait_for(lambda: not second.alive(), 20, "the client to be told")
        self.assertEqual(os.listdir(self.path("run", "qemu", "rdp")), [])
        self.assertEqual([n for n in os.listdir(self.path("run", "qemu", "dbus"))
                          if n.endswith((".sock", ".pid"))], [])
        self.assertNotIn("vanished unexpectedly", self.virsh.log())

    def test_no_password(self):
        address = self.start(DBUS + rdp(credentials=""))
        for password in ("", "guess"):
            self.assert_refused(address, password)
        self.assertIn("t1", self.status("status"))

    def test_password_without_name(self):
        address = self.start(DBUS + rdp(credentials="passwd='s3cret'"))
        self.assert_refused(address, "wrong", "anybody")
        self.assert_console(self.client_of(address, "s3cret", "anybody"))

    def test_rdp_before_dbus(self):
        address = self.start(rdp() + DBUS)
        self.assert_console(self.client_of(address))

    def test_busy_port(self):
        """libvirt does not check a fixed port: what virsh prints must say so."""
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            started = time.monotonic()
            text = self.virsh.fail("create " + self.domain(
                DBUS + rdp(port="port='%d' autoport='no'" % port)))
            self.assertIn(str(port), text)
            self.assertLess(time.monotonic() - started, 25)

    def test_machine_killed(self):
        self.start(DBUS + rdp())
        pid = self.helper_pid()
        os.kill(int(self.virsh_qemu_pid()), signal.SIGKILL)
        self.assert_helper_ends(pid)
        self.assertIn("leaving", self.helper_log())

    def virsh_qemu_pid(self):
        with open(self.path("run", "qemu", "t1.pid")) as pidfile:
            return pidfile.read()
