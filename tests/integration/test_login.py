"""(4) Who gets in, who does not, and who has to leave."""

import os
import socket

import qrdp
from rig import PASSWORD, USER, Rig, SharedRig
from wait import wait_for

EXIT_REPLACED = 5  # xfreerdp3's exit status for ERRINFO_DISCONNECTED_BY_OTHER_CONNECTION


class LoginTest(SharedRig):
    @classmethod
    def start(cls):
        cls.server, cls.vm = cls.shared.run_vm(append="vt.global_cursor_default=0", options=["--tls-login"])

    def tearDown(self):
        self.accepted()  # a good login makes the server forget the bad ones before the next test

    def refused(self, user, password, *args):
        client = self.client(self.server, connect=False, credentials=(user, password), args=args)
        self.assertNotEqual(client.wait_exit(60), 0)
        return client

    def accepted(self, *args):
        self.wait_admitted()
        client = self.client(self.server, args=args)
        client.wait_pixels(self.vm.screen)
        client.stop()

    def wait_admitted(self):
        """Waits until the pause after failed logins is over."""
        wait_for(lambda: admitted(self.server.address), 30, "the server to let this address in again", 0.3)

    def test_nla(self):
        for user, password in ((USER, "wrong"), (USER, ""), ("nobody", PASSWORD)):
            self.wait_admitted()
            client = self.refused(user, password, "/sec:nla")
            self.assertRegex(client.log(), "ERRCONNECT_(AUTHENTICATION_FAILED|LOGON_FAILURE)")
        self.accepted("/sec:nla")

    def test_tls(self):
        for user, password in ((USER, "wrong"), ("nobody", PASSWORD)):
            self.wait_admitted()
            self.refused(user, password, "/sec:tls")
        self.accepted("/sec:tls")

    def test_no_plain_rdp(self):
        self.refused(USER, PASSWORD, "/sec:rdp")

    def test_password_is_nowhere(self):
        self.refused(USER, "wr0ng-Secret-9", "/sec:tls")
        self.refused(USER, "wr0ng-Secret-8", "/sec:nla")
        self.accepted("/sec:tls")
        directory = self.shared.path("vm")
        for where, _, names in os.walk(directory):
            for name in names:
                path = os.path.join(where, name)
                if os.path.isfile(path) and name != "screen.ppm":
                    with open(path, "rb") as file:
                        text = file.read()
                    for secret in (PASSWORD, "wr0ng-Secret"):
                        self.assertNotIn(secret.encode(), text, path)
                        self.assertNotIn(secret.encode("utf-16-le"), text, path)

    def test_throttle(self):
        """Each further failure makes the address wait longer, and that before TLS."""
        wait_for(lambda: self.fail_once(), 60, "the server to turn the address away")
        self.assertIn("connection refused", self.server.log())
        self.assertFalse(admitted(self.server.address))
        self.wait_admitted()
        self.accepted()

    def fail_once(self):
        if not admitted(self.server.address):
            return True
        self.refused(USER, "wrong", "/sec:nla")
        return False

    def test_takeover(self):
        first = self.client(self.server)
        first.wait_pixels(self.vm.screen)
        second = self.client(self.server)
        status = first.wait_exit(20)
        self.assertEqual(status, EXIT_REPLACED, first.log()[-1500:])
        second.wait_pixels(self.vm.screen)
        second.type("echo taken >/tmp/taken\n")
        wait_for(lambda: self.vm.agent.run("cat /tmp/taken")[1] == "taken\n", 10,
                 "the second client's typing to arrive")


def admitted(address):
    """Whether the server answers a connection request (X.224) from here, and does not just hang up."""
    host, _, port = address.rpartition(":")
    request = bytes.fromhex("030000130ee000000000000100080003000000")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.settimeout(10)
        try:
            connection.sendall(request)
            return bool(connection.recv(64))
        except OSError:
            return False


class NlaOnlyTest(Rig):
    def test_tls_login_is_an_option(self):
        """Without --tls-login a client that cannot do NLA is turned away."""
        server, _ = self.run_vm(wait=False)
        client = self.client(server, args=["/sec:tls"], connect=False)
        self.assertNotEqual(client.wait_exit(30), 0)
        self.assertIn("HYBRID_REQUIRED", client.log())


class ShareTest(Rig):
    def test_share(self):
        server, vm = self.run_vm(append="vt.global_cursor_default=0", options=["--share"])
        clients = [self.client(server, args=["-grab-keyboard"]) for _ in range(2)]
        for number, client in enumerate(clients):
            client.focus()
            client.type("echo %d >/tmp/from%d\n" % (number, number))
            wait_for(lambda: vm.agent.run("cat /tmp/from%d" % number)[1] == "%d\n" % number, 10,
                     "what client %d typed to arrive" % number)
        for client in clients:
            client.wait_pixels(vm.screen)
        self.assertEqual(len(server.status()["clients"]), 2)


class OpenTest(Rig):
    def test_loopback_without_credentials(self):
        server, vm = self.run_vm(append="vt.global_cursor_default=0", credentials=None)
        self.client(server).wait_pixels(vm.screen)

    def test_elsewhere_without_credentials(self):
        status, _, error = qrdp.run_once(
            self.dir, "run", "--listen=0.0.0.0:0", "--auth-file=" + self.path("none"), "--", "false")
        self.assertEqual(status, 2, error)
        sentence, = [line for line in error.splitlines() if not line.startswith("qrdp: info:")]
        self.assertIn("qrdp passwd", sentence)
