"""A client that writes its own bytes: what no stock client sends, for servers without NLA (MS-RDPBCGR 1.3.1.1)."""

import socket
import ssl
import struct

IO_CHANNEL, DRDYNVC, MESSAGES = 1003, 1004, 1005  # FreeRDP numbers the channels in the order we ask for them


def u16(*values):
    return struct.pack("<%dH" % len(values), *values)


def u32(*values):
    return struct.pack("<%dI" % len(values), *values)


def ber(tag, data):
    return tag + b"\x82" + struct.pack(">H", len(data)) + data


def per_length(n):
    return struct.pack(">H", n | 0x8000)


def domain(*numbers):
    return ber(b"\x30", b"".join(b"\x02\x04" + struct.pack(">I", n) for n in numbers))


def capability(kind, data):
    return u16(kind, len(data) + 4) + data


class HostileClient:
    """Each step of the handshake is a method; connect() does them all and leaves an active session.

    .tls is the socket; sendall() on it what you like. detect: it takes part in network auto-detection. graphics: it
    claims the graphics pipeline (MS-RDPEGFX), of which open_graphics() is the beginning.
    """

    def __init__(self, address, seconds=20, receive_buffer=None, detect=False, graphics=False):
        self.detect, self.early = detect, 3 + 0x80 * detect + 0x100 * graphics
        host, port = address.rsplit(":", 1)
        self.tcp = socket.socket()
        if receive_buffer:
            self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.tcp.settimeout(seconds)
        self.tcp.connect((host, int(port)))
        self.tls, self.user, self.share = None, 0, 0x103EA

    def close(self):
        (self.tls or self.tcp).close()

    # --- framing

    def _exactly(self, n):
        data = b""
        while len(data) < n:
            more = (self.tls or self.tcp).recv(n - len(data))
            if not more:
                raise EOFError("the server closed the connection")
            data += more
        return data

    def read(self):
        """The next PDU without its TPKT and X.224 headers; None for a fast-path update."""
        first = self._exactly(2)
        if first[0] == 3:
            length = struct.unpack(">H", self._exactly(2))[0]
            return self._exactly(length - 4)[3:]
        length = first[1]
        if length & 0x80:
            length = (length & 0x7F) << 8 | self._exactly(1)[0]
            self._exactly(length - 3)
        else:
            self._exactly(length - 2)
        return None

    @staticmethod
    def tpkt(data):
        return b"\x03\x00" + struct.pack(">H", len(data) + 4) + data

    def mcs(self, data):
        self.tls.sendall(self.tpkt(b"\x02\xf0\x80" + data))

    def channel_bytes(self, channel, data):
        return self.tpkt(b"\x02\xf0\x80\x64" + struct.pack(">HH", self.user, channel) + b"\x70"
                         + per_length(len(data)) + data)

    def data_pdu(self, kind, body):
        """A Share Data PDU as bytes, to be sent once or a thousand times."""
        pdu = u16(18 + len(body), 0x17, self.user + 1001) + u32(self.share) + b"\x00\x01" \
            + u16(len(body) + 4) + bytes([kind]) + b"\x00" + u16(0) + body
        return self.channel_bytes(IO_CHANNEL, pdu)

    def dynamic(self, pdu):
        """A drdynvc PDU in one chunk."""
        return self.channel_bytes(DRDYNVC, u32(len(pdu), 3) + pdu)

    def detected(self, sequence, kind=0, body=b""):
        """An Auto-Detect Response (2.2.14.2); kind 0: of a round trip, 11: of bandwidth, with body."""
        return self.channel_bytes(MESSAGES, u16(0x2000, 0) + bytes([6 + len(body), 1])
                                  + u16(sequence & 0xFFFF, kind) + body)

    def read_detect(self):
        """(sequence number, type) of the server's next Auto-Detect Request (2.2.14.1); skips all else."""
        while True:
            pdu = self.read()
            if pdu and pdu[0] == 0x68 and struct.unpack(">H", pdu[3:5])[0] == MESSAGES:
                body = pdu[8:] if pdu[6] & 0x80 else pdu[7:]
                return struct.unpack("<HH", body[6:10])

    def open_graphics(self):
        """Answers the server's drdynvc requests until there is the graphics channel; its number. Others are refused."""
        while True:
            pdu = self.read()
            if not pdu or pdu[0] != 0x68 or struct.unpack(">H", pdu[3:5])[0] != DRDYNVC:
                continue
            body = (pdu[8:] if pdu[6] & 0x80 else pdu[7:])[8:]
            if body[0] >> 4 == 5:
                self.tls.sendall(self.dynamic(b"\x50\x00\x01\x00"))
            elif body[0] == 0x10:
                found = body[2:].startswith(b"Microsoft::Windows::RDS::Graphics\0")
                self.tls.sendall(self.dynamic(body[:2] + u32(0 if found else 0xC0000001)))
                if found:
                    return body[1]

    # --- the handshake

    def negotiate(self, protocols=1):
        """X.224; the protocol the server selected, or None if it refused or wants plain RDP."""
        self.tcp.sendall(self.tpkt(b"\x0e\xe0\x00\x00\x00\x00\x00" + b"\x01\x00" + u16(8) + u32(protocols)))
        answer = self.read()
        return answer[8] if len(answer) >= 12 and answer[4] == 2 else None

    def start_tls(self):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.tls = context.wrap_socket(self.tcp)

    def join(self):
        core = u32(0x80004) + u16(800, 600, 0xCA01, 0xAA03) + u32(0x409, 2600) + bytes(32) \
            + u32(4, 0, 12) + bytes(64) + u16(0xCA01, 1) + u32(0) + u16(24, 15, self.early) + bytes(64) \
            + b"\x00\x00" + u32(1)
        blocks = u16(0xC001, len(core) + 4) + core + u16(0xC002, 12) + u32(0, 0) \
            + u16(0xC003, 20) + u32(1) + b"drdynvc\x00" + u32(0xC0800000) \
            + (u16(0xC006, 8) + u32(0) if self.detect else b"")
        gcc = b"\x00\x05\x00\x14\x7c\x00\x01" + per_length(len(blocks) + 14) \
            + b"\x00\x08\x00\x10\x00\x01\xc0\x00Duca" + per_length(len(blocks)) + blocks
        self.mcs(ber(b"\x7f\x65", b"\x04\x01\x01\x04\x01\x01\x01\x01\xff"
                     + domain(34, 2, 0, 1, 0, 1, 65535, 2) + domain(1, 1, 1, 1, 0, 1, 1056, 2)
                     + domain(65535, 64535, 65535, 1, 0, 1, 65535, 2) + ber(b"\x04", gcc)))
        self.read()
        self.mcs(b"\x04\x01\x00\x01\x00")
        self.mcs(b"\x28")
        self.user = struct.unpack(">H", self.read()[2:4])[0]
        for channel in [self.user + 1001, IO_CHANNEL, DRDYNVC] + [MESSAGES] * self.detect:
            self.mcs(b"\x38" + struct.pack(">HH", self.user, channel))
            self.read()

    def log_in(self, user, password):
        texts = [t.encode("utf-16-le") for t in ("", user, password, "", "")]
        info = u32(0, 0x13B) + u16(*[len(t) for t in texts]) + b"".join(t + b"\0\0" for t in texts) \
            + u16(2, 2) + b"\0\0" + u16(2) + b"\0\0" + bytes(172) + u32(0, 0) + u16(0)
        self.tls.sendall(self.channel_bytes(IO_CHANNEL, u32(0x40) + info))

    def wait_demand_active(self):
        while True:
            pdu = self.read()
            if pdu and pdu[0] == 0x68:
                body = pdu[8:] if pdu[6] & 0x80 else pdu[7:]
                if len(body) > 10 and body[2] & 0x0F == 1:
                    self.share = struct.unpack("<I", body[6:10])[0]
                    return

    def confirm_active(self):
        caps = [capability(1, u16(1, 3, 0x200, 0, 0, 0x405, 0, 0, 0) + b"\x01\x01"),
                capability(2, u16(32, 1, 1, 1, 800, 600, 0, 1, 1) + b"\x00\x00" + u16(1, 0)),
                capability(3, bytes(20) + u16(1, 20, 0, 1, 0, 0x2A) + bytes(52)),
                capability(13, u16(0x39, 0) + u32(0x409, 4, 0, 12) + bytes(64)),
                capability(8, u16(1, 20, 20)), capability(20, u32(0)), capability(26, u32(0x20000))]
        body = u32(self.share) + u16(0x3EA, 6, 4 + sum(map(len, caps))) + b"MSTSC\x00" \
            + u16(len(caps), 0) + b"".join(caps)
        self.tls.sendall(self.channel_bytes(IO_CHANNEL, u16(len(body) + 6, 0x13, self.user + 1001) + body))

    def finish(self):
        self.tls.sendall(self.data_pdu(31, u16(1, 1002)) + self.data_pdu(20, u16(4, 0) + u32(0))
                         + self.data_pdu(20, u16(1, 0) + u32(0)) + self.data_pdu(39, u16(0, 0, 3, 0x32)))
        while True:
            pdu = self.read()
            if pdu and len(pdu) > 22 and pdu[0] == 0x68:
                body = pdu[8:] if pdu[6] & 0x80 else pdu[7:]
                if len(body) > 14 and body[2] & 0x0F == 7 and body[14] == 40:  # Font Map
                    return

    def connect(self, user="", password=""):
        if self.negotiate() != 1:
            raise AssertionError("the server does not offer TLS")
        self.start_tls()
        self.join()
        self.log_in(user, password)
        self.wait_demand_active()
        self.confirm_active()
        self.finish()
        return self


def keys(events=255):
    """A fast-path PDU of many key events: Ctrl down and up, over and over."""
    body = b"".join(bytes([i & 1, 0x1D]) for i in range(events))
    return b"\x00" + struct.pack(">H", (len(body) + 4) | 0x8000) + bytes([events]) + body
