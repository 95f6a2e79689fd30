"""Classes of devices at the client, with their own drivers in the guest: they do there what they are for."""

import standin
from qrdp import run_once
from rig import SharedRig, full, say
from wait import wait_for

IDS = standin.IDS


class DeviceRig(SharedRig):
    """A machine, and clients that bring devices."""

    @classmethod
    def start(cls):
        cls.server, cls.vm = cls.shared.run_vm()

    def setUp(self):
        super().setUp()
        self.agent = self.vm.agent
        self.addCleanup(self.check_left)

    def check_left(self):
        wait_for(lambda: not [d for d in self.agent.usb() if d["id"] != "0627:0001"], 60,
                 lambda: "the client's devices to leave the guest, which has %s" % self.agent.usb())

    def bring(self, devices):
        """A connected client with these devices, which may be unplugged and plugged again; (client, usb)."""
        usb = standin.Standin(self.dir, devices)
        self.addCleanup(usb.close)
        kinds = dict.fromkeys(d.split(":")[0] for d in devices)
        client = self.client(self.server, ["/usb:id:" + "#".join(IDS[k] for k in kinds)], env=usb.env)
        return client, usb

    def usb(self, *words):
        code, out, error = run_once(self.server.directory, "usb", "--run-dir=" + self.server.run_dir, *words)
        self.assertEqual(code, 0, error or out)
        return out

    def check_strict(self, usb, *names):
        for name in names:
            log = usb.log(name)
            self.assertEqual(log["violations"], 0, log)


class SerialTest(DeviceRig):
    """Serial adapters. QEMU reads them ahead (usbredir's buffered bulk)."""

    def tty(self, kind, driver):
        """The port that the guest has made of an adapter."""
        self.agent.wait_usb(IDS[kind], driver, seconds=60)
        return wait_for(lambda: self.agent.run("ls /sys/bus/usb-serial/drivers/%s/ | grep ttyUSB" % driver)[1]
                        .strip(), 30, "a serial port of %s in the guest" % driver)

    def check_adapter(self, kind, driver, size, bulk_in=0x81):
        client, usb = self.bring([standin.spec(kind)])
        for turn in range(2):
            port = self.tty(kind, driver)
            say("%s on %s: modem lines, %d bytes there and back" % (kind, port, size))
            output = self.agent.shell(
                "ttydo /dev/%s baud=115200 dtr=1 rts=1 wait=cts wait=dsr wait=dcd drain "
                "rts=0 wait=-cts dtr=0 wait=-dsr rts=1 wait=cts dtr=1 wait=dsr echo=%d" % (port, size), 180)
            self.assertEqual(output.count("ok "), 16, output)
            log = usb.log(kind)
            self.assertEqual(log["violations"], 0, log)

            say("it speaks first, and is unplugged while the port is open")
            running = self.agent.start_script("ttydo /dev/%s baud=9600 line hup >/tmp/tty" % port)
            wait_for(lambda: abs(int(self.state(usb, kind)["baud"]) - 9600) < 96, 60,
                     lambda: "the port to be opened: %s" % self.state(usb, kind))
            usb.wait_log(kind, lambda log: log["ep%02x.queued" % bulk_in] > 10, 60, "reading ahead")
            usb.command("send %s hello from the far side" % kind)
            wait_for(lambda: "hello from the far side\n" in self.agent.shell("cat /tmp/tty"), 60,
                     "what the adapter received to arrive in the guest")
            usb.unplug(kind)
            self.assertEqual(self.agent.finish(running, 90)[0], 0, self.agent.shell("cat /tmp/tty"))
            self.agent.wait_usb(IDS[kind], present=False)
            if turn == 0:
                usb.plug(standin.spec(kind))

    def state(self, usb, kind):
        return dict(word.split("=") for word in usb.command("state " + kind).split())

    def test_ftdi(self):
        self.check_adapter("ftdi", "ftdi_sio", 50000)

    def test_cp210x(self):
        self.check_adapter("cp210x", "cp210x", 20000)

    def test_pl2303(self):
        self.check_adapter("pl2303", "pl2303", 20000, 0x83)
