"""The delay proxy of the tests: delay, bounds, stalls, and the ways a connection ends."""

import socket
import struct
import threading
import time

from proxy import DelayProxy, Refused
from rig import Rig
from wait import wait_for


class ProxyTest(Rig):
    def setUp(self):
        super().setUp()
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen()
        self.addCleanup(self.listener.close)
        self.target = "127.0.0.1:%d" % self.listener.getsockname()[1]

    def connect(self, network, read_buffer=None):
        """(near, far): both ends of a connection through the proxy."""
        near = socket.create_connection(("127.0.0.1", int(network.address.split(":")[1])), 60)
        self.addCleanup(near.close)
        if read_buffer:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, read_buffer)
        self.listener.settimeout(60)
        far = self.listener.accept()[0]
        self.addCleanup(far.close)
        far.settimeout(60)
        return near, far

    def take(self, end, size):
        data = b""
        while len(data) < size:
            piece = end.recv(size - len(data))
            self.assertTrue(piece, "the connection ended after %d bytes" % len(data))
            data += piece
        return data

    def test_bytes_are_late_and_right(self):
        network = self.network(self.target, rtt_ms=40)
        self.assertGreaterEqual(network.measured["rtt_us"], 40000)
        near, far = self.connect(network)
        for sender, receiver in ((near, far), (far, near)):
            start = time.monotonic()
            sender.sendall(b"x")
            self.take(receiver, 1)
            self.assertGreaterEqual(time.monotonic() - start, 0.020)
        data = bytes(i * 7 + i // 251 & 255 for i in range(3 << 20))
        writer = threading.Thread(target=near.sendall, args=(data,))
        writer.start()
        self.assertEqual(self.take(far, len(data)), data)
        writer.join()
        stat = network.stat()
        self.assertEqual((stat["up.bytes"], stat["up.early"], stat["down.early"]), (len(data) + 1, 0, 0))
        self.assertGreaterEqual(stat["up.least_us"], 20000)

        network.set_network(rtt_ms=60)
        self.assertGreaterEqual(network.selftest()["up_us"], 30000)
        near.sendall(b"end")
        near.shutdown(socket.SHUT_WR)
        self.assertEqual(self.take(far, 3), b"end")
        self.assertEqual(far.recv(1), b"", "the end of the stream is passed on")
        far.sendall(b"still here")
        self.assertEqual(self.take(near, 10), b"still here")

    def test_rate_and_bound(self):
        network = self.network(self.target, rtt_ms=40, rate_mbit=80)
        bound = network.stat()["bound"]
        self.assertEqual(bound, 80e6 / 8 * 0.040 + 65536)
        near, far = self.connect(network, read_buffer=65536)
        start = time.monotonic()
        near.sendall(b"y" * 500000)
        self.take(far, 500000)
        self.assertGreaterEqual(time.monotonic() - start, 500000 * 8 / 80e6 + 0.020)

        # Nobody reads: what the proxy holds comes to rest at the bound.
        near.setblocking(False)
        def stuffed():
            try:
                while near.send(b"z" * 65536):
                    pass
            except BlockingIOError:
                pass
            return network.stat()["up.held"] == bound
        wait_for(stuffed, 60, lambda: "the proxy to be full: %r" % network.stat())
        self.assertEqual(network.stat()["up.largest_held"], bound)

    def test_stall(self):
        network = self.network(self.target, rtt_ms=2)
        near, far = self.connect(network)
        network.stall("up")
        near.sendall(b"held")
        far.sendall(b"down")
        self.assertEqual(self.take(near, 4), b"down", "the other way still works")
        far.setblocking(False)
        network.selftest()  # takes longer than an undelayed byte
        self.assertRaises(BlockingIOError, far.recv, 1)
        far.settimeout(60)
        network.resume()
        self.assertEqual(self.take(far, 4), b"held")

    def test_ends(self):
        network = self.network(self.target, rtt_ms=2)
        near, far = self.connect(network)
        network.reset()
        for end in near, far:
            self.assertRaises(ConnectionResetError, end.recv, 1)
        near, far = self.connect(network)
        far.sendall(b"unread")
        self.take(near, 6)
        network.close_connections()
        for end in near, far:
            self.assertEqual(end.recv(1), b"")
            end.close()
        wait_for(lambda: network.stat()["open"] == 0, 60, "both connections to be over")

        near, far = self.connect(network)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()
        self.assertRaises(ConnectionResetError, near.recv, 1)

        network.refuse()
        self.assertRaises(ConnectionRefusedError, self.connect, network)
        network.accept()
        self.connect(network)
        self.assertRaises(Refused, network.command, "fly")
        self.assertEqual(network.stop(), 0)

    def test_target_that_is_not_there(self):
        self.listener.close()
        network = DelayProxy(self.dir, self.target)
        self.addCleanup(network.stop)
        with self.assertRaises(ConnectionResetError):  # of connect(), if the reset was fast
            with socket.create_connection(("127.0.0.1", int(network.address.split(":")[1])), 60) as near:
                near.recv(1)
