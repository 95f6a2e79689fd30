"""What surrounds a session: bad command lines, status, and how things end."""

import os
import signal
import socket

import qemu
import qrdp
from proc import Process, children
from rig import PASSWORD, USER, Rig, say
from wait import wait_for

STEADY = "vt.global_cursor_default=0"


def running(pid):
    try:
        with open("/proc/%d/stat" % pid) as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class BadInputTest(Rig):
    """One sentence that says what to do, and exit status 2."""

    def refused(self, *arguments, words=()):
        status, out, error = qrdp.run_once(self.dir, *arguments)
        lines = [line for line in error.splitlines() if not line.startswith("qrdp: info:")]
        self.assertEqual((status, len(lines), out), (2, 1, ""), (arguments, error))
        for word in words:
            self.assertIn(word, lines[0])

    def test_command_lines(self):
        for arguments, word in ((("runn",), "run"), (("run",), "--"), (("serve",), "--qmp"),
                                (("run", "--shar", "--", "true"), "--share"),
                                (("run", "--listen=nonsense", "--", "true"), "nonsense"),
                                (("run", "--stall-seconds=x", "--", "true"), "stall-seconds"),
                                (("run", "--usb-slots=99", "--", "true"), "28"),
                                (("run", "--usb-policy=x", "--", "true"), "policy"),
                                (("run", "--keymap=xx-none", "--", "true"), "xx-none"),
                                (("status", "--share"), "--share")):
            self.refused(*arguments, words=(word,))

    def test_certificate(self):
        for name, content in (("absent", None), ("garbage", "no certificate\n")):
            if content:
                with open(self.path(name), "w") as file:
                    file.write(content)
            self.refused("run", "--cert=" + self.path(name), "--key=" + self.path(name), "--", "true",
                         words=(self.path(name),))
        self.refused("run", "--cert=" + self.path("absent"), "--", "true", words=("--key",))

    def test_user_name(self):
        """A bad one is refused before a password is asked for: there is none here."""
        status, _, error = qrdp.run_once(self.dir, "passwd", "a b:c", stdin="")
        self.assertEqual(status, 1)
        self.assertIn("no colon", error)

    def test_busy_port(self):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            free = port + 1 if port < 65535 else port - 1
            self.refused("run", "--listen=127.0.0.1:%d" % port, "--", "true",
                         words=("in use", "--listen=127.0.0.1:%d" % free))

    def test_display_in_arguments(self):
        self.refused("run", "--listen=127.0.0.1:0", "--", qemu.QEMU, "-display", "gtk", words=("-display",))

    def test_machine_that_cannot_start(self):
        status, _, error = qrdp.run_once(self.dir, "run", "--listen=127.0.0.1:0", "--", qemu.QEMU,
                                         "-no-such-option")
        self.assertEqual(status, 1)  # QEMU's own
        self.assertIn("no-such-option", error)


class StatusTest(Rig):
    def test_status_and_orderly_end(self):
        server, vm = self.run_vm(append=STEADY)
        self.assertEqual(server.status()["clients"], [])
        client = self.client(server)
        client.wait_pixels(vm.screen)
        row = wait_for(lambda: [c for c in server.status()["clients"] if c["display"] and
                                c["display"]["frames"]], 10,
                       "the client's row")[0]
        display = row["display"]
        self.assertEqual((display["codec"], display["width"], display["height"]), ("GFX", 1280, 800))
        self.assertGreater(display["frames"], 0)
        self.assertRegex(server.status_text(), r"screen: +1280x800 by GFX\n")
        self.assertEqual((row["state"], row["user"].partition("@")[0]), ("active", USER))
        self.assertEqual((server.status()["vm"]["width"], server.status()["vm"]["height"]), (1280, 800))
        self.assertRegex(server.status_text(), r"client 1: +%s@127\.0\.0\.1, active" % USER)
        self.assertNotIn(PASSWORD, server.status_text())
        self.assertIn("127.0.0.1:", server.status()["listening"][0])
        fingerprint = server.status()["certificate_sha256"]
        self.assertIn("certificate SHA-256 %s\n" % fingerprint, server.log())
        self.assertIn("certificate SHA-256 %s\n" % fingerprint, server.status_text())

        say("qrdp ends: the machine, the client's session and the run directory with it")
        machine, = [pid for pid in children(server.process.pid)]
        self.assertEqual(server.stop(), 0)
        wait_for(lambda: not running(machine), 5, "QEMU to end")
        self.assertFalse(os.path.exists(server.run_dir) and os.listdir(server.run_dir))
        client.wait_exit(20)
        self.assertIn("ERRINFO", client.log())

    def test_machine_ends(self):
        """QEMU's exit status is qrdp's: the guest writes to isa-debug-exit."""
        server, vm = self.run_vm(extra=["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
        client = self.client(server)
        vm.agent.start_script("printf '\\021' | dd of=/dev/port bs=1 seek=244 conv=notrunc")
        self.assertEqual(server.process.wait_exit(20), 35)
        client.wait_exit(20)
        self.assertFalse(os.path.exists(server.run_dir) and os.listdir(server.run_dir))

    def test_killed(self):
        """Even SIGKILL leaves no machine behind; the machine's death by a signal is 128 + signal."""
        server, _ = self.run_vm(wait=False)
        machine, = children(server.process.pid)
        server.process.kill()
        wait_for(lambda: not running(machine), 10, "QEMU to end with qrdp")
        server, _ = self.run_vm(name="vm2", wait=False)
        machine, = children(server.process.pid)
        os.kill(machine, signal.SIGKILL)
        self.assertEqual(server.process.wait_exit(20), 128 + signal.SIGKILL)


class ServeTest(Rig):
    def test_machine_of_its_own(self):
        vm = self.machine(display="dbus,p2p=yes", append=STEADY)
        server = self.serve(vm)
        for number in range(3):
            client = self.client(server)
            client.wait_pixels(vm.screen)
            client.type("echo %d >/tmp/n\n" % number)
            wait_for(lambda: vm.agent.run("cat /tmp/n")[1] == "%d\n" % number, 10, "the typed command")
            (client.kill if number == 1 else client.stop)()
        say("qrdp goes and the machine stays; another one takes over")
        self.assertEqual(server.stop(), 0)
        self.assertTrue(vm.process.alive())
        again = self.serve(vm)
        client = self.client(again)
        client.wait_pixels(vm.screen)
        say("the machine goes")
        vm.qmp.command("quit")
        self.assertEqual(again.process.wait_exit(20), 0)
        client.wait_exit(20)

    def test_before_the_machine(self):
        """Until there is one, everything says what is waited for."""
        run_dir = self.path("run")
        process = Process([qrdp.binary(), "serve", "--listen=127.0.0.1:0", "--run-dir=" + run_dir,
                           "--qmp=" + self.path("qmp")], self.path("waiting.log"),
                          env=qrdp.environment(self.dir))
        self.addCleanup(process.stop)
        waiting = "waiting for QEMU at %s (start it with -qmp unix:" % self.path("qmp")
        process.wait_output(waiting, 20)
        self.assertEqual(process.output().count("there are no credentials"), 1)
        status, out, _ = qrdp.run_once(self.dir, "status", "--run-dir=" + run_dir)
        self.assertEqual(status, 0)
        self.assertIn("vm:        " + waiting, out)
        self.assertNotIn("screen", out)
        status, _, error = qrdp.run_once(self.dir, "usb", "--run-dir=" + run_dir, "list")
        self.assertEqual(status, 1)
        self.assertIn(waiting, error)

    def test_which_of_two(self):
        """With several qrdp running, each is named with its machine and address."""
        for name in ("one", "two"):
            process = Process([qrdp.binary(), "serve", "--listen=127.0.0.1:0", "--qmp=" + self.path(name)],
                              self.path(name + ".log"), env=qrdp.environment(self.dir))
            self.addCleanup(process.stop)
            process.wait_output("waiting for QEMU at ", 20)
        status, _, error = qrdp.run_once(self.dir, "status")
        self.assertEqual(status, 1)
        for name in ("one", "two"):
            self.assertRegex(error, r"\n  --run-dir=\S+  waiting for QEMU at %s .*, at 127\.0\.0\.1:\d+\n" %
                             self.path(name))

    def test_machine_without_dbus(self):
        vm = self.machine(wait=False)
        process = Process([qrdp.binary(), "serve", "--listen=127.0.0.1:0", "--qmp=" + vm.qmp_path],
                          self.path("refused.log"), env=qrdp.environment(self.dir))
        self.addCleanup(process.stop)
        self.assertNotEqual(process.wait_exit(20), 0)
        self.assertIn("-display dbus,p2p=yes", process.output())
