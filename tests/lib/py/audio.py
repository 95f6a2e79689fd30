"""What the stand-in's headset and QEMU's usb-audio have recorded, and what a tone looks like.

    packets = audio.packets(path)                   # [(slot, bytes)]
    frames = audio.stereo(packets)                  # [(left, right)] of all packets
    audio.check_numbers(frames)                     # each frame of the guest's player once, in order
"""

import array
import re
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


SLACK_US = 5000  # usb/device_iso_priv.h: ISO_SLACK_US
GAP = re.compile(r"^\S+ headset: ep 01 GAP of (\d+) slots at \d+, before packet (\d+), dry since (\S+)$", re.M)
REQUEST = re.compile(r"packets (\d+) to (\d+): came at (\d+), left at (\d+), due at \d+, no processor for (\d+) us")
REFILL = re.compile(r"packet (\d+): too late by (\d+) us, QEMU by (-?\d+) us, here for (\d+) us, "
                    r"no processor for (\d+) us")


def whose_gaps(trace, log, round_trip_us, since=0):
    """{whose: number of gaps at the headset from packet number since on}; how it is decided: usb/device_isogap.c.

    trace: the stand-in's, whose frame clock says since when the headset had nothing. log: qrdp's, about this
    headset: when each packet came from QEMU and when it left. Both clocks are the machine's monotonic one.
    """
    requests = [tuple(map(int, found)) for found in REQUEST.findall(log)]
    refills = {int(found[0]): tuple(map(int, found[1:])) for found in REFILL.findall(log)}
    count = dict.fromkeys(("guest", "host", "network", "qrdp"), 0)
    for slots, packet, dry in GAP.findall(trace):
        packet, due = int(packet), float(dry) * 1e6 - round_trip_us / 2 - SLACK_US
        if packet < since:
            continue
        _, _, came, left, waited = next(r for r in requests if r[0] <= packet <= r[1])
        if left <= due:
            whose = "network"  # or the client: it was on its way in time
        elif packet in refills:
            missed, late, here, waited = refills[packet]
            whose = (("guest" if late >= 60000 else "network") if here < missed else
                     "host" if missed <= waited else "qrdp")
        elif came > due:
            whose = "network"  # QEMU was late, but within what the lead is for: the headset had less than that
        else:
            whose = "host" if left - waited <= due else "qrdp"
        count[whose] += 1
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


def heard(path):
    """The (left, right) samples that QEMU's usb-audio has been given, of a file of `-audiodev wav`; without silence.

    Nothing is written while it has nothing to play.
    """
    with open(path, "rb") as file:
        values = samples(file.read()[44:])  # behind the header, which is complete only in the end
    return [frame for frame in zip(values[0::2], values[1::2]) if any(frame)]


def breaks(frames):
    """(frames left out, places where that is, starts of the player) in what heard() returns.

    By the player's numbers on the right, which have become sixteen seventeenths of themselves: usb-audio's volume is
    240 of 255 until somebody changes it.
    """
    lost, places, starts, last = 0, 0, 1, 0
    for _, value in frames:
        number = round(value * 17 / 16) % (NUMBERS + 1)
        step, last = (number - last) % NUMBERS, number
        if step > NUMBERS // 2:
            starts += 1
        elif step > 3:  # more than rounding makes of 1
            lost, places = lost + step - 1, places + 1
    return lost, places, starts


def frequency(values, seconds):
    """Rising zero crossings per second."""
    crossings = sum(1 for a, b in zip(values, values[1:]) if a < 0 <= b)
    return crossings / seconds
