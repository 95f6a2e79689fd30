"""(5) Every class of USB device that QEMU or a gadget can be, from a client with a real USB stack.

Two machines: the target behind qrdp, and the client machine with the stock xfreerdp3 and the devices. Each
device appears in the target, its driver binds, its work is done with the bytes compared at both ends, it is
unplugged and plugged in again.
"""

import contextlib
import hashlib
import os
import random
import socket
import struct
import threading

import audio
import clientvm
import mtp
import vcard
from qemu import EV_ABS, EV_KEY, EV_REL
from rig import SharedRig, full, say
from test_stick import on_image, read_file, write_file
from wait import wait_for

DISK, UAS, HID, SERIAL = "46f4:0001", "46f4:0003", "0627:0001", "0403:6001"
SPEAKER, SPEAKER_RATE = "46f4:0002", 48000
CARD_READER, NETWORK, CAMERA = "08e6:4433", "0525:a4a2", "46f4:0004"
COMPOSITE, KEY = "1209:00f2", "1209:00f3"
IDS = [DISK, UAS, SPEAKER, HID, SERIAL, CARD_READER, NETWORK, CAMERA, COMPOSITE, KEY]
# A FIDO key's: 64 bytes each way (CTAP 11.2.8.1).
KEY_REPORTS = bytes.fromhex("06d0f10901a1010920150026ff007508954081020921150026ff00750895409102c0")

# Seconds: two machines are emulated, next to what else the host does.
SLOW = 400


def noise(size, seed=1):
    return random.Random(seed).randbytes(size)


class MachineRig(SharedRig):
    """Both machines, and one session that takes whatever of IDS is plugged in."""

    ids = IDS

    @classmethod
    def start(cls):
        # A cursor that blinks would have the client draw all the time.
        cls.server, cls.vm = cls.shared.run_vm(append="vt.global_cursor_default=0")
        cls.machine = clientvm.ClientMachine(cls.shared.path("client"))
        cls.shared.addCleanup(cls.machine.stop)
        cls.session = None

    def setUp(self):
        super().setUp()
        self.agent = self.vm.agent
        if not self.session:
            type(self).session = self.machine.connect(self.server, self.ids)

    def wait_device(self, ident, serial, driver=None, agent=None, present=True):
        """Waits until the device with this id and serial number is there with its driver, or gone."""
        agent = agent or self.agent

        def seen():
            found = [d for d in agent.usb() if d["id"] == ident and d["serial"] == serial and
                     (driver is None or driver in d["drivers"])]
            return (found or [None])[0] if present else not found
        return wait_for(seen, SLOW, lambda: "%s (%s) %s; there is %s; qrdp: %s" % (
            ident, serial, "with driver %s" % driver if present else "to go", agent.usb(),
            self.server.status_text()), 0.2)

    def in_and_out(self, ident, serial, driver, plug, unplug, work):
        """The whole life of a device: twice plugged in, at work, and unplugged."""
        for turn in range(2):
            plug()
            try:
                device = self.wait_device(ident, serial, driver)
                work(device, turn)
            finally:
                unplug()
            self.wait_device(ident, serial, present=False)


@full
class ClassesTest(MachineRig):
    def check_disk(self, kind, ident, driver, speed, mbits):
        path = self.stick(files=[("hello.bin", noise(300000))])
        image = lambda: self.machine.plug_disk(kind, "disk", path, speed, serial="DISK1")
        sums = []

        def work(device, turn):
            place, = self.agent.wait_mount(1, SLOW)
            self.assertEqual(device["speed"], mbits)
            if turn:
                self.assertEqual(read_file(self.agent, place + "/data"), sums[0])
            else:
                self.assertEqual(read_file(self.agent, place + "/hello.bin"),
                                 hashlib.sha256(noise(300000)).hexdigest())
                sums.append(write_file(self.agent, place + "/data", 2))
                self.assertEqual(read_file(self.agent, place + "/data"), sums[0])
            self.agent.shell("umount %s && sync" % place)

        self.in_and_out(ident, "DISK1", driver, image, lambda: self.machine.unplug_disk("disk"), work)
        self.assertEqual(on_image(path, "data"), sums[0])

    def test_storage_high_speed(self):
        self.check_disk("usb-storage", DISK, "usb-storage", "high", 5000)  # shown so

    def test_storage_super_speed(self):
        self.check_disk("usb-storage", DISK, "usb-storage", "super", 5000)

    def test_uas_high_speed(self):
        self.check_disk("usb-uas", UAS, "uas", "high", 480)

    def test_uas_super_speed(self):
        """Without streams it takes commands and moves no data: there is nothing to show a guest (docs/superspeed.md).

        A program in the target asks for its INQUIRY data (UAS 6.2.2), at high speed with success.
        """
        command = "out=01.01000001" + "00" * 12 + "120000002400" + "00" * 10
        for speed, mbits, words, wanted in (
                ("super", 5000, "in=83.36 timeout=3000 in=82.64", ["error EPIPE", "error ETIMEDOUT"]),
                # READ READY, the data of a disk (SPC), and the status: GOOD.
                ("high", 480, "in=82.64 in=83.36 in=82.64", ["ok 4 06000001", "ok 36 00", "ok 16 03000001" + "00" * 12])):
            self.machine.plug_disk("usb-uas", "disk", self.stick(speed), speed, serial="DISK2")
            try:
                device = self.wait_device(UAS, "DISK2", None if speed == "super" else "uas")
                self.assertEqual(device["speed"], mbits)
                if speed == "super":
                    self.assertEqual(device["drivers"], set())
                lines = self.agent.shell("usbdo %s timeout=60000 claim=0 %s %s" % (UAS, command, words), SLOW).splitlines()
                self.assertEqual(lines[:2], ["ok 0 ", "ok 32 "])
                self.assertEqual([line[:len(start)] for line, start in zip(lines[2:], wanted, strict=True)], wanted, lines)
            finally:
                self.machine.unplug_disk("disk")
            self.wait_device(UAS, "DISK2", present=False)

    def check_input(self, kind, act, wanted):
        """act() uses the device at the client; wanted(events) is true when all came."""
        def work(device, turn):
            wait_for(lambda: [n for n in self.agent.inputs() if n.startswith("QEMU")], SLOW, "an input device")
            self.agent.events()
            act()
            seen = []
            wait_for(lambda: seen.extend(self.agent.events()) or wanted(seen), SLOW,
                     lambda: "the events of the %s; seen: %s" % (kind, seen))
        self.in_and_out(HID, "HID1", "usbhid", lambda: self.machine.plug(kind, "hid", serial="HID1"),
                        lambda: self.machine.unplug("hid"), work)

    def test_keyboard(self):
        def act():
            for key in "q", "r", "d", "p":
                self.machine.qmp.send_key(key)
        self.check_input("usb-kbd", act, lambda seen: [
            (e.code, e.value) for e in seen if e.type == EV_KEY and e.value != 2] == [
                (code, value) for code in (16, 19, 32, 25) for value in (1, 0)])

    def test_mouse(self):
        def act():
            for _ in range(10):
                self.machine.qmp.command("input-send-event", events=[
                    {"type": "rel", "data": {"axis": "x", "value": 7}},
                    {"type": "rel", "data": {"axis": "y", "value": -3}}])
            for down in True, False:
                self.machine.qmp.mouse(button="right", down=down)
        self.check_input("usb-mouse", act, lambda seen: (
            sum(e.value for e in seen if e.type == EV_REL and e.code == 0),
            sum(e.value for e in seen if e.type == EV_REL and e.code == 1),
            [e.value for e in seen if e.type == EV_KEY and e.code == 0x111]) == (70, -30, [1, 0]))

    def test_tablet(self):
        def last(seen, code):
            return ([e.value for e in seen if e.type == EV_ABS and e.code == code] or [None])[-1]
        self.check_input("usb-tablet", lambda: self.machine.qmp.mouse(12345, 23456),
                         lambda seen: (last(seen, 0), last(seen, 1)) == (12345, 23456))

    def test_serial(self):
        line = self.machine.line("ttl")
        self.addCleanup(line.close)
        down, up = noise(20000, 2), noise(20000, 3)

        def work(device, turn):
            node = "/dev/ttyUSB0"
            wait_for(lambda: self.agent.run("[ -c %s ]" % node)[0] == 0, SLOW, node)
            self.agent.shell("stty -F %s 115200 raw -echo -ixon -ixoff" % node)
            # Opening the port empties the device's buffer: the other end speaks when it hears the port open.
            running = self.agent.start_script(
                "echo %s | xxd -r -p >/tmp/up; exec 3<>%s; cat /tmp/up >&3; head -c %d <&3 | sha256sum" % (
                    up.hex(), node, len(down)))
            came = b""
            while len(came) < len(up):
                came += line.recv(65536)
            self.assertEqual(came, up)
            line.sendall(down)
            status, text = self.agent.finish(running, SLOW)
            self.assertEqual(text.split()[0], hashlib.sha256(down).hexdigest())
        self.in_and_out(SERIAL, "SER1", "ftdi_sio",
                        lambda: self.machine.plug("usb-serial", "serial", serial="SER1", chardev="ttl"),
                        lambda: self.machine.unplug("serial"), work)

    def test_speaker(self):
        """A tone that the target plays is what the speaker is given.

        A client that is emulated is now and then late by more than qrdp waits for. What qrdp then leaves out is all that
        may be missing, and what the target's driver throws away when it has run dry itself (200 ms each time).
        """
        node, done = "pcmC0D0p", {}

        def work(device, turn):
            wait_for(lambda: self.agent.run("[ -c /dev/snd/%s ]" % node)[0] == 0, SLOW, node)
            done.update(plays=0, xruns=0)

            def play():
                told = self.agent.shell("sound play %s %d 1500" % (node, SPEAKER_RATE), SLOW)
                done["plays"] += 1
                done["xruns"] += int(told.partition("xruns=")[2])
                return len(audio.heard(self.machine.heard)) >= SPEAKER_RATE
            wait_for(play, SLOW, "a second of the tone at the speaker")
            done["dropped"] = self.server.status()["usb"]["devices"][-1]["iso_out"]["dropped"]

        def unplug():
            self.machine.unplug("speaker")
            frames = audio.heard(self.machine.heard)
            lost, gaps, starts = audio.breaks(frames)
            pitch = audio.frequency([left for left, _ in frames], len(frames) / SPEAKER_RATE)
            say("%.1f Hz, %d frames heard; %d left out in %d gaps; of %s" % (pitch, len(frames), lost, gaps, done))
            self.assertTrue(990 <= pitch <= 1010, "the tone has %.1f Hz" % pitch)
            self.assertEqual(starts, done["plays"], "ascents of the player's numbers")
            self.assertLessEqual(lost, SPEAKER_RATE // 1000 * (done["dropped"] + 200 * done["xruns"]), "frames left out")

        self.in_and_out(SPEAKER, "AUD1", "snd-usb-audio",
                        # Its buffer holds a second: what comes late and then at once is not lost there.
                        lambda: self.machine.plug("usb-audio", "speaker", serial="AUD1", audiodev="speaker",
                                                  buffer=SPEAKER_RATE * 4), unplug, work)

    def test_unplugged_while_read(self):
        """The port is open and the client has reads of it waiting when the adapter goes, and comes again."""
        line = self.machine.line("ttl3")
        self.addCleanup(line.close)
        for turn in range(3):
            self.machine.plug("usb-serial", "serial", serial="SER2", chardev="ttl3")
            self.wait_device(SERIAL, "SER2", "ftdi_sio")
            wait_for(lambda: self.agent.run("[ -c /dev/ttyUSB0 ]")[0] == 0, SLOW, "/dev/ttyUSB0")
            self.agent.shell("rm -f /tmp/tty")
            running = self.agent.start_script("ttydo /dev/ttyUSB0 baud=115200 line hup >/tmp/tty 2>&1")

            def read():
                line.sendall(b"hello\n")  # opening the port empties it: again until it is heard
                return "hello" in self.agent.run("cat /tmp/tty")[1]
            wait_for(read, SLOW, "the port to be read", 0.5)
            self.machine.unplug("serial")
            status, text = self.agent.finish(running, SLOW)
            self.assertEqual(status, 0, self.agent.run("cat /tmp/tty")[1])
            self.wait_device(SERIAL, "SER2", present=False)

    def do(self, ident, *words):
        """Runs usbdo in the target; a list of (bytes transferred, what came), or raises what went wrong."""
        found = []
        for line in self.agent.shell("usbdo %s %s" % (ident, " ".join(words)), SLOW).splitlines():
            self.assertEqual(line.split()[0], "ok", (words, line))
            found.append((int(line.split()[1]), bytes.fromhex((line.split() + [""])[2])))
        return found

    def test_card_reader(self):
        """A program in the target speaks CCID with the reader, and through it with a card."""
        line = self.machine.line("card")
        card = vcard.Card(line, lambda apdu: bytes(reversed(apdu)) + b"\x90\x00")
        self.addCleanup(card.close)
        apdu = bytes.fromhex("00a4040006") + b"qrdp!?"

        def plug():
            self.machine.plug("usb-ccid", "reader", serial="CCID1")
            self.machine.qmp.command("device_add", driver="ccid-card-passthru", id="slot", bus="reader.0",
                                     chardev="card")

        def message(kind, sequence, payload=b""):
            return "out=3." + (struct.pack("<BIBBBH", kind, len(payload), 0, sequence, 0, 0) + payload).hex()

        def work(device, turn):
            wait_for(lambda: self.do(CARD_READER, "claim=0", message(0x65, 0), "in=82.64")[-1][1][7] & 3 != 2,
                     30, "the reader to see its card")
            found = self.do(CARD_READER, "claim=0", message(0x62, 1), "in=82.300", message(0x6f, 2, apdu),
                            "in=82.300")
            for sequence, (size, block) in ((1, found[2]), (2, found[4])):
                self.assertEqual((block[0], block[6], block[7]), (0x80, sequence, 0), block.hex())
            self.assertEqual(found[2][1][10:], vcard.ATR_BYTES)
            self.assertEqual(found[4][1][10:], bytes(reversed(apdu)) + b"\x90\x00")
            self.assertEqual(card.apdus[-1], apdu)

        self.in_and_out(CARD_READER, "CCID1", None, plug, lambda: self.machine.unplug("reader"), work)

    def test_media_player(self):
        """A program in the target lists the objects of an MTP device and reads one."""
        folder = self.path("player")
        os.mkdir(folder)
        song = noise(150000, 4)
        for name, content in (("song.ogg", song), ("note.txt", b"a note")):
            with open(os.path.join(folder, name), "wb") as file:
                file.write(content)

        def ask(code, *parameters, data=True):
            """One transaction; the payload of its data phase."""
            found = self.do(CAMERA, "claim=0", "show=1000000", "out=2." + mtp.command(code, 1, *parameters).hex(),
                            *["in=81.500000"] * (1 + data))
            parts = [mtp.container(came) for _, came in found[2:]]
            self.assertEqual(parts[-1][:2], (mtp.RESPONSE, mtp.OK))
            if data:
                self.assertEqual(parts[0][:2], (mtp.DATA, code))
                return parts[0][2]

        def work(device, turn):
            ask(mtp.OPEN_SESSION, 1, data=False)
            names = {mtp.file_name(ask(mtp.GET_OBJECT_INFO, handle)): handle
                     for handle in mtp.words(ask(mtp.GET_OBJECT_HANDLES, mtp.ALL, 0, mtp.ALL))}
            self.assertEqual(sorted(names), ["note.txt", "song.ogg"])
            self.assertEqual(ask(mtp.GET_OBJECT, names["note.txt"]), b"a note")
            if not turn:
                self.assertEqual(ask(mtp.GET_OBJECT, names["song.ogg"]), song)

        self.in_and_out(CAMERA, "MTP1", None,
                        lambda: self.machine.plug("usb-mtp", "player", rootdir=folder, serial="MTP1"),
                        lambda: self.machine.unplug("player"), work)

    def check_network(self, driver, configuration=None):
        """Data pass through TCP, by an adapter that may first be given another configuration."""
        up, down = noise(20000, 5), noise(20000, 6)
        listener = socket.create_server(("127.0.0.1", 0))
        listener.settimeout(SLOW)
        self.addCleanup(listener.close)
        came = []

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    end, _ = listener.accept()
                    with end:
                        end.sendall(down)
                        came.append(b"".join(iter(lambda: end.recv(65536), b"")))

        threading.Thread(target=serve, daemon=True).start()
        self.machine.qmp.command("netdev_add", type="user", id=driver, net="10.0.9.0/24")

        def through(device, turn):
            place = "/sys/bus/usb/devices/" + device["port"]
            if configuration:
                self.agent.shell("modprobe %s; echo %d >%s/bConfigurationValue" % (driver, configuration, place), 60)
                self.wait_device(NETWORK, "NET1", driver)
            name = wait_for(lambda: self.agent.run("ls %s/*/net 2>/dev/null" % place)[1].split(), 60, "its interface")[0]
            came.clear()
            got = self.agent.shell(
                "ip addr flush dev {0}; ip addr add 10.0.9.15/24 dev {0}; ip link set {0} up; "
                "echo {1} | xxd -r -p >/tmp/up; nc 10.0.9.2 {2} </tmp/up | sha256sum".format(
                    name, up.hex(), listener.getsockname()[1]), SLOW)
            self.assertEqual(got.split()[0], hashlib.sha256(down).hexdigest())
            wait_for(lambda: came, 30, "the other end to have received all")
            self.assertEqual(came, [up])

        self.in_and_out(NETWORK, "NET1", "cdc_ether",
                        lambda: self.machine.plug("usb-net", "net", netdev=driver, serial="NET1"),
                        lambda: self.machine.unplug("net"), through)

    def test_network(self):
        """An adapter of which Linux takes the second configuration."""
        self.check_network("cdc_ether")

    def test_network_other_configuration(self):
        """Its first one, RNDIS.

        The client must have no driver for it: a new configuration's interfaces are offered to the client's drivers,
        which xfreerdp3 asked to let go when it announced the device, and no more.
        """
        client = self.machine.agent
        module = client.shell("modprobe -r rndis_host; find /lib/modules -name 'rndis_host.ko*'").strip()
        client.shell("mv %s /tmp/" % module)
        self.addCleanup(client.shell, "mv /tmp/%s %s; modprobe rndis_host" % (os.path.basename(module), module))
        self.check_network("rndis_host", 2)

    def gadget(self, ident, functions, product):
        gadget = clientvm.Gadget(self.machine.agent, ident, functions, product, "GAD1")
        self.addCleanup(gadget.remove)
        return gadget

    def in_and_out_gadget(self, ident, gadget, driver, work):
        first = iter([True])
        self.in_and_out(ident, "GAD1", driver, lambda: next(first, False) or gadget.plug(), gadget.unplug, work)

    def test_security_key(self):
        """Reports of 64 bytes pass both ways, in order."""
        gadget = self.gadget(KEY, {"hid.key": {"protocol": 0, "subclass": 0, "report_length": 64,
                                               "report_desc": KEY_REPORTS}}, "key")
        client, data = self.machine.agent, noise(16 * 64, 11)
        digest = hashlib.sha256(data).hexdigest()

        def work(device, turn):
            node = "/dev/" + wait_for(lambda: self.agent.run(
                "ls /sys/bus/usb/devices/%s:1.0/*/hidraw 2>/dev/null" % device["port"])[1].strip(), SLOW,
                "its hidraw node")
            for agent in client, self.agent:
                agent.shell("echo %s | xxd -r -p >/tmp/data" % data.hex())
            # A report's number goes before its bytes: it has none, so 0.
            put = "for n in $(seq 0 15); do (%s dd if=/tmp/data bs=64 skip=$n count=1 2>/dev/null) | dd of=%s bs=%d " \
                  "count=1 iflag=fullblock 2>/dev/null || exit 1; done"
            get = "dd bs=64 count=16 2>/dev/null <%s | sha256sum"
            waiting = client.start_script(get % "/dev/hidg0")
            self.agent.shell(put % ("printf '\\0';", node, 65), SLOW)
            self.assertEqual(client.finish(waiting, SLOW)[1].split()[0], digest)
            waiting = self.agent.start_script("exec 3<%s; touch /tmp/reading; " % node + get % "&3")
            wait_for(lambda: self.agent.run("rm /tmp/reading")[0] == 0, SLOW, "the node to be open")
            client.shell(put % ("", "/dev/hidg0", 64), SLOW)
            self.assertEqual(self.agent.finish(waiting, SLOW)[1].split()[0], digest)

        self.in_and_out_gadget(KEY, gadget, "usbhid", work)

    def test_composite(self):
        """A modem port and a printer in one device."""
        gadget = self.gadget(COMPOSITE, {"acm.port": {}, "printer.lp": {"pnp_string": "MFG:qrdp;MDL:lp;"}},
                             "both")
        up, down = noise(30000, 9), noise(30000, 10)
        client = self.machine.agent

        def put(agent, data, path):
            agent.shell("echo %s | xxd -r -p >%s" % (data.hex(), path))

        def through(sender, source, receiver, sink, data):
            put(sender, data, "/tmp/data")
            waiting = receiver.start_script("head -c %d <%s | sha256sum" % (len(data), sink))
            sender.shell("cat /tmp/data >" + source, SLOW)
            self.assertEqual(receiver.finish(waiting, SLOW)[1].split()[0], hashlib.sha256(data).hexdigest())

        def work(device, turn):
            self.wait_device(COMPOSITE, "GAD1", "usblp")
            for node in "/dev/ttyACM0", "/dev/usb/lp0":
                wait_for(lambda: self.agent.run("[ -c %s ]" % node)[0] == 0, SLOW, node)
            self.agent.shell("stty -F /dev/ttyACM0 115200 raw -echo")
            client.run("stty -F /dev/ttyGS0 raw -echo")  # complains that it has no speed
            through(self.agent, "/dev/usb/lp0", client, "/dev/g_printer0", up)
            through(client, "/dev/g_printer0", self.agent, "/dev/usb/lp0", down[:5000])
            through(self.agent, "/dev/ttyACM0", client, "/dev/ttyGS0", up)
            through(client, "/dev/ttyGS0", self.agent, "/dev/ttyACM0", down)

        self.in_and_out_gadget(COMPOSITE, gadget, "cdc_acm", work)

    def test_drivers_come_back(self):
        """Five devices at once, there before the session begins; when it ends, the client's own drivers have them.

        All but cdc_ether, which needs two interfaces at once: xfreerdp3 releases and attaches them one by one."""
        self.session.stop()
        type(self).session = None
        client, drivers = self.machine.agent, {
            "DISK1": (DISK, "usb-storage"), "UAS1": (UAS, "uas"), "HID1": (HID, "usbhid"), "SER1": (SERIAL, "ftdi_sio"),
            "NET1": (NETWORK, "cdc_ether")}
        line = self.machine.line("ttl2")
        self.addCleanup(line.close)
        self.machine.qmp.command("netdev_add", type="user", id="far2")
        self.machine.plug_disk("usb-storage", "disk", self.stick("a.img"), serial="DISK1")
        self.addCleanup(self.machine.unplug_disk, "disk")
        self.machine.plug_disk("usb-uas", "uas", self.stick("b.img"), "high", serial="UAS1")
        self.addCleanup(self.machine.unplug_disk, "uas")
        for name, kind, options in (("hid", "usb-kbd", {"serial": "HID1"}),
                                    ("serial", "usb-serial", {"serial": "SER1", "chardev": "ttl2"}),
                                    ("net", "usb-net", {"serial": "NET1", "netdev": "far2"})):
            self.machine.plug(kind, name, **options)
            self.addCleanup(self.machine.unplug, name)
        for serial, (ident, driver) in drivers.items():
            self.wait_device(ident, serial, driver, client)
        type(self).session = self.machine.connect(self.server, self.ids)
        for serial, (ident, driver) in drivers.items():
            self.wait_device(ident, serial, driver)
        self.agent.wait_mount(2, SLOW)
        for device in client.usb():
            if device["serial"] in drivers:
                self.assertNotIn(drivers[device["serial"]][1], device["drivers"])
        self.session.stop()
        type(self).session = None
        for serial, (ident, driver) in drivers.items():
            self.wait_device(ident, serial, present=False)
            if driver != "cdc_ether":
                self.wait_device(ident, serial, driver, client)
