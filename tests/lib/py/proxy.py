"""A longer network between two programs: the delay proxy (tests/lib/delay/proxy.c).

    network = proxy.DelayProxy(self.dir, server.address, rtt_ms=20)
    client = self.client(server, address=network.address)
    network.stall()             # nothing passes
    network.resume()
    network.reset()             # RST to both ends

Or in a Rig: network = self.network(server.address, rtt_ms=20), which also stops it.
"""

import os
import select
import subprocess

import qrdp


class Refused(AssertionError):
    """A command was answered with an error, or the proxy has ended."""


def program():
    """delay-proxy: QRDP_DELAY_PROXY, or the one built with the qrdp under test."""
    path = os.environ.get("QRDP_DELAY_PROXY") or os.path.join(
        os.path.dirname(qrdp.binary()), "..", "tests", "lib", "delay-proxy")
    if not os.path.exists(path):
        raise AssertionError("no delay proxy at %s: run ./dev build, or set QRDP_DELAY_PROXY" % path)
    return path


class DelayProxy:
    """Passes connections to address on to target ("127.0.0.1:PORT"), rtt_ms later and back.

    rate_mbit limits each direction (0: no limit). strict: a self-test whose round trip is too long fails,
    too; measurements want that, tests do not. The constructor returns when the self-test has passed;
    measured has its numbers. What only "up" concerns comes from who connected.
    """

    def __init__(self, directory, target, rtt_ms=0, rate_mbit=0, strict=False, name="proxy"):
        self.log_path = os.path.join(directory, name + ".log")
        argv = [program(), "--to=" + target, "--rtt=%g" % rtt_ms, "--rate=%g" % rate_mbit]
        with open(self.log_path, "ab") as log:
            self.child = subprocess.Popen(argv + (["--strict"] if strict else []), stdin=subprocess.PIPE,
                                          stdout=subprocess.PIPE, stderr=log, start_new_session=True)
        try:
            line = self._answer()
            if not line.startswith("READY "):
                raise Refused("the delay proxy: " + line)
            self.measured = _numbers(line)
        except BaseException:
            self.stop()
            raise
        self.address = "127.0.0.1:%d" % self.measured["port"]

    def _answer(self, seconds=120):
        if not select.select([self.child.stdout], [], [], seconds)[0]:
            raise Refused("the delay proxy says nothing for %d s" % seconds)
        line = self.child.stdout.readline().decode().strip()
        if not line:
            with open(self.log_path, errors="replace") as log:
                raise Refused("the delay proxy has ended: " + log.read()[-500:])
        return line

    def command(self, line):
        """Sends one command (see proxy.c); what follows "ok", Refused on "error"."""
        try:
            self.child.stdin.write(line.encode() + b"\n")
            self.child.stdin.flush()
        except OSError as error:
            raise Refused("%s: %s" % (line, error)) from error
        answer = self._answer()
        if not answer.startswith("ok"):
            raise Refused("%s: %s" % (line, answer))
        return answer[2:].strip()

    def stall(self, way=""):
        """Stops forwarding, one way ("up", "down") or both. Nothing is read or accepted either."""
        self.command("stall " + way)

    def resume(self, way=""):
        self.command("resume " + way)

    def reset(self):
        """Resets (RST) both ends of each connection."""
        self.command("reset")

    def close_connections(self):
        """Closes (FIN) both ends of each connection; what was on its way is lost."""
        self.command("close")

    def refuse(self):
        """New connections are refused until accept()."""
        self.command("refuse")

    def accept(self):
        self.command("accept")

    def set_network(self, rtt_ms=None, rate_mbit=None):
        """Another network for what is sent from now on, also on connections that exist."""
        if rtt_ms is not None:
            self.command("rtt %g" % rtt_ms)
        if rate_mbit is not None:
            self.command("rate %g" % rate_mbit)

    def selftest(self):
        """Tests itself again, with the network of now; the numbers (rtt_us, up_us, down_us)."""
        self.measured = _numbers(self.command("selftest"))
        return self.measured

    def stat(self):
        """{"open": 1, "connections": 2, "bound": ..., "up.bytes": ..., "down.held": ..., ...}"""
        return _numbers(self.command("stat"))

    def stop(self):
        """Ends the proxy; its exit status. Connections break."""
        for stream in (self.child.stdin, self.child.stdout):
            try:
                stream.close()
            except OSError:
                pass
        try:
            return self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            return self.child.wait()


def _numbers(text):
    return {k: int(v) for k, v in (word.split("=", 1) for word in text.split() if "=" in word)}
