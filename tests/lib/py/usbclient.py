"""A client that redirects a USB device of its own making, and can be told to misbehave: MS-RDPEUSB's client side.

The device is 1209:0004, vendor class, high speed: bulk 01 comes back on 81, interrupt 02 on 82, and the vendor
request 05 to the device answers with the bytes of its index. On the wire it looks like FreeRDP's client.
"""

import os
import select
import struct
import threading
import time
import traceback
from collections import deque

from hostile import DRDYNVC, HostileClient, u16, u32
from wait import wait_for

PRODUCT = "1209:0004"
STALL, GONE, TIMED_OUT, CANCELLED = 4, 5, 2, 3  # what FreeRDP sends for transfers: libusb's numbers
STALL_PID = 0xC0000004                          # and for control requests
ENDPOINTS = ((0x81, 2, 512, 0), (0x01, 2, 512, 0), (0x82, 3, 64, 4), (0x02, 3, 64, 4))
CONFIGURATION = 0x01050100  # handles are opaque; these look like FreeRDP's
PIPE = 0x01050000
SELECT_CONFIGURATION, SELECT_INTERFACE, PIPE_REQUESTS = 0x00, 0x01, (0x02, 0x1E, 0x30, 0x31)
CONTROL, BULK, GET_FRAME, CONTROL_EX = 0x08, 0x09, 0x07, 0x32
GET_DESCRIPTORS = {0x0B: 0x80, 0x24: 0x82, 0x28: 0x81}
VENDOR = {0x17: 0x40, 0x18: 0x41, 0x19: 0x42, 0x20: 0x43}
CLASS = {0x1A: 0x20, 0x1B: 0x21, 0x1C: 0x22, 0x1F: 0x23}
URB_COMPLETION, URB_COMPLETION_NO_DATA, IOCONTROL_COMPLETION = 0x101, 0x102, 0x100


def descriptors(serial):
    device = struct.pack("<BBHBBBBHHHBBBB", 18, 1, 0x200, 0, 0, 0, 64, 0x1209, 4, 0x100, 1, 2, 3 if serial else 0, 1)
    interface = struct.pack("<9B", 9, 4, 0, 0, len(ENDPOINTS), 0xFF, 0, 0, 0) + b"".join(
        struct.pack("<BBBBHB", 7, 5, address, kind, size, interval) for address, kind, size, interval in ENDPOINTS)
    configuration = struct.pack("<BBHBBBBB", 9, 2, 9 + len(interface), 1, 1, 0, 0x80, 50) + interface
    texts = [b"\x04\x03\x09\x04"] + [struct.pack("<BB", 2 + 2 * len(t), 3) + t.encode("utf-16-le")
                                     for t in ("qrdp", "fault device", serial or "")]
    return device, configuration, texts


class Urb:
    """One request of the server: what it asks for, and where its answer goes."""

    def __init__(self, channel, unit, out, body):
        self.channel, self.unit, self.out, self.body = channel, unit, out, body
        size, self.function, self.id = struct.unpack("<HHI", body[4:12])
        self.rest = body[12:4 + size]
        self.length = struct.unpack("<I", body[4 + size:8 + size])[0]
        self.data = body[8 + size:]
        self.endpoint = self.rest[0] if self.function in (BULK,) + PIPE_REQUESTS else 0

    def setup(self):
        """(bmRequestType, bRequest, wValue, wIndex) of what ends as a control request, or None."""
        f, rest, way = self.function, self.rest, 0 if self.out else 0x80
        if f in GET_DESCRIPTORS:
            index, kind, language = struct.unpack("<BBH", rest[:4])
            return GET_DESCRIPTORS[f], 6, kind << 8 | index, language
        if f in VENDOR or f in CLASS:
            request, value, index = struct.unpack("<BHH", rest[5:10])
            return (VENDOR.get(f) or CLASS[f]) | way, request, value, index
        if f in (CONTROL, CONTROL_EX):
            return struct.unpack("<BBHH", rest[-8:-2])
        return None

    def __repr__(self):
        return "urb %d: function %02x, endpoint %02x, setup %s, %d bytes" % (
            self.id, self.function, self.endpoint, self.setup(), self.length)


class Channel:
    def __init__(self, number):
        self.number, self.data, self.expected, self.callback = number, b"", 0, None
        self.device = False


class UsbClient(HostileClient):
    """connect(), then plug(); requests are served by a thread until close().

    .fault, a function of a Urb, may answer in place of the device and return True. .cancelled says when
    the server has cancelled an id, .urbs holds all requests (.at: when), .closed the channels the server has closed.
    """

    def __init__(self, address, serial="F1", **options):
        super().__init__(address, **options)
        self.device, self.configuration, self.texts = descriptors(serial)
        self.channels, self.control, self.fault = {}, None, lambda urb: False
        self.waiting, self.looped = {}, {0x81: deque(), 0x82: deque()}
        self.cancelled, self.urbs, self.closed, self.devices = {}, [], [], []
        self.refuse, self.refused = False, 0  # channels that the server opens; how many were
        self.error, self.thread, self.ready = None, None, threading.Event()
        self.outgoing, (self.wakeup, self.waker) = deque(), os.pipe()

    # --- the session

    def connect(self, user="", password=""):
        super().connect(user, password)
        self.tls.settimeout(None)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()
        return self

    def close(self):
        if self.wakeup is None:
            return
        if self.thread:
            try:
                self.tcp_shutdown()
            except OSError:
                pass
            self.thread.join(10)
        super().close()
        for fd in (self.wakeup, self.waker):
            os.close(fd)
        self.wakeup = self.waker = None

    def tcp_shutdown(self):
        """Cuts the connection without a word."""
        self.tls.shutdown(2)

    # One thread alone uses the TLS object: what others send is queued for it.

    def _write(self, data):
        if threading.current_thread() is self.thread:
            self.tls.sendall(data)
        else:
            self.outgoing.append(data)
            os.write(self.waker, b"x")

    def _exactly(self, n):
        data = b""
        while len(data) < n:
            if self.thread and not self.tls.pending():
                readable, _, _ = select.select([self.tls, self.wakeup], [], [])
                if self.wakeup in readable:
                    os.read(self.wakeup, 4096)
                while self.outgoing:
                    self.tls.sendall(self.outgoing.popleft())
                if self.tls not in readable:
                    continue
            more = (self.tls or self.tcp).recv(n - len(data))
            if not more:
                raise EOFError("the server closed the connection")
            data += more
        return data

    def plug(self):
        """Announces the device; the server opens its channel."""
        wait_for(lambda: self.ready.is_set() or self.error, 60, "the server to open the control channel")
        self.waiting.clear()
        self.empty()
        self.announce()
        return self

    def announce(self, count=1):
        for _ in range(count):
            self._send(self.control, u32(0x40000001, 0, 0x100))

    def unplug(self):
        for number in [c.number for c in self.channels.values() if c.device]:
            self.close_channel(number)

    def close_channel(self, number):
        self.channels.pop(number, None)
        self._write(self.dynamic(bytes([0x40, number])))

    def _serve(self):
        data, total = b"", 0
        try:
            while True:
                pdu = self.read()
                if not pdu or pdu[0] != 0x68:
                    continue
                body = pdu[8:] if pdu[6] & 0x80 else pdu[7:]
                if struct.unpack(">H", pdu[3:5])[0] != DRDYNVC:
                    self._core(body)
                    continue
                total, flags = struct.unpack("<II", body[:8])
                data = body[8:] if flags & 1 else data + body[8:]
                if flags & 2:
                    self._dynamic(data)
        except (OSError, EOFError, ValueError) as error:
            self.error = error
        except Exception as error:  # a bug in a test's fault function
            traceback.print_exc()
            self.error = error

    def _core(self, body):
        if len(body) > 10 and body[2] & 0x0F == 1:  # Demand Active: the guest's screen has another size
            self.share = struct.unpack("<I", body[6:10])[0]
            self.confirm_active()
            self.tls.sendall(self.data_pdu(31, u16(1, 1002)) + self.data_pdu(20, u16(4, 0) + u32(0))
                             + self.data_pdu(20, u16(1, 0) + u32(0)) + self.data_pdu(39, u16(0, 0, 3, 0x32)))

    # --- dynamic channels (MS-RDPEDYC)

    def _dynamic(self, pdu):
        command, size = pdu[0] >> 4, 1 << (pdu[0] & 3)
        if command == 5:
            self._write(self.dynamic(b"\x50\x00\x01\x00"))
            return
        number = int.from_bytes(pdu[1:1 + size], "little")
        rest = pdu[1 + size:]
        if command == 1:
            usb = rest.split(b"\0")[0] == b"URBDRC"
            self.refused += usb and self.refuse
            usb = usb and not self.refuse
            if usb:
                self.channels[number] = Channel(number)
            self._write(self.dynamic(pdu[:1 + size] + u32(0 if usb else 0xC0000001)))
        elif command == 4:
            self.closed.append(number)
            self.channels.pop(number, None)
        elif command in (2, 3):
            channel = self.channels.get(number)
            if channel:
                self._channel_data(channel, command, pdu[0] >> 2 & 3, rest)

    def _channel_data(self, channel, command, length_size, rest):
        if command == 2:
            channel.expected = int.from_bytes(rest[:1 << length_size], "little")
            channel.data = rest[1 << length_size:]
        else:
            channel.data += rest
        if len(channel.data) >= channel.expected:
            message, channel.data, channel.expected = channel.data, b"", 0
            self._message(channel, message)

    def _send(self, channel, message):
        """A message on a channel, in pieces of at most 1590 bytes."""
        number = bytes([channel.number])
        if len(message) <= 1590:
            self._write(self.dynamic(b"\x30" + number + message))
            return
        pieces = [self.dynamic(b"\x28" + number + u32(len(message)) + message[:1580])]
        for at in range(1580, len(message), 1580):
            pieces.append(self.dynamic(b"\x30" + number + message[at:at + 1580]))
        self._write(b"".join(pieces))

    # --- MS-RDPEUSB

    def _message(self, channel, message):
        interface, number = struct.unpack("<II", message[:8])
        function = struct.unpack("<I", message[8:12])[0]
        body = message[12:]
        if interface == 0 and function == 0x100:
            self._send(channel, u32(0, number, 1, 0))
        elif interface == 0x40000002 and function == 0x100:
            self._send(channel, u32(0x40000003, number, 0x100, 1, 0, 0))
        elif interface == 0x40000002 and function == 1:
            self._released(channel)
        elif function == 0x101:
            channel.callback = struct.unpack("<I", body[4:8])[0]
        elif function == 0x100:
            number = struct.unpack("<I", body[:4])[0]
            self.cancelled[number] = time.monotonic()
            urb = self.waiting.pop(number, None)
            if urb:
                self.complete(urb, CANCELLED)
        elif function in (0x102, 0x103):
            code, size = struct.unpack("<II", body[:8])
            out, request = struct.unpack("<II", body[8 + size:16 + size])
            self._send(channel, u32(0x40000000 | channel.callback, 0, IOCONTROL_COMPLETION, request, 0, 0, 0))
        elif function in (0x105, 0x106):
            urb = Urb(channel, interface & 0x3FFFFFFF, function == 0x106, body)
            urb.at = time.monotonic()
            self.urbs.append(urb)
            if not self.fault(urb):
                self._carry_out(urb)

    def _released(self, channel):
        if self.control is None:
            self.control = channel
            self.ready.set()
            return
        channel.device = True
        self.devices.append(channel)
        texts = ["usb-1-1", "USB\\VID_1209&PID_0004\0", "USB\\Class_FF\0", "{00000001-0000-0000-0000-000000000000}"]
        body = u32(0x40000001, 0, 0x101, 1, 5)
        for text in texts:
            body += u32(len(text) + 1) + (text + "\0").encode("utf-16-le")
        self._send(channel, body + u32(28, 2, 0x600, 0x200, 0, 1, 0x50))

    def complete(self, urb, status=0, data=None, result=b"", hresult=0, moved=None, kind=None, claim=None, id=None):
        """The answer to a request. data: what an IN brought. moved: the bytes of an OUT. claim: OutputBufferSize."""
        if kind is None:
            kind = URB_COMPLETION if data else URB_COMPLETION_NO_DATA
        size = claim if claim is not None else len(data) if data else moved or 0
        body = u32(0x40000000 | urb.channel.callback, 0, kind, urb.id if id is None else id, 8 + len(result)) \
            + u16(8 + len(result), urb.function) + u32(status) + result + u32(hresult, size) + (data or b"")
        self._send(urb.channel, body)

    def _carry_out(self, urb):
        f = urb.function
        if f == SELECT_CONFIGURATION:
            self.complete(urb, result=u32(CONFIGURATION, 1) + self._interface())
        elif f == SELECT_INTERFACE:
            self.complete(urb, result=self._interface())
        elif f in PIPE_REQUESTS:
            self.complete(urb)
        elif f == GET_FRAME:
            self.complete(urb, result=u32(1))
        elif f == BULK:
            self._transfer(urb)
        else:
            self._control(urb)

    @staticmethod
    def _interface():
        pipes = b"".join(struct.pack("<HBBIIII", size, address, interval, kind, PIPE | address, 0xFFFFFFFF, 0)
                         for address, kind, size, interval in ENDPOINTS)
        return struct.pack("<HBBBBBBII", 16 + len(pipes), 0, 0, 0xFF, 0, 0, 0, 0x01050000, len(ENDPOINTS)) + pipes

    def _transfer(self, urb):
        if urb.out:
            self.looped[urb.endpoint | 0x80].append(urb.data)
            self.complete(urb, moved=urb.length)
        else:
            self.waiting[urb.id] = urb
        for waiting in list(self.waiting.values()):
            if self.looped[waiting.endpoint]:
                del self.waiting[waiting.id]
                self.complete(waiting, data=self.looped[waiting.endpoint].popleft()[:waiting.length])

    def _control(self, urb):
        setup = urb.setup()
        if not setup:
            self.complete(urb, STALL_PID)
            return
        kind, request, value, index = setup
        answer = None
        if (kind, request) == (0x80, 6):
            table = {1: [self.device], 2: [self.configuration], 3: self.texts}.get(value >> 8, [])
            answer = table[value & 255] if value & 255 < len(table) else None
        elif (kind & 0x7F, request) == (0x40, 5):
            answer = bytes([index & 255]) * urb.length if kind & 0x80 else b""
        elif request == 1 and kind == 2 or request == 0:
            answer = bytes(2) if kind & 0x80 else b""
        if answer is None:
            self.complete(urb, STALL_PID)
        else:
            self.complete(urb, data=answer[:urb.length], moved=urb.length if urb.out else None)

    # --- for tests

    def empty(self):
        """Drops the bytes that wait in the device."""
        for queue in self.looped.values():
            queue.clear()

    def wait_urb(self, chosen, seconds=60, what="a request"):
        """The first request that `chosen` accepts, sent after now."""
        start = len(self.urbs)
        return wait_for(lambda: next((u for u in self.urbs[start:] if chosen(u)), None), seconds, what)
