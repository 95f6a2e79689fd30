"""(6) What breaks while a stick is being written or read: nothing crashes, leaks or hangs, and it goes on."""

import os
import signal

import standin
from proc import children
from rig import Rig
from test_stick import STICK, UsbRig, read_file, write_file
from wait import wait_for, wait_still

MEGABYTE = 1 << 20
# Go on until /tmp/stop exists, or end with the first error; {0} is the stick's place, {1} its disk.
# A stick that has gone leaves an empty directory, which can be written.
WRITE = ("dd if=/dev/urandom of=/tmp/data bs=1M count=2 2>/dev/null; while [ ! -e /tmp/stop ]; do "
         "grep -q ' {0} ' /proc/mounts || exit 1; dd if=/tmp/data of={0}/data bs=64k conv=fsync 2>/dev/null || exit 1; done; "
         "echo 3 >/proc/sys/vm/drop_caches; cmp /tmp/data {0}/data")
READ = ("dd if={1} bs=64k count=64 2>/dev/null | md5sum >/tmp/sum; while [ ! -e /tmp/stop ]; do "
        "echo 3 >/proc/sys/vm/drop_caches; dd if={1} bs=64k count=64 2>/dev/null | md5sum >/tmp/sum2; "
        "cmp /tmp/sum /tmp/sum2 || exit 1; done")


class FailureRig(UsbRig):
    def check_left(self):
        super().check_left()
        self.check_alive()

    def stick_in_guest(self, **options):
        """A client whose stick the guest has mounted; (client, usb, place, disk)."""
        self.image = self.stick(files=[("hello.txt", b"hello\n")])
        client, usb = self.bring([standin.spec("stick", image=self.image)])
        place, = self.agent.wait_mount()
        return client, usb, place, "/dev/" + os.path.basename(place)[4:].rstrip("0123456789")

    def keep_busy(self, usb, script, place, disk):
        """Starts a transfer that does not end by itself and waits until it runs; its number."""
        ep = "ep02.bytes" if script is WRITE else "ep81.bytes"
        self.agent.shell("rm -f /tmp/stop")
        start = usb.log("stick")[ep]
        job = self.agent.start_script(script.format(place, disk))
        usb.wait_log("stick", lambda log: log[ep] > start + MEGABYTE // 2, 60, "the transfer")
        return job

    def check_goes_on(self, usb, job, seconds=60):
        """The transfer has survived: it moves data, and ends without an error when asked to."""
        start = usb.log("stick")["ep81.bytes"]
        usb.wait_log("stick", lambda log: log["ep81.bytes"] > start + 2000, seconds, "new transfers")
        self.agent.shell("touch /tmp/stop")
        self.assertEqual(self.agent.finish(job, seconds), (0, ""))

    def check_alive(self):
        """The guest answers, and so does qrdp."""
        self.agent.ask("ping", seconds=10)
        self.server.status()

    def check_works(self, name="again"):
        """The stick is there or comes, and can be written and read."""
        place, = self.agent.wait_mount()
        written = write_file(self.agent, "%s/%s" % (place, name), 1)
        self.assertEqual(read_file(self.agent, "%s/%s" % (place, name)), written)

    def check_next_client(self):
        client, usb = self.bring([standin.spec("stick", image=self.image)])
        self.check_works()
        self.check_strict(usb, "stick")


class StickFailureTest(FailureRig):
    def test_unplugged(self):
        client, usb, place, disk = self.stick_in_guest()
        for script in (WRITE, READ):
            job = self.keep_busy(usb, script, place, disk)
            usb.unplug("stick")
            self.agent.finish(job, 30)
            self.agent.wait_usb(STICK, present=False)
            self.agent.wait_mount(0)
            self.check_alive()
            usb.plug(standin.spec("stick", image=self.image))
            place, = self.agent.wait_mount()
            disk = "/dev/" + os.path.basename(place)[4:].rstrip("0123456789")
        self.check_works()

    def test_client_killed(self):
        for script in (WRITE, READ):
            client, usb, place, disk = self.stick_in_guest()
            job = self.keep_busy(usb, script, place, disk)
            client.process.kill()
            usb.close()
            self.agent.finish(job, 30)
            self.agent.wait_usb(STICK, present=False)
            self.agent.wait_mount(0)
            self.check_alive()
        self.check_next_client()

    def test_guest_reset(self):
        client, usb, place, disk = self.stick_in_guest()
        row = self.usb("list").split()[0]
        for script in (WRITE, READ):
            self.keep_busy(usb, script, place, disk)
            boot = self.agent.ready()
            self.vm.qmp.command("system_reset")
            wait_for(lambda: self.agent.ready() != boot, 60, "the guest to start again")
            place, = self.agent.wait_mount()
            self.assertEqual(self.usb("list").split()[:2], [row, "connected"])
            self.check_works()
        log = usb.log("stick")
        self.assertEqual((log["opens"], log["violations"]), (1, 0), log)

    def test_stall(self):
        client, usb, place, disk = self.stick_in_guest()
        for ep in ("81", "02"):
            for skip in (0, 1, 2):
                before = usb.log("stick")
                job = self.agent.start_script(
                    "dd if=/dev/urandom of=/tmp/data bs=256k count=1 2>/dev/null && "
                    "dd if=/tmp/data of={0}/data conv=fsync bs=64k 2>/dev/null && "
                    "echo 3 >/proc/sys/vm/drop_caches && cmp /tmp/data {0}/data".format(place))
                usb.wait_log("stick", lambda log: log["ep02.transfers"] > before["ep02.transfers"] + skip,
                             30, "the transfer")
                usb.command("stall stick " + ep)
                status, text = self.agent.finish(job, 60)
                self.assertEqual((status, text), (0, ""))
                usb.wait_log("stick", lambda log: log["ep%s.stalls" % ep] > before["ep%s.stalls" % ep],
                             10, "the stall")
        self.check_strict(usb, "stick")
        self.check_works()

    def test_errors(self):
        """A bad cable, a device that sends too much, a slow one: Linux recovers, and the data is right."""
        client, usb, place, disk = self.stick_in_guest()
        for script, faults in ((READ, ("error stick 81", "oversize stick 81", "error stick 02")),
                               (WRITE, ("error stick 02", "error stick 81"))):
            job = self.keep_busy(usb, script, place, disk)
            for fault in faults:
                name = "ep%s.errors" % fault.split()[2]
                before = usb.log("stick")[name]
                usb.command(fault)
                if fault.startswith("error"):
                    usb.wait_log("stick", lambda log: log[name] > before, 30, fault)
                moved = lambda log: log["ep81.bytes"] + log["ep02.bytes"]
                start = moved(usb.log("stick"))
                usb.wait_log("stick", lambda log: moved(log) > start + 20000, 60, "data after " + fault)
            usb.command("delay stick 20")
            start = usb.log("stick")["ep02.transfers"]
            usb.wait_log("stick", lambda log: log["ep02.transfers"] > start + 10, 30, "delayed transfers")
            usb.command("delay stick 0")
            self.check_goes_on(usb, job)
        self.check_works()

    def test_hung(self):
        """The device does not answer: the guest gives up after its own time-out, and recovers."""
        client, usb, place, disk = self.stick_in_guest()
        self.agent.shell("echo 3 >/sys/block/%s/device/timeout" % os.path.basename(disk))
        for ep, script in (("81", READ), ("02", WRITE)):
            before = usb.log("stick")
            job = self.keep_busy(usb, script, place, disk)
            usb.command("hang stick " + ep)
            self.check_alive()
            usb.wait_log("stick", lambda log: log["ep%s.cancelled" % ep] > before["ep%s.cancelled" % ep],
                         30, "the guest's abort")
            usb.command("unhang stick " + ep)
            self.check_goes_on(usb, job)
        self.check_strict(usb, "stick")
        self.check_works()

    def test_paused_machine(self):
        client, usb, place, disk = self.stick_in_guest()
        for script in (WRITE, READ):
            job = self.keep_busy(usb, script, place, disk)
            self.vm.qmp.command("stop")
            wait_still(lambda: sorted(usb.log("stick").items()), 20, "the stick", still=1.5)
            self.server.status()
            self.vm.qmp.command("cont")
            self.check_goes_on(usb, job)
        self.check_strict(usb, "stick")
        self.assertEqual(usb.log("stick")["resets"], 0)
        self.check_works()

    def test_stopped_client(self):
        """SIGSTOP for a moment: nobody notices."""
        client, usb, place, disk = self.stick_in_guest()
        job = self.keep_busy(usb, WRITE, place, disk)
        client.process.signal(signal.SIGSTOP)
        for _ in range(5):
            self.check_alive()
        client.process.signal(signal.SIGCONT)
        self.check_goes_on(usb, job)
        self.check_strict(usb, "stick")
        self.check_works()

    def test_dead_client(self):
        """A client that is stopped for good: the guest gets an error in time and goes on."""
        client, usb, place, disk = self.stick_in_guest()
        # Longer than qrdp's own timer (USB_TIMEOUT_TRANSFER_US), after which Linux tries again.
        self.agent.shell("echo 15 >/sys/block/%s/device/timeout" % os.path.basename(disk))
        job = self.keep_busy(usb, READ, place, disk)
        client.process.signal(signal.SIGSTOP)
        try:
            self.agent.finish(job, 60)
            self.check_alive()
        finally:
            client.process.kill()
        usb.close()
        self.agent.wait_mount(0)
        self.check_next_client()


class QemuKilledTest(Rig):
    """QEMU dies in mid-transfer: so does qrdp, in an orderly way, and tells the client."""

    def busy(self, server, vm):
        usb = standin.Standin(self.dir, [standin.spec("stick", image=self.stick())])
        self.addCleanup(usb.close)
        client = self.client(server, ["/usb:id:" + STICK], env=usb.env)
        vm.agent.wait_mount()
        vm.agent.start_script("while dd if=/dev/sda of=/dev/null bs=64k; do "
                              "echo 3 >/proc/sys/vm/drop_caches; done")
        usb.wait_log("stick", lambda log: log["ep81.bytes"] > MEGABYTE, 60, "the transfer")
        return client, usb

    def test_run(self):
        server, vm = self.run_vm()
        client, usb = self.busy(server, vm)
        child, = children(server.process.pid)
        os.kill(child, signal.SIGKILL)
        self.assertEqual(server.process.wait_exit(20), 128 + signal.SIGKILL)
        client.wait_exit(30)

    def test_serve(self):
        vm = self.machine(display="dbus,p2p=yes")
        server = self.serve(vm)
        client, usb = self.busy(server, vm)
        vm.stop()
        server.process.wait_exit(20)
        client.wait_exit(30)
