"""(7) The machine's firmware starts from the client's stick, with nothing inside the machine."""

import os
import shutil

import bootstick
import qemu
import standin
from rig import Rig, say
from wait import wait_for

OVMF_CODE, OVMF_VARS = "/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"


class BootRig(Rig):
    def firmware(self, uefi):
        if not uefi:
            return []
        variables = self.path("vars.fd")
        shutil.copyfile(OVMF_VARS, variables)
        return ["-drive", "if=pflash,format=raw,unit=0,readonly=on,file=" + OVMF_CODE,
                "-drive", "if=pflash,format=raw,unit=1,file=" + variables]

    def boot(self, uefi, plug, options=(), extra=()):
        """A machine without a system starts from the stick that plug(client's devices) brings."""
        image = self.path("boot.img")
        (bootstick.make_uefi if uefi else bootstick.make_bios)(image)
        with open(self.path("disk.img"), "wb") as disk:
            disk.truncate(64 << 20)
        server, vm = self.run_vm(kernel=False, wait=False, memory=512, options=options, extra=[
            "-drive", "if=none,id=disk,format=raw,file=" + self.path("disk.img")] + self.firmware(uefi) +
            list(extra))
        usb = standin.Standin(self.dir, plug)
        self.addCleanup(usb.close)
        client = self.client(server, ["/usb:id:1209:0001#1209:0003"], env=usb.env)
        if plug:
            self.wait_connected(server, 1)
        usb.plug(standin.spec("stick", image=image, serial="BOOT"))
        slots = self.wait_connected(server, len(plug) + 1)
        say("the stick is at the machine, in %s; reset" % slots[-1])
        vm.qmp.command("system_reset")
        agent = qemu.Agent(os.path.join(vm.directory, "agent"), 240)
        self.addCleanup(agent.close)
        self.assertIn("started.from=stick", agent.shell("cat /proc/cmdline"))
        self.assertEqual(agent.run("[ -d /sys/firmware/efi ]")[0], 0 if uefi else 1)
        log = usb.log("stick")
        say("started; %d MB were read from the stick" % (log["ep81.bytes"] >> 20))
        agent.wait_usb("1209:0001", "usb-storage", seconds=60)
        agent.wait_mount()
        self.assertEqual(usb.log("stick")["violations"], 0)
        return slots

    def wait_connected(self, server, count):
        """The slots of this many devices, once the machine has them."""
        def seen():
            found = [d["slot"] for d in server.status()["usb"]["devices"] if d["state"] == "connected"]
            return found if len(found) == count else None
        return wait_for(seen, 60, lambda: "%d devices to be at the machine: %s" % (
            count, server.status()["usb"]))


class BootTest(BootRig):
    def test_bios(self):
        """Before an empty disk, and from a slot that was plugged on demand."""
        slots = self.boot(False, [standin.spec("loop")], ["--usb-slots=1", "--usb-boot=0"],
                          ["-device", "virtio-blk-pci,drive=disk,bootindex=100"])
        self.assertEqual(slots, ["qrdp_usb0", "qrdp_usb1"])

    def test_uefi(self):
        """After an empty disk, as by default where the command orders something."""
        self.boot(True, [], (), ["-device", "virtio-blk-pci,drive=disk,bootindex=1"])
