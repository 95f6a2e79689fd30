"""A qrdp that is confined: what it cannot do any more, and that it does its work all the same.

The sanitizers cannot live with the sandbox, so these tests run the ordinary build (qrdp.plain_binary()).
"""

import ctypes
import os
import socket
import ssl
import subprocess

import qrdp
import standin
from proc import children, threads
from rig import USER, Rig
from wait import wait_for

STEADY = "vt.global_cursor_default=0"
BY_LANDLOCK = ("open /etc/passwd", "open /proc/1/status", "open /")
BY_LANDLOCK_6 = ("abstract socket",)
BY_FILTER = ("make a file", "open for writing", "socket", "memory as a file", "fork", "kill", "writable code", "execve")
# X.224 Connection Request with an RDP_NEG_REQ for TLS and CredSSP (MS-RDPBCGR 2.2.1.1)
CONNECTION_REQUEST = bytes.fromhex("030000130ee00000000000" "0100080003000000")
LANDLOCK_CREATE_RULESET, VERSION = 444, 1


def landlock():
    """The version of this kernel's Landlock, 0 for none."""
    return max(0, ctypes.CDLL(None).syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), VERSION))


def ask(server, request):
    """One request to the control socket; the answer's first line and the rest."""
    with socket.socket(socket.AF_UNIX) as control:
        control.settimeout(60)
        control.connect(os.path.join(server.run_dir, "control"))
        control.sendall(request.encode() + b"\n")
        answer = b"".join(iter(lambda: control.recv(65536), b"")).decode()
    head, _, rest = answer.partition("\n")
    return head, rest


class SandboxTest(Rig):
    def check(self, server):
        """The filter that is there, in the process that serves."""
        version = landlock()
        says = ("on (Landlock %d, system call filter)" % version if version else
                "on in part (no Landlock in this kernel; system call filter)")
        self.assertIn("sandbox:   " + says, server.status_text())
        self.assertEqual(server.status()["sandbox"], says)
        with socket.socket(socket.AF_UNIX) as other:
            other.bind("\0" + os.path.join(server.run_dir, "sandbox-check"))
            other.listen()
            head, rest = ask(server, "sandbox-check")
        lines = dict(line.split(": ", 1) for line in rest.splitlines())
        expected = (BY_LANDLOCK if version else ()) + (BY_LANDLOCK_6 if version >= 6 else ()) + BY_FILTER
        self.assertEqual((head, tuple(lines)), ("ok", expected), rest)
        for what, outcome in lines.items():
            self.assertIn(outcome, ("Permission denied", "Operation not permitted"), what)
        self.assertTrue(server.process.alive())
        self.assertNotIn("keep their rights", server.log())
        for name, status in threads(server.process.pid).items():
            self.assertEqual((status["Seccomp"], status["NoNewPrivs"]), ("2", "1"), name)
            self.assertEqual(int(status["CapEff"], 16) & ~0x24, 0, name)  # read anything, kill

    def test_run(self):
        """A whole session: keyboard data, codecs, a stick, and everything tidied up at the end."""
        server, vm = self.run_vm(append=STEADY, program=qrdp.plain_binary())
        image = self.stick(files=[("file", b"text")])
        usb = standin.Standin(self.dir, [standin.spec("stick", image=image)])
        client = self.client(server, args=["/usb:id:1209:0001"], env=usb.env)
        place = vm.agent.wait_mount()[0]
        self.assertEqual(vm.agent.shell("cat %s/file" % place), "text")
        client.wait_pixels(vm.screen)
        self.check(server)
        client.stop()
        # A password changed meanwhile: the store is read again, by its new file.
        self.passwd(os.path.join(server.directory, "auth"), "Other-1")
        again = self.client(server, credentials=(USER, "Other-1"))
        again.wait_pixels(vm.screen)
        self.assertEqual(server.stop(), 0)
        self.assertFalse(os.path.exists(server.run_dir), "its folder is left behind")

    def passwd(self, store, password):
        code, _, error = qrdp.run_once(self.dir, "passwd", "--auth-file=" + store, USER, stdin=password + "\n")
        self.assertEqual(code, 0, error)

    def make_certificate(self, path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-subj", "/CN=x",
                        "-keyout", path + ".key", "-out", path + ".crt"], check=True, stderr=subprocess.DEVNULL)

    def pem(self, directory, number):
        with open(os.path.join(directory, "pair%d.crt" % number)) as file:
            return ssl.PEM_cert_to_DER_cert(file.read())

    def certificate(self, server):
        """What the server shows a client that connects now."""
        host, _, port = server.address.rpartition(":")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection((host, int(port)), 60) as client:
            client.sendall(CONNECTION_REQUEST)
            self.assertEqual(client.recv(19, socket.MSG_WAITALL)[:2], b"\3\0", server.log())
            with context.wrap_socket(client) as encrypted:
                return encrypted.getpeercert(True)

    def link(self, target, name):
        """As certbot does: a link to what is new in another folder, in the place of the old one."""
        os.symlink(target, name + ".new")
        os.rename(name + ".new", name)

    def test_links(self):
        """Certificate and credentials are links into other folders, and what they point to is replaced."""
        archive, secrets, live = (self.path(name) for name in ("archive", "secrets", "live"))
        os.mkdir(live)
        os.mkdir(secrets)
        for number in (1, 2):
            self.make_certificate(os.path.join(archive, "pair%d" % number))
        for end in ("key", "crt"):
            self.link("../archive/pair1." + end, os.path.join(live, "pair." + end))
        store = os.path.join(secrets, "auth")
        self.link(store, os.path.join(live, "auth"))
        self.passwd(store, "Test-1")
        server, _ = self.run_vm(wait=False, credentials=None, program=qrdp.plain_binary(), options=[
            "--cert=%s/pair.crt" % live, "--key=%s/pair.key" % live, "--auth-file=%s/auth" % live])
        wait_for(lambda: server.status()["vm"]["state"] == "attached", 60, "the machine")
        self.assertEqual(self.certificate(server), self.pem(archive, 1))
        for end in ("key", "crt"):
            self.link("../archive/pair2." + end, os.path.join(live, "pair." + end))
        self.passwd(store, "Other-1")
        self.assertEqual(self.certificate(server), self.pem(archive, 2))
        self.assertNotIn("cannot be read", server.log())

    def test_serve(self):
        """qrdp serve may still talk to QMP, for more redirection slots."""
        machine = self.machine(display="dbus,p2p=yes", append=STEADY)
        server = self.serve(machine, program=qrdp.plain_binary())
        image = self.stick(files=[("file", b"text")])
        usb = standin.Standin(self.dir, [standin.spec("stick", image=image)])
        self.client(server, args=["/usb:id:1209:0001"], env=usb.env)
        machine.agent.wait_mount()
        self.check(server)

    def test_host_usb(self):
        """The host's own devices are out of reach unless the operator said otherwise at the start."""
        for options, refused in (([], True), (["--host-usb"], False)):
            directory = "vm%d" % len(options)
            server, _ = self.run_vm(directory, wait=False, program=qrdp.plain_binary(), options=options)
            code, out, error = qrdp.run_once(server.directory, "usb", "--run-dir=" + server.run_dir, "attach",
                                             "1209:0001")
            self.assertEqual((code, out), (1, ""))
            self.assertEqual("--host-usb" in error, refused, error)
            self.check(server)
            # The filter's word: it comes before Landlock, which says "Permission denied".
            self.assertIn("make a file: Operation not permitted\n", ask(server, "sandbox-check")[1])
            server.stop()

    def test_off(self):
        server, _ = self.run_vm(wait=False, program=qrdp.plain_binary(), options=["--sandbox=off"])
        self.assertEqual(server.status()["sandbox"], "off (--sandbox=off)")
        head, rest = ask(server, "sandbox-check")
        self.assertEqual((head, rest), ("error", "The sandbox is off (--sandbox=off).\n"))
        found = threads(server.process.pid)
        self.assertTrue(all(status["Seccomp"] == "0" for status in found.values()))

    def test_qemu_is_not_confined(self):
        """The machine was started before, with everything its user may do."""
        server, vm = self.run_vm(wait=False, program=qrdp.plain_binary())
        pid = wait_for(lambda: children(server.process.pid), 60, "QEMU")[0]
        for name, status in threads(pid).items():
            self.assertEqual((status["Seccomp"], status["NoNewPrivs"]), ("0", "0"), name)
        vm.qmp.command("query-status")
