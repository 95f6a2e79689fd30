"""Classes of devices at the client, with their own drivers in the guest: they do there what they are for."""

import struct

import standin
from rig import full, say
from test_stick import UsbRig
from wait import wait_for

IDS = standin.IDS


class DeviceRig(UsbRig):
    def do(self, kind, *words):
        """What usbdo prints for these requests, a line each; bytes that came as bytes."""
        lines = self.agent.shell("usbdo %s timeout=60000 %s" % (IDS[kind], " ".join(words)), 180).splitlines()
        self.assertEqual(len(lines), len(words), lines)
        return lines


def counting(size):
    """The bytes of usbdo's "+SIZE"."""
    return bytes((i ^ i >> 8) & 255 for i in range(size))


def fnv(data):
    total = 2166136261
    for byte in data:
        total = (total ^ byte) * 16777619 & 0xffffffff
    return total


def came(data):
    """What usbdo prints when these bytes came."""
    return "ok %d %s%s" % (len(data), data[:64].hex(), " %08x" % fnv(data) if len(data) > 64 else "")


def sent(size):
    return "ok %d " % size


class RequestTests:
    """Everything a driver may ask of a device, of the one that has all of it (tests/standin/multi.c)."""

    def check(self, usb, *pairs):
        """Pairs of a word for usbdo and what it must print; the interfaces are claimed before."""
        words = [word for word, _ in pairs]
        lines = self.do("multi", *words)
        for (word, wanted), line in zip(pairs, lines):
            self.assertEqual(line, wanted, "%s: %s" % (word, lines))
        self.check_strict(usb, "multi")

    def sysfs(self, name):
        return self.agent.shell("cd /sys/bus/usb/devices; grep -l 0004 */idProduct | while read d; do "
                                "cat ${d%%/*}/%s 2>/dev/null || cat ${d%%/*}/${d%%/*}%s; done" % (name, name)).strip()

    def plugged(self):
        client, usb = self.bring([standin.spec("multi", serial="M1")])
        device = self.agent.wait_usb(IDS["multi"])
        self.assertEqual((device["serial"], device["speed"]), ("M1", 480))
        return usb

    def test_descriptors_and_settings(self):
        usb = self.plugged()
        self.assertEqual(self.sysfs("configuration"), "first")
        self.assertEqual(self.sysfs(":1.0/interface"), "settings")
        self.check(usb, ("cin=80.6.f00.0.64", came(bytes.fromhex("050f0c000107100202000000"))),
                   ("cin=80.6.300.0.255", came(bytes.fromhex("04030904"))),
                   ("cin=80.6.301.409.255", came(b"\x0a\3" + "qrdp".encode("utf-16-le"))),
                   ("cin=80.6.301.409.4", came(b"\x0a\3q\0")),
                   ("cin=80.6.301.407.255", "error EPIPE"), ("cin=80.6.320.409.255", "error EPIPE"),
                   ("cin=80.6.201.0.8", came(bytes.fromhex("0902200001020680"))))

        say("alternate settings and zero-length packets")
        self.check(
            usb, ("claim=0", sent(0)), ("claim=1", sent(0)), ("setif=0.1", sent(0)),
            ("out=1.+1000", sent(1000)), ("in=81.2048", came(counting(1000))),
            ("out=1.+1024", sent(1024)), ("out=1.", sent(0)), ("in=81.4096", came(counting(1024))),
            ("out=1.", sent(0)), ("in=81.512", sent(0)),
            ("out=3.+5", sent(5)), ("setif=0.2", sent(0)), ("in=83.64", came(counting(5))),
            ("out=2.+64", sent(64)), ("in=82.64", came(counting(64))),
            ("out=2.+3", sent(3)), ("in=82.64", came(counting(3))),
            ("out=1.+512", sent(512)), ("in=81.512", came(counting(512))),
            ("cin=81.a.0.0.1", came(b"\2")), ("setif=0.0", sent(0)), ("cin=81.a.0.0.1", came(b"\0")))
        self.assertEqual(usb.log("multi")["alt"], 0)

        say("a halt, remote wake-up")
        self.check(
            usb, ("claim=1", sent(0)), ("cout=2.3.0.83.", sent(0)), ("cin=82.0.0.83.2", came(b"\1\0")),
            ("in=83.64", "error EPIPE"), ("halt=83", sent(0)), ("cin=82.0.0.83.2", came(b"\0\0")),
            ("out=3.+9", sent(9)), ("in=83.64", came(counting(9))),
            ("cout=0.3.1.0.", sent(0)), ("cin=80.0.0.0.2", came(b"\3\0")),
            ("cout=0.1.1.0.", sent(0)), ("cin=80.0.0.0.2", came(b"\1\0")))

        say("the second configuration, and back: stock FreeRDP would crash (urbdrc_flavour.h)")
        self.check(usb, ("setcfg=2", sent(0)), ("claim=0", sent(0)), ("cin=80.8.0.0.1", came(b"\2")),
                   ("out=4.+700", sent(700)), ("in=84.1024", came(counting(700))))
        self.assertEqual(self.sysfs("configuration"), "second")
        self.assertEqual(usb.log("multi")["configuration"], 2)
        self.check(usb, ("setcfg=1", sent(0)), ("claim=0", sent(0)), ("claim=1", sent(0)),
                   ("out=3.+700", sent(700)), ("in=83.1024", came(counting(700))), ("setif=0.1", sent(0)),
                   ("out=1.+70", sent(70)), ("in=81.1024", came(counting(70))))
        self.assertEqual(usb.log("multi")["configuration"], 1)

    def test_requests(self):
        """Class and vendor requests to a device, an interface, an endpoint and others, both ways."""
        usb = self.plugged()
        for turn in range(2):
            pairs = [("claim=0", sent(0)), ("claim=1", sent(0))]
            for kind in (0x20, 0x40):
                for recipient, index in ((0, 0xbeef), (1, 0x0501), (2, 0x0083), (3, 0x7700)):
                    for data in (b"", b"\xa5", counting(64), counting(3000)):
                        kept = struct.pack("<BBHHH", kind | recipient, 0x10, 0x1234, index, len(data)) + data
                        asked = struct.pack("<BBHHH", 0x80 | kind | recipient, 0x11, 0xabcd, index, 4096)
                        out = "+%d" % len(data) if data == counting(len(data)) and data else data.hex()
                        pairs += [("cout=%x.10.1234.%x.%s" % (kind | recipient, index, out), sent(len(data))),
                                  ("cin=%x.11.abcd.%x.4096" % (0x80 | kind | recipient, index),
                                   came(asked + kept))]
                pairs += [("cin=%x.77.0.0.4" % (0x80 | kind), "error EPIPE"),
                          ("cout=%x.77.0.0.00" % kind, "error EPIPE")]
            self.check(usb, *pairs)
            if turn == 0:
                usb.unplug("multi")
                self.agent.wait_usb(IDS["multi"], present=False)
                usb.plug(standin.spec("multi"))
                self.agent.wait_usb(IDS["multi"])

    def test_long_transfers(self):
        """A mebibyte goes out in pieces, and comes back in one."""
        usb = self.plugged()
        self.check(usb, ("claim=0", sent(0)), ("setif=0.1", sent(0)),
                   ("out=1.+1048576", sent(1 << 20)), ("in=81.1048576", came(counting(1 << 20))),
                   ("out=1.+600001", sent(600001)), ("in=81.1048576", came(counting(600001))),
                   ("out=1.+262144", sent(262144)), ("out=1.", sent(0)),
                   ("in=81.1048576", came(counting(262144))))
        # The most that is passed on at once (USB_MAX_TRANSFER_BYTES)
        self.check(usb, ("claim=0", sent(0)), ("setif=0.1", sent(0)),
                   ("out=1.+4194304", sent(4 << 20)), ("in=81.4194304", came(counting(4 << 20))))


class ClassTests:
    """A security key, a smart-card reader, a network adapter."""

    def twice(self, usb, kind, driver=None):
        """Plugged in, and once more: yields what the guest says of the device."""
        for turn in range(2):
            yield self.agent.wait_usb(IDS[kind], driver, seconds=60)
            self.check_strict(usb, kind)
            usb.unplug(kind)
            self.agent.wait_usb(IDS[kind], present=False)
            if turn == 0:
                usb.plug(standin.spec(kind))

    def test_security_key(self):
        client, usb = self.bring([standin.spec("fido")])
        for device in self.twice(usb, "fido", "usbhid"):
            node = wait_for(lambda: self.agent.run("ls /sys/bus/usb/devices/%s:1.0/*/hidraw" % device["port"])[1]
                            .strip(), 30, "the key's hidraw node")
            nonce = bytes(range(100, 108))
            reply = self.reports(node, ctap(0xffffffff, 0x86, nonce), 1)
            self.assertEqual(reply[0][:15], bytes.fromhex("ffffffff860011") + nonce)
            channel, = struct.unpack(">I", reply[0][15:19])
            for size in (0, 1, 57, 58, 1000):
                say("ping with %d bytes" % size)
                ping = ctap(channel, 0x81, counting(size))
                self.assertEqual(self.reports(node, ping, len(ping)), ping)
            self.assertEqual(self.reports(node, ctap(channel, 0x88, b""), 1), ctap(channel, 0x88, b""))
            self.assertEqual(self.reports(node, ctap(channel, 0xff, b"")[:1], 1), ctap(channel, 0xbf, b"\1"))
            self.assertEqual(usb.command("winks fido"), "winks=1")

    def reports(self, node, out, count):
        """Sends reports to a hidraw node and gives the next ones that come."""
        write = "".join("printf '\\0%s' >&3; " % "".join("\\%03o" % byte for byte in report) for report in out)
        got = self.agent.shell("exec 3<>/dev/%s; %s dd bs=64 count=%d <&3 2>/dev/null | hexdump -v -e '1/1 \"%%02x\"'"
                               % (node, write, count), 60)
        data = bytes.fromhex(got.strip())
        return [data[at:at + 64] for at in range(0, len(data), 64)]

    def test_card_reader(self):
        client, usb = self.bring([standin.spec("ccid")])

        def message(kind, sequence, data=b"", extra=0):
            return struct.pack("<BIBBBBB", kind, len(data), 0, sequence, extra, 0, 0) + data

        def exchange(kind, sequence, data=b""):
            return ("out=1." + message(kind, sequence, data).hex(), "in=82.271")
        apdu = bytes.fromhex("00b0000010") + bytes(range(16))
        block = bytes.fromhex("00b00000c8") + counting(200)
        for device in self.twice(usb, "ccid"):
            say("status, power on, two APDUs, the card is taken out")
            lines = self.do("ccid", "claim=0", "in=83.8", *exchange(0x65, 1), *exchange(0x62, 2),
                            *exchange(0x6f, 3, apdu), *exchange(0x6f, 4, block), "cin=a1.2.0.0.4")
            self.assertEqual(lines[1], came(b"\x50\3"))
            self.assertEqual(lines[3::2][:4], [
                came(message(0x81, 1, extra=1)),
                came(message(0x80, 2, bytes.fromhex("3b848001") + b"qrdp\1")),
                came(message(0x80, 3, apdu[5:] + b"\x90\0")),
                came(message(0x80, 4, block[5:] + b"\x90\0"))], lines)
            self.assertEqual(lines[-1], came(bytes.fromhex("a00f0000")))
            waiting = self.agent.start_script("usbdo %s claim=0 timeout=60000 in=83.8" % IDS["ccid"])
            usb.command("card ccid out")
            self.assertEqual(self.agent.finish(waiting, 90)[1].splitlines()[-1], came(b"\x50\2"))
            lines = self.do("ccid", "claim=0", *exchange(0x62, 5))
            self.assertEqual(lines[2], came(struct.pack("<BIBBBBB", 0x80, 0, 0, 5, 0x42, 0xfe, 0)))
            usb.command("card ccid in")

    def test_network(self):
        client, usb = self.bring([standin.spec("ecm")])
        for device in self.twice(usb, "ecm", "cdc_ether"):
            name = self.agent.shell("ls /sys/bus/usb/devices/%s:1.0/net" % device["port"]).strip()
            self.assertEqual(self.agent.shell("cat /sys/class/net/%s/address" % name).strip(), "02:12:09:00:00:02")
            self.agent.shell("ip addr add 10.9.0.2/24 dev %s; ip link set %s up" % (name, name))
            wait_for(lambda: self.agent.shell("cat /sys/class/net/%s/carrier" % name).strip() == "1", 30,
                     "the adapter to tell that it is connected")
            for size in (56, 470, 1472):  # 470: the frame is one packet exactly
                say("%s: pings of %d bytes" % (name, size))
                output = self.agent.shell("ping -c 10 -i 0.1 -W 30 -s %d 10.9.0.1" % size, 120)
                self.assertIn("10 packets received, 0% packet loss", output)
            self.assertIn("pings=30 ", usb.command("state ecm"))


    def test_webcam(self):
        client, usb = self.bring([standin.spec("webcam")])
        for device in self.twice(usb, "webcam", "uvcvideo"):
            node = wait_for(lambda: self.agent.run("ls -d /sys/bus/usb/devices/%s:1.0/video4linux/video*" %
                                                   device["port"])[1].split(), 30, "a camera in the guest")[0]
            output = self.agent.shell("camera /dev/%s 10" % node.rpartition("/")[2], 180)
            *pictures, damaged = output.splitlines()
            numbers = []
            for picture in pictures:
                number, size, checksum = picture.split()
                numbers.append(int(number))
                self.assertEqual((int(size), checksum), (38400, "%08x" % fnv(yuy2(int(number)))), output)
            say("pictures %s, %s" % (numbers, damaged))
            self.assertEqual(len(set(numbers)), 10, output)
            self.assertEqual(numbers, sorted(numbers), output)


def yuy2(number):
    """The bytes of the webcam's picture of this number (tests/standin/webcam.c)."""
    return struct.pack("<I", number) + bytes((at * 7 + (at >> 8) + number * 13) & 255
                                             for at in range(4, 160 * 120 * 2))


def ctap(channel, command, data):
    """The reports of a CTAPHID message."""
    reports = [struct.pack(">IBH", channel, command, len(data)) + data[:57]]
    for sequence, at in enumerate(range(57, len(data), 59)):
        reports.append(struct.pack(">IB", channel, sequence) + data[at:at + 59])
    return [report.ljust(64, b"\0") for report in reports]


class SerialTests:
    """Serial adapters. QEMU reads them ahead (usbredir's buffered bulk)."""

    def tty(self, kind, driver):
        """The port that the guest has made of an adapter."""
        self.agent.wait_usb(IDS[kind], driver, seconds=60)
        return wait_for(lambda: self.agent.run("ls /sys/bus/usb-serial/drivers/%s/ | grep ttyUSB" % driver)[1]
                        .strip(), 30, "a serial port of %s in the guest" % driver)

    def check_adapter(self, kind, driver, size, bulk_in=0x81, turns=2):
        client, usb = self.bring([standin.spec(kind)])
        for turn in range(turns):
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
            if turn < turns - 1:
                usb.plug(standin.spec(kind))

    def state(self, usb, kind):
        return dict(word.split("=") for word in usb.command("state " + kind).split())

    def test_ftdi(self):
        self.check_adapter("ftdi", "ftdi_sio", 50000)

    def test_cp210x(self):
        self.check_adapter("cp210x", "cp210x", 20000)

    def test_pl2303(self):
        self.check_adapter("pl2303", "pl2303", 20000, 0x83)

    def test_pl2303_stalls(self):
        """Its bulk IN endpoint stalls while it is read ahead: once, and for as long as it is told to."""
        client, usb = self.bring([standin.spec("pl2303")])
        port = self.tty("pl2303", "pl2303")
        running = self.agent.start_script("ttydo /dev/%s baud=115200 line" % port)
        usb.wait_log("pl2303", lambda log: log["ep83.queued"] > 10, 60, "reading ahead")
        say("once: the halt is cleared before the port's driver, which would read no more, knows of it")
        cleared = usb.log("pl2303")["clear_halt"]
        usb.command("stall pl2303 83")
        usb.wait_log("pl2303", lambda log: log["clear_halt"] > cleared and log["ep83.queued"] > 10, 60,
                     "the halt to be cleared, and reading to go on")
        usb.command("send pl2303 it goes on")
        status, output = self.agent.finish(running, 90)
        self.assertEqual(status, 0, output)
        self.assertIn("it goes on", output)

        say("again and again: the reader's request ends, and what it does about that works")
        usb.wait_log("pl2303", lambda log: log["ep83.queued"] == 0, 60, "the closed port not to be read")
        usb.command("stall pl2303 83 10000")
        self.assertEqual(self.do("pl2303", "claim=0", "in=83.64"), ["ok 0 ", "error EPIPE"])
        usb.command("stall pl2303 83 0")
        usb.wait_log("pl2303", lambda log: log["ep83.halted"] and log["ep83.queued"] == 0, 60, "nobody to read")
        self.assertEqual(self.do("pl2303", "claim=0", "halt=83"), ["ok 0 "] * 2)
        self.assertEqual(usb.log("pl2303")["ep83.halted"], 0)
        self.assertEqual(self.do("pl2303", "claim=0", "out=02.c0ffee", "in=83.64"), ["ok 0 ", "ok 3 ", "ok 3 c0ffee"])
        self.check_strict(usb, "pl2303")

    @full
    def test_nobody_reads(self):
        """Nobody reads the port: QEMU's queue overflows, nothing breaks, and it can be used again.

        QEMU before 10.0.13 uses memory after it has freed it when it drops a part of a packet
        (CVE-2026-15705; usb/device_bulkin.c).
        """
        client, usb = self.bring([standin.spec("pl2303")])
        port = self.tty("pl2303", "pl2303")
        running = self.agent.start_script("rm -f /tmp/go; ttydo /dev/%s until=/tmp/go drain echo=20000" % port)
        usb.wait_log("pl2303", lambda log: log["ep83.queued"] > 10, 60, "reading ahead")
        usb.command("flood pl2303 1000000")  # more than 10000 packets of 64 bytes
        wait_for(lambda: self.state(usb, "pl2303")["waiting"] == "0", 120,
                 lambda: "the adapter to be read: %s" % self.state(usb, "pl2303"))
        self.agent.shell("touch /tmp/go")
        status, output = self.agent.finish(running, 180)
        self.assertEqual(status, 0, output)
        say("closed, the port is not read: what comes then is the adapter's to keep")
        wait_for(lambda: usb.log("pl2303")["ep83.queued"] == 0, 60, "QEMU to stop reading a closed port")
        self.check_strict(usb, "pl2303")


class DeviceTest(RequestTests, ClassTests, SerialTests, DeviceRig):
    """All of them, in one machine."""
