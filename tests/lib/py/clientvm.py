"""The client machine: a second virtual machine, with a real USB stack and the stock xfreerdp3 in it.

    machine = ClientMachine(path)                       # boots, about 5 s
    session = machine.connect(server, ["0403:6001"])
    machine.plug("usb-serial", "ftdi", chardev="line")
    machine.unplug("ftdi")
    session.stop()

QEMU emulates the USB devices that are plugged into it; Linux' own gadget drivers on dummy_hcd make those that
QEMU has not (Gadget). What is plugged belongs to the machine's own drivers until a session that was told its
id takes it.
"""

import os

import qemu
from proc import Process
from wait import wait_for

CLIENT_DIR = os.environ.get("QRDP_CLIENTVM_DIR") or os.path.join(qemu.BASE, "build-clientvm")
HOST = "10.0.2.2"  # the host's loopback, as the machine sees it


class ClientMachine:
    """directory holds its sockets and logs: qmp, agent, serial.log, qemu.log."""

    def __init__(self, directory):
        os.makedirs(directory, exist_ok=True)
        self.directory = directory
        kernel, initramfs = (os.path.join(CLIENT_DIR, name) for name in ("kernel", "initramfs"))
        if not os.path.exists(initramfs):
            raise AssertionError("no client machine in %s: run tests/clientvm/build.sh %s %s" % (
                CLIENT_DIR, CLIENT_DIR, qemu.GUEST_DIR))
        agent, qmp = os.path.join(directory, "agent"), os.path.join(directory, "qmp")
        self.heard = os.path.join(directory, "speaker.wav")  # what the present usb-audio has played
        # One processor: with two, QEMU 10.0.2's TCG sometimes ends with an assertion (iotlb_to_section) at the start.
        self.process = Process([
            qemu.QEMU, "-machine", "q35,accel=tcg", "-cpu", "max", "-m", "768",
            "-nodefaults", "-no-user-config", "-display", "none",
            "-kernel", kernel, "-initrd", initramfs, "-append", "console=ttyS0 loglevel=4",
            "-serial", "file:" + os.path.join(directory, "serial.log"),
            "-netdev", "user,id=lan", "-device", "virtio-net-pci,netdev=lan,romfile=",
            "-device", "virtio-serial-pci",
            "-chardev", "socket,id=agent,server=on,wait=off,path=" + agent,
            "-device", "virtserialport,chardev=agent,name=org.qrdp.agent",
            # The second controller's ports but the first are USB 2 only.
            "-device", "qemu-xhci,id=usb3,p2=12,p3=12", "-device", "qemu-xhci,id=usb2,p2=8,p3=1",
            "-audiodev", "wav,id=speaker,out.frequency=48000,path=" + self.heard,
            "-qmp", "unix:%s,server=on,wait=off" % qmp], os.path.join(directory, "qemu.log"))
        try:
            self.qmp = qemu.Qmp(qmp)
            self.agent = qemu.Agent(agent, 300)
        except BaseException:
            self.process.kill()
            raise

    def stop(self):
        self.agent.close()
        self.qmp.close()
        return self.process.kill()

    # Devices

    def plug(self, driver, name, speed="super", **options):
        """Plugs one of QEMU's USB devices in; speed "high" puts what can do more on a USB 2 port."""
        place = {"bus": "usb3.0"} if speed == "super" else {"bus": "usb2.0", "port": "3"}
        self.qmp.command("device_add", driver=driver, id=name, **place, **options)

    def unplug(self, name):
        self.qmp.command("device_del", id=name)
        self.qmp.wait_event("DEVICE_DELETED", 60)

    def plug_disk(self, driver, name, image, speed="super", **options):
        """A medium in a file, in "usb-storage", "usb-bot" or "usb-uas"."""
        self.qmp.command("blockdev-add", node_name=name + "-image", driver="raw",
                         file={"driver": "file", "filename": image})
        if driver == "usb-storage":
            self.plug(driver, name, speed, drive=name + "-image", **options)
            return
        # These two appear on the bus when they have their disk.
        self.plug(driver, name, speed, **options)
        self.qmp.command("device_add", driver="scsi-hd", id=name + "-disk", bus=name + ".0",
                         drive=name + "-image")
        self.qmp.command("qom-set", path="/machine/peripheral/" + name, property="attached", value=True)

    def unplug_disk(self, name):
        """Afterwards the image holds everything and is closed."""
        self.unplug(name)
        nodes = lambda: [n["node-name"] for n in self.qmp.command("query-named-block-nodes")]

        def removed():
            if name + "-image" not in nodes():
                return True
            try:
                self.qmp.command("blockdev-del", node_name=name + "-image")
            except qemu.QmpError:
                return False  # its disk is still being taken apart
            return True
        wait_for(removed, 30, lambda: "the image of %s to be free, of %s" % (name, nodes()))

    def line(self, name):
        """A chardev of this name; the harness' end, a connected socket."""
        path = os.path.join(self.directory, name)
        self.qmp.command("chardev-add", id=name, backend={"type": "socket", "data": {
            "addr": {"type": "unix", "data": {"path": path}}, "server": True, "wait": False}})
        end = qemu.connect_unix(path, 20)
        end.settimeout(400)
        return end

    # Sessions

    def connect(self, server, ids, args=(), seconds=300):
        """Starts xfreerdp3 with these devices ("VID:PID"), present or yet to come; a Session."""
        host, _, port = server.address.rpartition(":")
        if host not in ("127.0.0.1", "localhost"):
            raise ValueError("the machine reaches the host's loopback only, not " + server.address)
        user, password = server.credentials
        options = ["/v:%s:%s" % (HOST, port), "/cert:ignore", "/size:640x480", "/timeout:60000",
                   "/log-level:INFO", "/u:" + user, "/p:" + password, "/usb:id:" + "#".join(ids)]
        return Session(self, server, options + list(args), seconds)


class Session:
    """A running xfreerdp3 in the client machine."""

    count = 0

    def __init__(self, machine, server, options, seconds):
        Session.count += 1
        self.machine, self.agent = machine, machine.agent
        self.log_path = "/run/client%d.log" % Session.count
        self.pid = int(self.agent.shell(
            "export DISPLAY=:0 HOME=/root; cat >/run/args <<'END'\n%s\nEND\n"
            "setsid xfreerdp3 /args-from:stdin </run/args >%s 2>&1 & echo $!" % (
                "\n".join(options), self.log_path)))

        def connected():
            if not self.alive():
                raise AssertionError("the client ended: " + self.log()[-3000:])
            return server.status()["clients"]
        wait_for(connected, seconds, lambda: "the client to be connected; its log ends: " + self.log()[-3000:],
                 interval=0.5)

    def alive(self):
        return self.agent.run("kill -0 %d" % self.pid)[0] == 0

    def log(self):
        return self.agent.shell("cat " + self.log_path)

    def stop(self, seconds=60):
        """Ends it as a user does."""
        self.agent.run("kill %d" % self.pid)
        wait_for(lambda: not self.alive(), seconds, lambda: "the client to end: " + self.log()[-2000:], 0.2)


class Gadget:
    """A device made of Linux' gadget functions, on the client machine's dummy_hcd (one at a time).

    functions: {"hid.key": {"protocol": 0, "report_desc": b"..."}}, names and values as configfs has them.
    """

    def __init__(self, agent, ident, functions, product="gadget", serial="1"):
        vid, pid = ident.split(":")
        self.agent, self.place = agent, "/sys/kernel/config/usb_gadget/" + product
        script = ["set -e", "modprobe -a dummy_hcd libcomposite",
                  "[ -d /sys/kernel/config/usb_gadget ] || mount -t configfs none /sys/kernel/config",
                  "mkdir %s; cd %s" % (self.place, self.place),
                  "echo 0x%s >idVendor; echo 0x%s >idProduct; echo 0x0200 >bcdUSB" % (vid, pid),
                  "mkdir strings/0x409; echo qrdp >strings/0x409/manufacturer",
                  "echo %s >strings/0x409/product; echo %s >strings/0x409/serialnumber" % (product, serial),
                  "mkdir configs/c.1"]
        for name, attributes in functions.items():
            script.append("mkdir functions/" + name)
            for attribute, value in attributes.items():
                raw = value if isinstance(value, bytes) else str(value).encode()
                script.append("printf '%s' >functions/%s/%s" % (
                    "".join("\\%03o" % byte for byte in raw), name, attribute))
            script.append("ln -s functions/%s configs/c.1/" % name)
        self.agent.shell("\n".join(script))
        self.plug()

    def plug(self):
        self.agent.shell("ls /sys/class/udc | head -n 1 >%s/UDC" % self.place)

    def unplug(self):
        self.agent.shell("echo >%s/UDC" % self.place)

    def remove(self):
        """Takes the gadget apart; plugged in or not."""
        self.agent.run("cd %s || exit; echo >UDC; rm configs/c.1/*.*; rmdir configs/c.1 functions/* "
                       "strings/0x409; cd /; rmdir %s" % (self.place, self.place))
