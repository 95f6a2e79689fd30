"""The program under test: starting qrdp, its password file, status, and sanitizer reports."""

import glob
import json
import os
import re
import subprocess

import qemu
from proc import Process

READY = re.compile(r"^READY rdp=(\S+)$", re.M)


def binary():
    """QRDP_BINARY, or the newest of what ./dev builds."""
    given = os.environ.get("QRDP_BINARY")
    if given:
        return given
    made = [p for p in (os.path.join(qemu.BASE, b, "src", "qrdp") for b in ("build-asan", "build"))
            if os.path.exists(p)]
    if not made:
        raise AssertionError("no qrdp program: run ./dev build, or set QRDP_BINARY")
    return max(made, key=os.path.getmtime)


def plain_binary():
    """The program as it is installed, without sanitizers: QRDP_PLAIN_BINARY, or what ./dev build made."""
    path = os.environ.get("QRDP_PLAIN_BINARY") or os.path.join(qemu.BASE, "build", "src", "qrdp")
    if not os.path.exists(path):
        raise AssertionError("no qrdp without sanitizers: run ./dev build, or set QRDP_PLAIN_BINARY")
    return path


def environment(directory):
    """Sanitizers write their reports into directory, where check_clean finds them."""
    # The order of libraries is what a test changes that preloads the libusb stand-in.
    asan = ("log_path=%s/asan:detect_leaks=1:detect_stack_use_after_return=0:"
            "verify_asan_link_order=0" % directory)
    ubsan = "log_path=%s/ubsan:print_stacktrace=1:halt_on_error=0" % directory
    lsan = "print_suppressions=0:suppressions=" + os.path.join(
        os.path.dirname(os.path.abspath(__file__)), "..", "lsan.supp")
    return dict(os.environ, ASAN_OPTIONS=asan, UBSAN_OPTIONS=ubsan, LSAN_OPTIONS=lsan,
                TSAN_OPTIONS="log_path=%s/tsan" % directory, XDG_RUNTIME_DIR=directory,
                HOME=directory, XDG_CONFIG_HOME=directory, XDG_STATE_HOME=directory,
                XDG_DATA_HOME=directory)


def run_once(directory, *arguments, stdin=None, seconds=30):
    """Runs "qrdp ARGUMENTS" to its end; (status, stdout, stderr)."""
    done = subprocess.run([binary()] + [str(a) for a in arguments], timeout=seconds,
                          input=None if stdin is None else stdin.encode(),
                          stdin=subprocess.DEVNULL if stdin is None else None,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(directory))
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def reports(directory):
    """Sanitizer reports written so far: {file: text}."""
    found = {}
    for kind in ("asan", "ubsan", "tsan"):
        for path in glob.glob(os.path.join(directory, kind + ".*")):
            with open(path, errors="replace") as report:
                found[os.path.basename(path)] = report.read()
    return found


class Qrdp:
    """A running qrdp.

    Qrdp(directory, run=[...]) is "qrdp run -- qemu-system-x86_64 ..." with these arguments;
    Qrdp(directory, serve=["--qmp=PATH"]) is "qrdp serve". credentials: (user, password), or None for a
    server without login on loopback. env is added to its environment. directory holds auth, run/ and qrdp.log.
    """

    def __init__(self, directory, run=None, serve=None, credentials=None, options=(), log_level="debug",
                 ready=60, listen="127.0.0.1:0", qemu_program=None,
                 program=None, env=None):
        os.makedirs(directory, exist_ok=True)
        self.directory = directory
        self.run_dir = os.path.join(directory, "run")
        self.log_path = os.path.join(directory, "qrdp.log")
        self.credentials = credentials or (None, None)
        argv = [program or binary(), "run" if run is not None else "serve", "--listen=" + listen, "--print-ready",
                "--run-dir=" + self.run_dir, "--log-level=" + log_level]
        if credentials:
            auth = os.path.join(directory, "auth")
            status, _, error = run_once(directory, "passwd", "--auth-file=" + auth, credentials[0],
                                        stdin=credentials[1] + "\n")
            if status:
                raise AssertionError("qrdp passwd failed: " + error)
            argv.append("--auth-file=" + auth)
        argv += list(options)
        argv += ["--", qemu_program or qemu.QEMU] + list(run) if run is not None else list(serve or ())
        self.process = Process(argv, self.log_path, env=dict(environment(directory), **(env or {})))
        self.address = None
        if ready:
            try:
                self.wait_ready(ready)
            except BaseException:
                self.process.stop()
                raise

    def wait_ready(self, seconds=60):
        """Waits for the READY line; the address clients connect to."""
        self.address = self.process.wait_output(READY, seconds).group(1)
        return self.address

    def log(self):
        return self.process.output()

    def wait_log(self, text, seconds=20):
        """Waits for text (or a compiled pattern) in qrdp's and QEMU's output."""
        return self.process.wait_output(text, seconds)

    def status(self):
        """What "qrdp status --json" says, decoded."""
        code, out, error = run_once(self.directory, "status", "--json", "--run-dir=" + self.run_dir)
        if code:
            raise AssertionError("qrdp status failed: " + error)
        return json.loads(out)

    def status_text(self):
        code, out, error = run_once(self.directory, "status", "--run-dir=" + self.run_dir)
        if code:
            raise AssertionError("qrdp status failed: " + error)
        return out

    def check_clean(self):
        """Fails if a sanitizer has reported anything."""
        found = reports(self.directory)
        if found:
            raise AssertionError("sanitizer reports in %s:\n%s" % (
                self.directory, "\n".join(text[:6000] for text in found.values())))

    def stop(self, seconds=20):
        """Ends qrdp in its orderly way; its exit status."""
        return self.process.stop(seconds)
