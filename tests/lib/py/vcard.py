"""A smart card behind QEMU's ccid-card-passthru: the card's end of the VSCard protocol (libcacard's vscard_common.h).

Messages have a header of three big-endian words: type, reader, length.
"""

import struct
import threading

INIT, ERROR, READER_ADD, READER_REMOVE, ATR, CARD_REMOVE, APDU = range(1, 8)
ATR_BYTES = bytes.fromhex("3b6800000073c84012009000")


class Card:
    """Serves one reader on a connected socket, in a thread. answer(apdu) makes the response."""

    def __init__(self, sock, answer):
        self.socket, self.answer, self.apdus = sock, answer, []
        self.buffer = b""
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _send(self, kind, payload):
        self.socket.sendall(struct.pack(">III", kind, 0, len(payload)) + payload)

    def _take(self, size):
        while len(self.buffer) < size:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            self.buffer += data
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        return taken

    def _serve(self):
        try:
            while True:
                kind, _, length = struct.unpack(">III", self._take(12))
                payload = self._take(length)
                if kind == INIT:  # a reader with this card was plugged in; it would answer an INIT with another
                    self._send(READER_ADD, b"qrdp")
                    self._send(ATR, ATR_BYTES)
                elif kind == APDU:
                    self.apdus.append(payload)
                    self._send(APDU, self.answer(payload))
        except (EOFError, OSError):
            pass  # the reader is gone

    def close(self):
        self.socket.close()
        self.thread.join(10)
