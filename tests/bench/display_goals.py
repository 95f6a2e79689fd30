"""What ./dev bench display aims at: ratios of one run, as lines on stdout and with their limits on stderr."""

import sys

from figures import figure

VNC = ("vnc-tight", "vnc-zrle")
SPICE = ("spice", "spice-mjpeg")
VIDEOS = ("video", "fullvideo")
VIDEO_UPDATES = 30    # a second (tests/guest/scene.c)
NEVER = 1e9    # what "-1: never" is in a comparison


class Goals:
    def __init__(self, values):
        self.values, self.lines = values, []

    def of(self, scene, name, peer):
        """A figure, or None if it was not measured."""
        return self.values.get((scene, name, peer))

    def best(self, scene, name, names):
        """The smallest of some peers'."""
        found = [self.of(scene, name, peer) for peer in names if self.of(scene, name, peer) is not None]
        return min(found) if found else None

    def an_update(self, scene, name, peer):
        """What a peer spends on each update of a video that the guest makes, shown or not."""
        spent, frames = self.of(scene, name, peer), self.of(scene, "frames", peer)
        return None if spent is None else spent * frames / VIDEO_UPDATES

    def add(self, name, value, relation, limit, unit="ratio"):
        self.lines.append((name, value, relation, limit))
        figure("display.goal." + name, value, unit)

    def ratio(self, goal, ours, theirs, relation, limit):
        if ours is not None and theirs:
            self.add(goal, ours / theirs, relation, limit)

    def difference(self, goal, ours, theirs, relation, limit, unit):
        if ours is not None and theirs is not None:
            self.add(goal, ours - theirs, relation, limit, unit)

    def limit(self, goal, ours, relation, limit, unit):
        if ours is not None:
            self.add(goal, ours, relation, limit, unit)


def judge(values, options):
    """values: {(scene, figure, peer): value}."""
    goals = Goals(values)
    scenes = [scene for scene in options.scenes if (scene, "frames", "qrdp") in values]
    for scene in scenes:
        goals.ratio("updates." + scene, goals.of(scene, "frames", "qrdp"), goals.of(scene, "frames", "dbus"),
                    ">=", 0.97)
    if options.rtt or options.rate:
        distant(goals, options)
    else:
        latency(goals, options)
        sizes(goals, options)
        if options.vga == "virtio":
            processor(goals)
    for scene in scenes:
        exact = goals.of(scene, "exact_ms", "qrdp")
        goals.limit("exact." + scene, NEVER if exact < 0 else exact, "<=", 500 + options.rtt, "ms")
        moves = "video" in scene and not {"no-h264", "no-gfx"} & set(options.rdp)
        goals.limit("second_viewer." + scene, goals.of(scene, "second_viewer", "qrdp"), "<=", 0.5, "ratio")
        goals.limit("memory." + scene, goals.of(scene, "memory", "qrdp"), "<=", 120 if moves else 60, "MB")
    goals.limit("idle.process", goals.of("idle", "process_ms_per_s", "qrdp"), "<=", 3, "ms/s")
    goals.limit("idle.bytes", goals.of("idle", "bytes_per_s", "qrdp"), "<=", 300, "B/s")
    for name, value, relation, limit in goals.lines:
        reached = value >= limit if relation == ">=" else value <= limit
        print("bench: %-24s %10.4g  %s %-5g %s" % (name, value, relation, limit,
                                                   "reached" if reached else "NOT REACHED"),
              file=sys.stderr, flush=True)


def latency(goals, options):
    for name in ("latency_p50", "latency_p95"):
        goals.difference("latency.idle%s.over_dbus" % name[7:].replace("_", "."), goals.of("idle", name, "qrdp"),
                         goals.of("idle", name, "dbus"), "<=", 5, "ms")
    if options.vga == "virtio":
        goals.ratio("latency.idle.p95.spice", goals.of("idle", "latency_p95", "qrdp"),
                    goals.best("idle", "latency_p95", SPICE), "<=", 0.4)
        goals.ratio("latency.window.p95.best", goals.of("window", "latency_p95", "qrdp"),
                    goals.best("window", "latency_p95", VNC + SPICE), "<=", 0.6)


def distant(goals, options):
    ours = goals.of("video", "latency_p95", "qrdp")
    best = goals.best("video", "latency_p95", VNC + SPICE)
    if ours is not None and best is not None and best > options.rtt:
        goals.add("latency.video.p95.best", (ours - options.rtt) / (best - options.rtt), "<=", 0.5)


def sizes(goals, options):
    def ours(scene):
        return goals.of(scene, "bytes_per_frame", "qrdp")
    goals.ratio("bytes.typing", ours("typing"), goals.best("typing", "bytes_per_frame", SPICE), "<=", 0.8)
    goals.ratio("bytes.scroll", ours("scroll"), goals.of("scroll", "bytes_per_frame", "vnc-tight"), "<=", 0.25)
    goals.ratio("bytes.window", ours("window"), goals.best("window", "bytes_per_frame", VNC), "<=", 0.5)
    h264 = not {"no-h264", "no-gfx"} & set(options.rdp)
    # SPICE shows a fraction of the frames. It must not gain by that, nor qrdp; so with processor time.
    for scene in VIDEOS:
        goals.ratio("bytes." + scene, ours(scene), goals.an_update(scene, "bytes_per_frame", "spice-mjpeg"),
                    "<=", 0.3 if h264 else 1.0)
        goals.difference("ssim." + scene, goals.of(scene, "ssim", "qrdp"), goals.of(scene, "ssim", "spice-mjpeg"),
                         ">=", 0, "ssim")


def processor(goals):
    def ours(scene):
        return goals.of(scene, "cpu_ms_per_frame", "qrdp")
    for scene in VIDEOS:
        goals.ratio("cpu." + scene, ours(scene), goals.an_update(scene, "cpu_ms_per_frame", "spice-mjpeg"), "<=", 1.0)
    for scene in ("scroll", "window"):
        goals.ratio("cpu." + scene, ours(scene), goals.of(scene, "cpu_ms_per_frame", "vnc-tight"), "<=", 0.8)
