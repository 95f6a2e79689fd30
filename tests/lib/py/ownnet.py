"""A network of a test's own, which can be lost as one is on a train: nothing says that it has gone.

    network = OwnNetwork()              # what this thread starts from here on has a loopback of its own
    network.lose(); network.find()
    network.leave()

A proxy cannot show that: its kernel acknowledges to both ends what does not arrive. Needs root (CAP_SYS_ADMIN).
"""

import ctypes
import fcntl
import os
import socket
import struct
import unittest

CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP, IFF_LOOPBACK, IFF_RUNNING = 0x8914, 1, 8, 0x40


class OwnNetwork:
    def __init__(self):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        if self.libc.unshare(CLONE_NEWNET):
            os.close(self.before)
            raise unittest.SkipTest("a network namespace: " + os.strerror(ctypes.get_errno()))
        self.find()

    def lose(self):
        self._flags(IFF_LOOPBACK)

    def find(self):
        self._flags(IFF_LOOPBACK | IFF_UP | IFF_RUNNING)

    @staticmethod
    def _flags(flags):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags))

    def leave(self):
        """The network that there was before, for what is started from here on."""
        if self.libc.setns(self.before, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(self.before)
