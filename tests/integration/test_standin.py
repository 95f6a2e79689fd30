"""The libusb stand-in under usbredirect, straight into QEMU: if this fails, the stand-in is to blame."""

import os

from proc import Process, free_ports
from rig import Rig, say
from wait import wait_for
import standin

USBREDIRECT = os.environ.get("QRDP_USBREDIRECT") or "usbredirect"


class StandinTest(Rig):
    def redirected(self, devices):
        """A machine with the first of the devices redirected into it; (vm, usb)."""
        port, = free_ports(1)
        vm = self.machine(extra=[
            "-chardev", "socket,id=redir,host=127.0.0.1,port=%d,server=on,wait=off" % port,
            "-device", "usb-redir,chardev=redir,id=slot,bus=testusb.0,port=2"])
        usb = standin.Standin(self.dir, devices)
        client = Process([USBREDIRECT, "--device", standin.IDS[devices[0].split(":")[0]],
                          "--to", "127.0.0.1:%d" % port], self.path("usbredirect.log"),
                         env=dict(os.environ, **usb.env))
        self.addCleanup(client.stop)
        usb.wait_ready()
        self.addCleanup(usb.close)
        return vm, usb

    def check_stick(self, speed):
        image = self.stick(files=[("hello.txt", b"hello\n")])
        vm, usb = self.redirected([standin.spec("stick", image=image, serial="S1", speed=speed)])
        place, = vm.agent.wait_mount(1, 60)
        self.assertEqual(vm.agent.shell("cat %s/hello.txt" % place), "hello\n")
        say("%s speed: 4 MiB written and read back" % speed)
        written = vm.agent.shell(
            "dd if=/dev/urandom of={0}/data bs=64k count=64 2>/dev/null; sync; "
            "echo 3 >/proc/sys/vm/drop_caches; sha256sum <{0}/data".format(place), 60).split()[0]
        vm.agent.shell("umount %s" % place)
        vm.agent.shell("mount -r /dev/sda1 /mnt && sha256sum </mnt/data | grep -q %s; s=$?; "
                       "umount /mnt; exit $s" % written, 60)
        log = usb.log("stick")
        self.assertEqual(log["violations"], 0, log)
        self.assertGreater(log["ep02.bytes"], 4 << 20)

        say("a stall in mid-data is recovered from")
        usb.command("stall stick 81")
        vm.agent.shell("echo 3 >/proc/sys/vm/drop_caches; "
                       "dd if=/dev/sda of=/dev/null bs=64k count=16 2>/dev/null", 60)
        log = usb.log("stick")
        self.assertEqual((log["ep81.stalls"], log["violations"]), (1, 0), log)

    def test_stick_high_speed(self):
        self.check_stick("high")

    def test_stick_super_speed(self):
        self.check_stick("super")

    def test_keyboard(self):
        vm, usb = self.redirected([standin.spec("keyboard")])
        vm.agent.wait_usb("1209:0002", "usbhid")
        usb.type("echo It works: 100% | tr a-z A-Z >/tmp/typed\n")
        wait_for(lambda: vm.agent.run("cat /tmp/typed")[1] == "IT WORKS: 100%\n", 30,
                 "what the keyboard typed to arrive in the guest")
        usb.command("key keyboard 0 39")
        wait_for(lambda: usb.leds()["caps"], 10, "the guest to light caps lock")
        self.assertEqual(usb.log("keyboard")["violations"], 0)
