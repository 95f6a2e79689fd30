"""A headset at the client, played and recorded by a Linux guest through snd-usb-audio."""

import base64
import os
import re

import audio
import standin
from rig import SharedRig, full, say
from wait import wait_for


class AudioTest(SharedRig):
    @classmethod
    def start(cls):
        cls.server, cls.vm = cls.shared.run_vm()

    def headset(self, network=None, **options):
        """A connected client with a headset that the guest has found; (stand-in, its record, the client)."""
        record = self.path("speaker.record")
        usb = standin.Standin(self.dir, [standin.spec("headset", record=record, **options)])
        address = self.network(self.server.address, rtt_ms=network).address if network else None
        client = self.client(self.server, ["/usb:id:" + standin.IDS["headset"]], env=usb.env, address=address)
        self.wait_guest("pcmC0D0p")
        self.addCleanup(self.gone, client)
        return usb, record

    def wait_guest(self, node):
        wait_for(lambda: node in self.vm.agent.run("ls /dev/snd 2>/dev/null; true", 30)[1], 90,
                 "%s in the guest" % node)

    def gone(self, client):
        client.stop()
        wait_for(lambda: "pcmC" not in self.vm.agent.run("ls /dev/snd 2>/dev/null; true", 30)[1], 60,
                 "the headset to leave the guest")

    def sound(self, arguments, seconds):
        code, out = self.vm.agent.run("sound " + arguments, seconds)
        self.assertEqual(code, 0, out)
        return {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", out)}

    def figures(self, direction):
        device = self.server.status()["usb"]["devices"][-1]
        return device.get(direction, {})

    def play(self, usb, record, rate, milliseconds, limit, network=0):
        """Plays a tone and checks what the headset got. Returns whose the gaps were at the headset, and qrdp's figures.
        """
        played, marked = len(audio.packets(record)), len(self.server.log())
        before = usb.log("headset").get("ep01.packets", 0)
        told = self.sound("play pcmC0D0p %d %d" % (rate, milliseconds), limit)
        usb.wait_log("headset", lambda log: log["ep01.queued"] == 0)
        usb.command("audio headset")
        log = usb.log("headset")
        self.assertEqual(log["violations"], 0, log)
        recorded = audio.packets(record)
        heard = audio.sounding(recorded[played:])
        frames = audio.check_numbers(heard, told["xruns"])
        if told["xruns"] == 0:
            self.assertEqual(frames, told["frames"], "frames that the headset has got")
        # One packet is a millisecond at the device: how many of them the tone took says its pitch.
        loud = [data for _, data in heard if any(data)]
        left = audio.samples(b"".join(loud))[0::2]
        pitch = audio.frequency(left, len(loud) / 1000)
        self.assertTrue(990 <= pitch <= 1010, "the tone has %.1f Hz" % pitch)
        wait_for(lambda: self.figures("iso_out").get("delivered", 0) >= log["ep01.packets"], 20,
                 "qrdp's own figures")
        figures = self.figures("iso_out")
        self.assertEqual(figures["packets"], len(recorded), "packets from QEMU, and at the headset")
        self.assertEqual((figures["failed"], figures["dropped"]), (0, 0))
        with open(os.path.join(self.dir, "standin.log")) as trace:
            gaps = audio.whose_gaps(trace.read(), self.server.log()[marked:], network * 1000, before)
        trip = self.server.status()["usb"]["devices"][-1]["round_trip_us"]
        say("%d Hz, %d ms: %.1f Hz heard, %d packets; gaps at the headset %s; qrdp counts %s; lead %d ms, "
            "round trip %.1f ms, %d xruns in the guest" % (
                rate, milliseconds, pitch, len(recorded) - played, gaps,
                {key[5:]: value for key, value in figures.items() if key.startswith("gaps_")},
                figures["lead_us"] / 1000, trip / 1000, told["xruns"]))
        return gaps, figures

    def play_half_a_minute(self, usb, record, rate, most, network=0):
        """No more than most gaps are qrdp's, by the headset's clock and by qrdp's own count."""
        gaps, figures = self.play(usb, record, rate, 30000, 300, network)
        self.assertLessEqual(gaps["qrdp"], most, gaps)
        self.assertLessEqual(figures["gaps_own"], most, figures)
        self.assertEqual(figures["gaps_limit"], 0, figures)
        return figures

    def test_48000(self):
        usb, record = self.headset()
        self.play(usb, record, 48000, 3000, 120)

    def test_44100(self):
        usb, record = self.headset()
        self.play(usb, record, 44100, 3000, 120)
        self.assertEqual({len(data) for _, data in audio.packets(record)}, {176, 180})

    def test_microphone(self):
        usb, _ = self.headset()
        self.sound("record pcmC0D0c 48000 2000 /tmp/recorded", 120)
        wait_for(lambda: self.figures("iso_in").get("packets", 0) > 2000, 20, "qrdp's own figures")
        log, figures = usb.log("headset"), self.figures("iso_in")
        self.assertEqual(log["violations"], 0, log)
        self.assertEqual((figures["failed"], figures["dropped"]), (0, 0))
        data = base64.b64decode(self.vm.agent.shell("base64 /tmp/recorded; rm /tmp/recorded", 60))
        values = audio.samples(data)
        self.assertEqual(len(values), 2 * 48000)
        # The tone repeats after 48 samples; QEMU gives the guest empty packets while it has too few.
        steady = sum(1 for a, b in zip(values, values[48:]) if a == b and (a or b))
        pitch = audio.frequency(values, len(values) / 48000)
        say("2000 ms: %.1f Hz recorded, %.1f %% without a break; %d gaps at the device" % (
            pitch, 100 * steady / len(values), log["ep82.gaps"]))
        self.assertGreater(steady, 0.8 * len(values))
        self.assertTrue(970 <= pitch <= 1010, "the tone has %.1f Hz" % pitch)

    @full
    def test_half_a_minute(self):
        usb, record = self.headset()
        self.play_half_a_minute(usb, record, 48000, 0)

    @full
    def test_half_a_minute_50_ms(self):
        usb, record = self.headset(network=50)
        figures = self.play_half_a_minute(usb, record, 44100, 1, network=50)
        self.assertGreater(figures["lead_us"], 100000)

    @full
    def test_asynchronous(self):
        usb, record = self.headset(sync="async")
        self.play(usb, record, 48000, 5000, 120)
        self.assertGreater(usb.log("headset")["ep83.packets"], 1000)

    @full
    def test_high_speed(self):
        usb, record = self.headset(speed="high")
        self.play(usb, record, 48000, 5000, 120)
