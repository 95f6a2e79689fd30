"""What integration tests derive from: a scratch directory, and things that are stopped afterwards."""

import os
import shutil
import tempfile
import unittest

import proxy
import qemu
import qrdp
import xclient

USER, PASSWORD = "tester", "Correct-Horse-7"

full_run = os.environ.get("QRDP_TEST_FULL") == "1"
# Marks a test (or a class) that only ./dev test --full runs.
full = unittest.skipUnless(full_run, "only with --full")


def say(text):
    """A line of progress within a test."""
    print("      " + text, flush=True)


class Rig(unittest.TestCase):
    """Makes self.dir (short, because of unix sockets; kept when the test fails) and stops what it started.

    Everything started through these helpers ends after the test, last first, and what a sanitizer found
    in qrdp then fails the test.
    """

    maxDiff = None

    def setUp(self):
        base = os.environ.get("QRDP_TEST_TMP")
        self.dir = tempfile.mkdtemp(prefix="t", dir=base) if base else tempfile.mkdtemp(prefix="qrdp-t")
        self._servers = []
        self._display = None
        self.addCleanup(self._clean_up)

    def _clean_up(self):
        for server in self._servers:
            if os.path.exists(server.log_path):
                server.check_clean()

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def display(self, **options):
        """The test's virtual X server."""
        if not self._display:
            self._display = xclient.Display(self.path("x"), **options)
            self.addCleanup(self._display.stop)
        return self._display

    def machine(self, name="vm", **options):
        """QEMU with the test guest, without qrdp."""
        machine = qemu.Machine(self.path(name), **options)
        self.addCleanup(machine.stop)
        return machine

    def serve(self, machine, credentials=(USER, PASSWORD), **options):
        """qrdp serve for a machine that was started with display="dbus,p2p=yes"."""
        return self._server(qrdp.Qrdp(self.path("serve%d" % len(self._servers)),
                                      serve=["--qmp=" + machine.qmp_path], credentials=credentials,
                                      **options))

    def run_vm(self, name="vm", video="virtio", extra=(), append="", credentials=(USER, PASSWORD),
               wait=True, kernel=True, memory=256, **options):
        """qrdp run with the test guest; (server, vm): vm has .qmp, .agent and .screen()."""
        directory = self.path(name)
        os.makedirs(directory, exist_ok=True)
        arguments = qemu.guest_arguments(directory, video, memory, append, kernel=kernel) + [
            "-qmp", "unix:%s/qmp2,server=on,wait=off" % directory] + list(extra)
        server = self._server(qrdp.Qrdp(directory, run=arguments, credentials=credentials, **options))
        vm = RunningVm(directory, wait)
        self.addCleanup(vm.close)
        return server, vm

    def _server(self, server):
        self._servers.append(server)
        self.addCleanup(server.stop)
        return server

    def network(self, target, **options):
        """A delay proxy to target ("127.0.0.1:PORT"); see proxy.DelayProxy for the options."""
        network = proxy.DelayProxy(self.dir, target, **options)
        self.addCleanup(network.stop)
        return network

    def client(self, server, args=(), connect=True, name=None, credentials=None, address=None, **options):
        """A stock client on the test's X server, connected unless told otherwise.

        address: another way to the server, such as network(...).address.
        """
        self._clients = getattr(self, "_clients", 0) + 1
        user, password = credentials or server.credentials
        client = xclient.Client(self.display(), self.dir, address or server.address, user, password, args=args,
                                name=name or "client%d" % self._clients, **options)
        self.addCleanup(client.stop)
        return client.connect() if connect else client

    def stick(self, name="stick.img", megabytes=16, files=()):
        """The path of a new stick's image."""
        qemu.make_stick(self.path(name), megabytes, files)
        return self.path(name)


class SharedRig(Rig):
    """Tests of a class that share a machine: start() makes it once, through cls.shared (a Rig).

    What start() starts ends after the last test of the class. It keeps what it made in class attributes.
    """

    shared = None

    @classmethod
    def setUpClass(cls):
        cls.shared = Rig()
        cls.shared.addCleanup = cls.addClassCleanup
        cls.shared.setUp()
        cls.start()

    def _clean_up(self):
        super()._clean_up()
        for server in self.shared._servers:
            server.check_clean()


class RunningVm:
    """A machine that qrdp started: what tests need of it."""

    def __init__(self, directory, wait=True):
        self.directory = directory
        self.qmp = qemu.Qmp(os.path.join(directory, "qmp2"))
        self.agent = qemu.Agent(os.path.join(directory, "agent")) if wait else None

    def screen(self):
        return self.qmp.screendump(os.path.join(self.directory, "screen.ppm"))

    def close(self):
        for client in (self.agent, self.qmp):
            if client:
                client.close()


def remove(directory):
    shutil.rmtree(directory, ignore_errors=True)
