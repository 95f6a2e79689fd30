"""Media Transfer Protocol containers (PTP over USB, PIMA 15740 annex D): just enough to list and read objects."""

import struct

COMMAND, DATA, RESPONSE = 1, 2, 3
OPEN_SESSION, GET_OBJECT_HANDLES, GET_OBJECT_INFO, GET_OBJECT = 0x1002, 0x1007, 0x1008, 0x1009
OK = 0x2001
ALL = 0xffffffff


def command(code, transaction, *parameters):
    body = struct.pack("<%dI" % len(parameters), *parameters)
    return struct.pack("<IHHI", 12 + len(body), COMMAND, code, transaction) + body


def container(data):
    """(type, code, payload) of one container."""
    length, kind, code, _ = struct.unpack("<IHHI", data[:12])
    if length != len(data):
        raise AssertionError("a container of %d bytes claims %d" % (len(data), length))
    return kind, code, data[12:]


def words(payload):
    """An array of 32-bit numbers."""
    count, = struct.unpack("<I", payload[:4])
    return list(struct.unpack("<%dI" % count, payload[4:4 + 4 * count]))


def file_name(info):
    """The name in an ObjectInfo data set."""
    length = info[52]
    return info[53:53 + 2 * length].decode("utf-16-le").rstrip("\0")
