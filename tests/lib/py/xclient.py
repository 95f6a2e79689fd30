"""The stock client, xfreerdp3, on a virtual X server: starting it, seeing its window, using it."""

import os
import re
import subprocess

import image
from proc import Process
from wait import wait_for, wait_still

XFREERDP = os.environ.get("QRDP_XFREERDP") or "xfreerdp3"


class Program:
    """A stock client's program. argv: what starts it, such as a script that enters another system first.

    freerdp2: it has the command line of FreeRDP 2, which takes only the password through stdin.
    """

    def __init__(self, argv=(XFREERDP,), freerdp2=False):
        self.argv, self.freerdp2 = list(argv), freerdp2

    def start(self, options, user, password, log_path, env):
        """Runs it with these options; no password is ever in the list of processes."""
        options = list(options) + ["/u:" + (user or "")]
        if self.freerdp2:
            argv, text = self.argv + options + ["/d:", "/from-stdin:force"], (password or "") + "\n"
        else:
            argv = self.argv + ["/args-from:stdin"]
            text = "\n".join(options + ["/p:" + (password or "")]) + "\n"
        return Process(argv, log_path, env=env, stdin_text=text)


class Display:
    """An Xvfb on a free display number. Has no window manager: windows are where they are put."""

    def __init__(self, directory, width=1920, height=1200):
        os.makedirs(directory, exist_ok=True)
        self.directory = directory
        reader, writer = os.pipe()
        self.process = Process(
            ["Xvfb", "-displayfd", str(writer), "-screen", "0", "%dx%dx24" % (width, height),
             "-nolisten", "tcp", "-noreset"], os.path.join(directory, "xvfb.log"), pass_fds=[writer])
        os.close(writer)
        with os.fdopen(reader) as pipe:
            number = pipe.readline().strip()
        if not number:
            raise AssertionError("Xvfb did not start: " + self.process.output())
        self.name = ":" + number
        self.env = dict(os.environ, DISPLAY=self.name)

    def tool(self, *argv, check=True):
        """Runs an X tool on this display; its output as text."""
        done = subprocess.run([str(a) for a in argv], env=self.env, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE)
        if check and done.returncode:
            raise AssertionError("%s: %s" % (" ".join(map(str, argv)), done.stderr.decode().strip()))
        return done.stdout.decode(errors="replace")

    def screenshot(self, window="root"):
        argv = ["xwd", "-silent", "-nobdrs"] + (["-root"] if window == "root" else ["-id", window])
        done = subprocess.run(argv, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if done.returncode:
            raise AssertionError("xwd: " + done.stderr.decode().strip())
        return image.read_xwd(done.stdout)

    def stop(self):
        return self.process.stop()


class Client:
    """An unmodified xfreerdp3, or what program says. Its log is DIRECTORY/NAME.log; credentials go in through stdin.

    args: more options, such as "/usb:id:1234:5678" or "/gfx:RFX". env: additions to its environment,
    such as standin.Standin(...).env. Use as: connect() or wait_exit(), then the rest, then stop().
    """

    def __init__(self, display, directory, address, user=None, password=None, args=(), env=None,
                 size=(1280, 800), name="client", log_level="INFO", program=None):
        os.makedirs(directory, exist_ok=True)
        self.display = display
        self.title = "qrdp-test-%s-%d" % (name, id(self))
        home = os.path.join(directory, name + "-home")
        os.makedirs(home, exist_ok=True)
        environment = dict(display.env, HOME=home, XDG_CONFIG_HOME=home, XDG_CACHE_HOME=home)
        environment.update(env or {})
        options = ["/v:" + address, "/cert:ignore", "/title:" + self.title, "/log-level:" + log_level,
                   "/timeout:30000"]
        if size:
            options.append("/size:%dx%d" % size)
        options += list(args)
        self.process = (program or Program()).start(
            options, user, password, os.path.join(directory, name + ".log"), environment)
        self.window = None

    def log(self):
        return self.process.output()

    def alive(self):
        return self.process.alive()

    def connect(self, seconds=30):
        """Waits until the session's window is there, puts it in the corner and the focus in it."""
        def shown():
            if not self.process.alive():
                raise AssertionError("the client ended with status %s: %s" % (
                    self.process.child.returncode, self.log()[-3000:]))
            found = self.display.tool("xdotool", "search", "--name", "^%s$" % self.title, check=False)
            return found.split()
        self.window = wait_for(shown, seconds, lambda: "the client's window; its log ends: " +
                               self.log()[-3000:])[-1]
        wait_for(lambda: "IsViewable" in self.display.tool("xwininfo", "-id", self.window, check=False),
                 seconds, "the client's window to be shown")
        self.display.tool("xdotool", "windowmove", self.window, 0, 0)
        self.focus()
        return self

    def wait_exit(self, seconds=30):
        """Waits until the client has ended by itself; its exit status."""
        return self.process.wait_exit(seconds)

    def wait_log(self, text, seconds=30):
        return self.process.wait_output(text, seconds)

    def stop(self):
        """Closes the session as a user does (the client's orderly way out); its exit status."""
        return self.process.stop()

    def kill(self):
        return self.process.kill()

    # The window

    def geometry(self):
        """(x, y, width, height) of the window's inside."""
        text = self.display.tool("xwininfo", "-id", self.window)
        return tuple(int(re.search(label + r":\s+(-?\d+)", text).group(1)) for label in (
            "Absolute upper-left X", "Absolute upper-left Y", "Width", "Height"))

    def resize(self, width, height):
        """The user drags the window to a new size (/dynamic-resolution makes the client tell)."""
        self.display.tool("xdotool", "windowsize", self.window, width, height)
        wait_for(lambda: self.geometry()[2:] == (width, height), 10,
                 lambda: "a window of %dx%d, it is %dx%d" % ((width, height) + self.geometry()[2:]))

    def screen(self):
        """What the window shows, as an Image."""
        return self.display.screenshot(self.window)

    def wait_pixels(self, expected, seconds=20, worst=0):
        """Waits until the window shows what expected() returns (an Image, such as Machine.screen).

        worst: how far a colour component may be off (0: equal pixels). Returns the Image.
        """
        last = []
        def same():
            shown, wanted = self.screen(), expected()
            last[:] = [shown, wanted]
            return (shown.rgb == wanted.rgb and shown.size == wanted.size) or (
                worst and shown.size == wanted.size and shown.worst(wanted) <= worst)
        wait_for(same, seconds, lambda: "the client's window to show the guest's screen: " +
                 (last[0].difference(last[1]) or "equal"), interval=0.2)
        return last[0]

    def wait_still(self, seconds=20, still=0.5):
        """Waits until the window has stopped changing; the Image."""
        crc = wait_still(lambda: self.screen().crc(), seconds, "the client's window", still)
        shown = self.screen()
        return shown if shown.crc() == crc else self.wait_still(seconds, still)

    # The user's hands

    def focus(self):
        self.display.tool("xdotool", "mousemove", "--window", self.window, 20, 20)
        self.display.tool("xdotool", "windowfocus", self.window)

    def key(self, *keys):
        """Presses and releases keys by X name, together if joined: key("ctrl+c", "Return")."""
        self.display.tool("xdotool", "key", "--delay", 20, *keys)

    def key_down(self, key):
        self.display.tool("xdotool", "keydown", key)

    def key_up(self, key):
        self.display.tool("xdotool", "keyup", key)

    def type(self, text, delay_ms=20):
        """Types text; "\\n" is Return."""
        for index, line in enumerate(text.split("\n")):
            if index:
                self.key("Return")
            if line:
                self.display.tool("xdotool", "type", "--delay", delay_ms, "--", line)

    def mouse(self, x, y):
        """Moves the pointer to a place in the window."""
        self.display.tool("xdotool", "mousemove", "--window", self.window, x, y)

    def button(self, number, down):
        """1 left, 2 middle, 3 right, 4 and 5 wheel, 8 and 9 side."""
        self.display.tool("xdotool", "mousedown" if down else "mouseup", number)

    def click(self, x, y, number=1):
        self.mouse(x, y)
        self.button(number, True)
        self.button(number, False)
