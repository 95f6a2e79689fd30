"""What the stand-in's headset has recorded, and what a tone looks like.

    packets = audio.packets(path)                   # [(slot, bytes)]
    frames = audio.stereo(packets)                  # [(left, right)] of all packets
    audio.check_numbers(frames)                     # each frame of the guest's player once, in order
"""

import array
import struct
import sys

NUMBERS = 65535  # tests/guest/sound.c: the right channel counts from 1 to this


def packets(path):
    """(slot, bytes) of each packet in a headset's record file."""
    with open(path, "rb") as file:
        data = file.read()
    result, at = [], 0
    while at + 6 <= len(data):
        slot, length = struct.unpack_from("<IH", data, at)
        if at + 6 + length > len(data):
            break
        result.append((slot, data[at + 6:at + 6 + length]))
        at += 6 + length
    return result


def start_up_gaps(recorded, packets=60):
    """Gaps so soon after the last one, or the beginning, that the stream was still being filled."""
    count, since = 0, 0
    for (before, _), (slot, _) in zip(recorded, recorded[1:]):
        since += 1
        if slot != before + 1:
            count += since < packets
            since = 0
    return count


def samples(data):
    """16-bit little-endian samples."""
    values = array.array("h", data[:len(data) // 2 * 2])
    if sys.byteorder == "big":
        values.byteswap()
    return values


def sounding(recorded):
    """The packets from the first to the last that is not silence."""
    loud = [i for i, (_, data) in enumerate(recorded) if any(data)]
    return recorded[loud[0]:loud[-1] + 1] if loud else []


def check_numbers(recorded, jumps=0):
    """Every frame that the player has numbered is there once, in order; returns how many frames that were.

    Frames of silence, which the guest's driver puts in when the player is late, do not count. jumps: as often
    the guest has thrown some away itself (xruns of the player).
    """
    last, count = None, 0
    for _, data in recorded:
        for number in samples(data)[1::2]:
            number &= 0xffff
            if number == 0:
                continue
            if last is not None and number != last % NUMBERS + 1:
                jumps -= 1
                if jumps < 0:
                    raise AssertionError("frame %d: number %d comes after %d" % (count, number, last))
            last = number
            count += 1
    return count


def frequency(values, seconds):
    """Rising zero crossings per second."""
    crossings = sum(1 for a, b in zip(values, values[1:]) if a < 0 <= b)
    return crossings / seconds
