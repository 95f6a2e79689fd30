"""Looking at single pixels of an X display, and pressing its keys, without a process per question.

What a shell of xdotool and xwd would cost is more than what is measured here. A question to the server takes
0.1 ms; between two of them it sleeps STEP, so that looking does not take a processor from what is looked at.
"""

import ctypes
import time

STEP = 0.0005  # seconds: the resolution of what is timed with wait_pixel
Z_PIXMAP = 2


class XProbe:
    def __init__(self, name):
        self.x = ctypes.CDLL("libX11.so.6")
        self.xtst = ctypes.CDLL("libXtst.so.6")
        pointer, number = ctypes.c_void_p, ctypes.c_ulong
        for function, result, arguments in (
                ("XOpenDisplay", pointer, [ctypes.c_char_p]),
                ("XDefaultRootWindow", number, [pointer]),
                ("XGetImage", pointer, [pointer, number, ctypes.c_int, ctypes.c_int, ctypes.c_uint,
                                        ctypes.c_uint, number, ctypes.c_int]),
                ("XGetPixel", number, [pointer, ctypes.c_int, ctypes.c_int]),
                ("XDestroyImage", ctypes.c_int, [pointer]),
                ("XKeysymToKeycode", ctypes.c_ubyte, [pointer, number]),
                ("XStringToKeysym", number, [ctypes.c_char_p]),
                ("XFlush", ctypes.c_int, [pointer]),
                ("XCloseDisplay", ctypes.c_int, [pointer])):
            entry = getattr(self.x, function)
            entry.restype, entry.argtypes = result, arguments
        self.xtst.XTestFakeKeyEvent.argtypes = [pointer, ctypes.c_uint, ctypes.c_int, number]
        self.display = self.x.XOpenDisplay(name.encode())
        if not self.display:
            raise AssertionError("no X server at " + name)
        self.root = self.x.XDefaultRootWindow(self.display)

    def pixel(self, x, y):
        """0xRRGGBB of a place of the screen."""
        image = self.x.XGetImage(self.display, self.root, x, y, 1, 1, ctypes.c_ulong(-1).value, Z_PIXMAP)
        if not image:
            raise AssertionError("no pixel at %d,%d" % (x, y))
        try:
            return self.x.XGetPixel(image, 0, 0) & 0xffffff
        finally:
            self.x.XDestroyImage(image)

    def wait_pixel(self, x, y, wanted, seconds):
        """Waits until wanted(colour) is true; the time.monotonic() at which it was seen."""
        deadline = time.monotonic() + seconds
        while True:
            colour = self.pixel(x, y)
            now = time.monotonic()
            if wanted(colour):
                return now
            if now > deadline:
                raise AssertionError("waited %g s for another pixel at %d,%d, which is %06x" % (
                    seconds, x, y, colour))
            time.sleep(STEP)

    def key(self, name, down):
        """Presses or releases a key by X name; the time.monotonic() before."""
        code = self.x.XKeysymToKeycode(self.display, self.x.XStringToKeysym(name.encode()))
        start = time.monotonic()
        self.xtst.XTestFakeKeyEvent(self.display, code, down, 0)
        self.x.XFlush(self.display)
        return start

    def close(self):
        self.x.XCloseDisplay(self.display)
