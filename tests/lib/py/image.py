"""Pictures: reading PPM and XWD, comparing, writing PNG. Pixels are packed R, G, B bytes."""

import struct
import zlib


class Image:
    def __init__(self, width, height, rgb):
        assert len(rgb) == width * height * 3
        self.width, self.height, self.rgb = width, height, bytes(rgb)

    @property
    def size(self):
        return (self.width, self.height)

    def pixel(self, x, y):
        at = (y * self.width + x) * 3
        return tuple(self.rgb[at:at + 3])

    def crop(self, x, y, width, height):
        rows = [self.rgb[((y + r) * self.width + x) * 3:][:width * 3] for r in range(height)]
        return Image(width, height, b"".join(rows))

    def crc(self):
        """Comparable with the CRC of the guest agent's fbhash."""
        return zlib.crc32(self.rgb)

    def colors(self, at_least=2):
        """How many different colours there are (counting stops at at_least)."""
        seen = set()
        for at in range(0, len(self.rgb), 3):
            seen.add(self.rgb[at:at + 3])
            if len(seen) >= at_least:
                break
        return len(seen)

    def difference(self, other):
        """None if equal, else a sentence with the number of different pixels and the first of them."""
        if self.size != other.size:
            return "sizes differ: %dx%d and %dx%d" % (self.size + other.size)
        if self.rgb == other.rgb:
            return None
        count, first = 0, None
        for y in range(self.height):
            row = slice(y * self.width * 3, (y + 1) * self.width * 3)
            a, b = self.rgb[row], other.rgb[row]
            if a == b:
                continue
            for x in range(self.width):
                if a[3 * x:3 * x + 3] != b[3 * x:3 * x + 3]:
                    count += 1
                    first = first or (x, y)
        return "%d pixels differ, the first at %d,%d: %s and %s" % (
            count, first[0], first[1], self.pixel(*first), other.pixel(*first))

    def worst(self, other):
        """The largest difference of any colour component (for lossy codecs)."""
        return max(abs(a - b) for a, b in zip(self.rgb, other.rgb))

    def save_png(self, path):
        def chunk(kind, data):
            return (struct.pack(">I", len(data)) + kind + data +
                    struct.pack(">I", zlib.crc32(kind + data)))
        stride = self.width * 3
        rows = b"".join(b"\0" + self.rgb[y * stride:(y + 1) * stride] for y in range(self.height))
        with open(path, "wb") as png:
            png.write(b"\x89PNG\r\n\x1a\n" +
                      chunk(b"IHDR", struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)) +
                      chunk(b"IDAT", zlib.compress(rows, 6)) + chunk(b"IEND", b""))


def _rgb_from_bgrx(data):
    rgb = bytearray(len(data) // 4 * 3)
    rgb[0::3], rgb[1::3], rgb[2::3] = data[2::4], data[1::4], data[0::4]
    return rgb


def read_ppm(data):
    """A binary PPM with 8 bits per component, as QEMU's screendump writes it."""
    fields, at = [], 0
    while len(fields) < 4:
        while data[at:at + 1].isspace():
            at += 1
        if data[at:at + 1] == b"#":
            at = data.index(b"\n", at)
            continue
        end = at
        while not data[end:end + 1].isspace():
            end += 1
        fields.append(data[at:end])
        at = end
    width, height, depth = (int(f) for f in fields[1:])
    if fields[0] != b"P6" or depth != 255:
        raise ValueError("not a binary 8-bit PPM")
    body = data[at + 1:]
    stride = (width * 3 + 3) & ~3
    if len(body) != stride * height:
        stride = width * 3
    # QEMU pads each row to four bytes, against the format's definition.
    return Image(width, height, b"".join(
        body[y * stride:y * stride + width * 3] for y in range(height)))


def read_xwd(data):
    """An X window dump (version 7) of a 24-bit TrueColor window on a little-endian server."""
    header = struct.unpack(">25I", data[:100])
    size, version, kind, _, width, height, _, order = header[:8]
    bits, stride, red, colors = header[11], header[12], header[14], header[19]
    if version != 7 or kind != 2 or order != 0 or bits != 32 or red != 0xff0000:
        raise ValueError("not an XWD of a 24-bit TrueColor window")
    at = size + colors * 12
    return Image(width, height, _rgb_from_bgrx(b"".join(
        data[at + y * stride:at + y * stride + width * 4] for y in range(height))))
