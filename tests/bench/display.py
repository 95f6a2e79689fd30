#!/usr/bin/env python3
"""./dev bench display: how well qrdp shows a moving screen, next to QEMU's own VNC and SPICE servers.

A guest plays scenes, the same for everyone; each peer's viewer says what arrived and when. All peers take turns in
one run, scene by scene. docs/benchmarks.md says what the figures mean. One scene and two peers, without building:

    QRDP_BINARY=build/src/qrdp tests/bench/display.py --peers=qrdp,dbus --scenes=scroll --seconds=3
"""

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "lib", "py"))

import peers
import rig
from display_goals import judge
from figures import figure, percentile, progress
from peers import NAMES, NONE, now_us
from wait import wait_for

SCENES = ("idle", "typing", "scroll", "window", "video", "fullvideo", "desktop")
LATENCY = {False: ("idle", "window"), True: ("idle", "window", "video")}    # by: is there a network
SETTLE = 0.8        # seconds that are still counted after the last update
QUIET = 3.5         # seconds in which the picture must become the guest's
STEAL = 0.1         # of the processors' time; a scene with more is played again
PATIENCE = 20       # seconds until what was not exact by then must at least be similar
SECOND = ("scroll", "window", "video")    # where a second viewer's cost is measured
SECOND_TURNS = 4    # with one viewer and with two: a film's stream may take another preset each time
CODE_SIDE = 32      # pixels: the number of a frame (tests/guest/scene.c)
SIMILAR = 0.9       # SSIM below which a picture is another picture


class Bench:
    """What was asked for, and the machines."""

    def __init__(self, directory, stack, options):
        self.directory, self.stack = directory, stack
        self.size = (1280, 800)
        self.vga, self.rtt, self.rate = options.vga, options.rtt, options.rate
        self.options = options
        self.servers = {}
        for peer in options.peers + [NONE]:
            name = peers.MACHINES.get(peer, peer)
            if name not in self.servers:
                progress("starting the machine for " + name)
                self.servers[name] = peers.Server(self, name)
        self.values = {}    # (scene, figure, peer): one value a round

    def path(self, *names):
        return os.path.join(self.directory, *names)

    def server(self, peer):
        return self.servers[peers.MACHINES.get(peer, peer)]

    def note(self, scene, peer, **figures):
        for name, value in figures.items():
            self.values.setdefault((scene, name, peer), []).append(value)


class Played:
    """One scene for one peer."""

    def __init__(self, bench, scene, peer):
        self.bench, self.scene, self.peer = bench, scene, peer
        self.server = bench.server(peer)
        self.agent = self.server.agent
        self.seconds = bench.options.seconds
        self.viewer = None

    def run(self):
        """Plays it, at most three times if the host took the processors away; notes the best."""
        self.server.qmp.command("cont")
        try:
            tries = []
            while not tries or (tries[-1]["steal"] > STEAL and len(tries) < 3):
                tries.append(self.once())
            found = min(tries, key=lambda t: t.pop("steal"))
            self.bench.note(self.scene, self.peer, **found)
            if self.peer == "qrdp" and self.scene in SECOND and not self.server.network and self.shares():
                self.second_viewer()
        finally:
            if self.viewer:
                self.viewer.stop()
            self.server.qmp.command("stop")

    def set_scene(self, block=False):
        words = self.agent.ask("scene", self.scene + (" block" if block else ""), seconds=120).split()
        self.area, self.fps, self.codes = words[:4], int(words[4]), words[5:]

    def once(self):
        self.set_scene()
        if self.peer == NONE:
            start = self.start()
            self.finish(start)
            return {"serving": self.spent(start)[0], "steal": steal_since(start)}
        if not self.viewer:
            self.viewer = self.server.viewer(self.peer, self.bench.options.rdp)
        if not peers.wait_same(self.server, self.viewer, 10):
            progress("%s, %s: the still picture is not exact after 10 s" % (self.scene, self.peer))
            self.same_picture()
        self.viewer.ask("reset", *self.codes)
        updates = int(self.seconds * self.fps)
        if self.codes:
            self.viewer.ask("grab", *(updates * share // 10 for share in (3, 5, 7)))
        start = self.start()
        frame, end = self.finish(start)
        found = self.counted(start)
        found.update(exact_ms=self.exact(end))
        self.check(frame, found)
        if self.codes:
            found.update(self.similarity())
        if self.scene in LATENCY[bool(self.server.network)]:
            found.update(self.latency())
        found["steal"] = steal_since(start)
        return found

    def shares(self):
        """Whether the RDP viewer has graphics pipeline, whose streams are shared."""
        return not any(word == "no-gfx" or word.startswith("bpp=") for word in self.bench.options.rdp)

    def second_viewer(self):
        """Notes what qrdp spends more on an update with a second viewer, in turns with one viewer."""
        spent = {1: [], 2: []}
        for turn in range(2 * SECOND_TURNS):
            viewers = 1 + turn % 2
            other = self.server.viewer(self.peer, self.bench.options.rdp) if viewers == 2 else None
            try:
                self.set_scene()
                for viewer in (self.viewer, other) if other else (self.viewer,):
                    peers.wait_same(self.server, viewer, 10)
                if other:
                    wait_for(self.server.shared, 30, "the two viewers to share")
                self.viewer.ask("reset", *self.codes)
                start = self.start()
                self.finish(start)
                shown = float(self.viewer.ask("stat")["frames" if self.codes else "updates"])
                spent[viewers].append(self.spent(start)[1] / shown)
            finally:
                if other:
                    other.stop()
        self.bench.note(self.scene, self.peer,
                        second_viewer=sum(spent[2]) / sum(spent[1]) - 1)

    def start(self):
        start = {"serving": self.server.serving(), "program": self.server.program(), "stat": processor_times(),
                 "time": time.monotonic()}
        start["play"] = self.agent.start("play", "%g" % self.seconds)
        return start

    def finish(self, start):
        """Waits for the end of the scene and SETTLE; the last frame and when it was drawn."""
        status, text = self.agent.finish(start["play"], self.seconds * 3 + 20)
        end = now_us()
        assert status == 0, text
        if self.viewer:
            self.viewer.ask("watch")
        time.sleep(max(0, end / 1e6 + SETTLE - time.monotonic()))
        frame, late = (int(word) for word in text.split())
        if late:
            progress("%s, %s: the guest was late for %d updates" % (self.scene, self.peer, late))
        return frame, end

    def spent(self, start):
        return self.server.serving() - start["serving"], self.server.program() - start["program"]

    def counted(self, start):
        serving, program = self.spent(start)
        stat = {name: float(text) for name, text in self.viewer.ask("stat").items()}
        frames = stat["frames"] if self.codes else stat["updates"]
        found = {"count": frames, "frames": frames / self.seconds, "serving": serving,
                 "bytes_per_s": stat["bytes"] / self.seconds}
        if frames:
            found["bytes_per_frame"] = stat["bytes"] / frames
        if self.peer == "qrdp":
            found["process_ms_per_s"] = program * 1000 / self.seconds
            found["memory"] = self.server.memory()
        return found

    def exact(self, end):
        """Milliseconds from the last update until the picture was the guest's, and stayed that; -1: never."""
        wanted = "%08x" % self.agent.screen()[2]
        while now_us() < end + QUIET * 1e6 and self.viewer.ask("hash")["hash"] != wanted:
            time.sleep(0.02)
        time.sleep(0.02)    # a viewer takes a rest before it remembers
        seen = [pair.split(":") for pair in self.viewer.ask("watched")["at"].split(",")]
        if seen[-1][1] != wanted:
            return -1
        while len(seen) > 1 and seen[-2][1] == wanted:
            seen.pop()
        return max(0, int(seen[-1][0]) - end) / 1000

    def check(self, frame, found):
        """A scene whose pixels did not reach the viewer is no measurement. Who is slow may take PATIENCE."""
        if not found["count"]:
            raise AssertionError("%s, %s: no update reached the viewer" % (self.scene, self.peer))
        if self.codes:
            wait_for(lambda: int(self.viewer.ask("reset", *self.codes)["number"]) == frame, PATIENCE,
                     "%s, %s: the viewer to show frame %d" % (self.scene, self.peer, frame))
        if found["exact_ms"] < 0:
            self.same_picture()

    def compare(self, index, area):
        """SSIM of the viewer's copy (-1: its picture) and what the guest shows now."""
        dump = self.server.screendump(self.bench.path("screen.ppm"))
        return float(self.viewer.ask("compare", index, dump, *area)["ssim"])

    def same_picture(self):
        wait_for(lambda: self.compare(-1, (0, 0) + self.bench.size) >= SIMILAR, PATIENCE,
                 "%s, %s: the viewer's picture to be the guest's" % (self.scene, self.peer))

    def similarity(self):
        """Copies made while the scene moved, against the same frames drawn again; the best one."""
        grabbed = self.viewer.ask("grabbed")["frames"]
        found = [self.similarity_of(index, numbers.split(":"))
                 for index, numbers in enumerate(grabbed.split(",") if grabbed else [])]
        if not found:
            progress("%s, %s: never at rest for a copy, no SSIM" % (self.scene, self.peer))
        return {"ssim": max(found)} if found else {}

    def similarity_of(self, index, numbers):
        """Of all that moves if that shows one frame, else of the columns with a code, each with its own frame."""
        x, y, width, height = self.area
        areas = [(code_x, y, CODE_SIDE, height) for code_x in self.codes[::2]]
        if len(set(numbers)) == 1:
            numbers, areas = numbers[:1], [self.area]
        ratios = []
        for number, area in zip(numbers, areas):
            self.agent.ask("show", number, seconds=60)
            ratios.append(self.compare(index, area))
        return sum(ratios) / len(ratios)

    def latency(self):
        self.set_scene(block=True)
        if not peers.wait_same(self.server, self.viewer, 5):
            self.same_picture()
        play = self.agent.start("play", "3600")
        answer = self.viewer.ask("latency", self.bench.options.presses, *peers.BLOCK)
        self.agent.ask("stop")
        self.agent.finish(play)
        if int(answer["lost"]):
            progress("%s, %s: %s key presses were never seen" % (self.scene, self.peer, answer["lost"]))
        samples = [int(us) / 1000 for us in answer["samples"].split(",") if us]
        assert len(samples) > self.bench.options.presses // 2, "key presses do not reach the viewer: %r" % answer
        return {"latency": samples}


def processor_times():
    """(all, stolen) of the host's processors, in ticks."""
    with open("/proc/stat") as stat:
        times = [int(word) for word in stat.readline().split()[1:9]]
    return sum(times), times[7]


def steal_since(start):
    total, stolen = processor_times()
    return (stolen - start["stat"][1]) / max(1, total - start["stat"][0])


UNITS = {"frames": "1/s", "bytes_per_frame": "B", "bytes_per_s": "B/s", "cpu_ms_per_frame": "ms",
         "latency_p50": "ms", "latency_p95": "ms", "exact_ms": "ms", "ssim": "ratio",
         "second_viewer": "ratio", "process_ms_per_s": "ms/s",
         "memory": "MB"}


def results(bench, scene):
    """The figures of a scene, {(figure, peer): value}: medians of the rounds."""
    found = {}
    idle = percentile(bench.values[scene, "serving", NONE], 50)
    for (of, name, peer), values in bench.values.items():
        if of != scene or peer == NONE or name == "count":
            continue
        if name == "latency":
            samples = [sample for value in values for sample in value]
            found["latency_p50", peer] = percentile(samples, 50)
            found["latency_p95", peer] = percentile(samples, 95)
        elif name == "serving":
            counts = bench.values[scene, "count", peer]
            found["cpu_ms_per_frame", peer] = percentile(
                [(value - idle) * 1000 / count for value, count in zip(values, counts)], 50)
        elif name == "exact_ms":
            found[name, peer] = -1 if min(values) < 0 else percentile(values, 50)
        else:
            found[name, peer] = percentile(values, 50)
    return found


def parse(arguments):
    def several(of):
        def check(text):
            wrong = [word for word in text.split(",") if word not in of]
            if wrong:
                raise argparse.ArgumentTypeError("%s is none of %s" % (wrong[0], ", ".join(of)))
            return text.split(",")
        return check
    parser = argparse.ArgumentParser(prog="./dev bench display", description="Measures displays; see "
                                     "docs/benchmarks.md.")
    parser.add_argument("--scenes", type=several(SCENES), default=list(SCENES), help=", ".join(SCENES))
    parser.add_argument("--peers", type=several(NAMES), default=list(NAMES), help=", ".join(NAMES))
    parser.add_argument("--seconds", type=float, help="how long a scene is played (5)")
    parser.add_argument("--rounds", type=int, help="how often (2)")
    parser.add_argument("--short", action="store_true", help="3 seconds, once, fewer key presses")
    parser.add_argument("--rtt", type=float, default=0, metavar="MS", help="a longer network, by the delay proxy")
    parser.add_argument("--rate", type=float, default=0, metavar="MBIT", help="a slower one")
    parser.add_argument("--vga", choices=("virtio", "std"), default="virtio", help="the guest's display")
    parser.add_argument("--rdp", type=several(("no-h264", "no-gfx", "no-rfx", "bpp=15", "bpp=16", "bpp=24")), default=[],
                        help="what the RDP viewer cannot do: no-h264, no-gfx, no-rfx; other depths than bpp=N")
    options = parser.parse_args(arguments)
    options.seconds = options.seconds or (3 if options.short else 5)
    options.rounds = options.rounds or (1 if options.short else 2)
    options.presses = 20 if options.short else 50
    return options


def measure(directory, arguments):
    options = parse(arguments)
    with contextlib.ExitStack() as stack:
        bench = Bench(directory, stack, options)
        everything = {}
        for scene in options.scenes:
            for turn in range(options.rounds):
                progress("scene %s, round %d of %d" % (scene, turn + 1, options.rounds))
                for peer in [NONE] + options.peers:
                    Played(bench, scene, peer).run()
            for (name, peer), value in sorted(results(bench, scene).items()):
                everything[scene, name, peer] = value
                figure("display.%s.%s.%s" % (scene, name, peer), value, UNITS[name])
        judge(everything, options)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parse(sys.argv[1:])    # before anything is made
    directory = tempfile.mkdtemp(prefix="qrdp-b")
    progress("logs are in " + directory)
    measure(directory, sys.argv[1:])
    rig.remove(directory)


if __name__ == "__main__":
    main()
