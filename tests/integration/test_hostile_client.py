"""Clients that speak RDP but mean harm: before the login, around it, and in a session."""

import contextlib
import os
import socket
import threading
import time

import hostile
from hostile import u16, u32
from rig import PASSWORD, Rig, USER, full
from wait import wait_for, wait_still


def resident(server):
    """Megabytes."""
    with open("/proc/%d/status" % server.process.pid) as status:
        line = next(text for text in status if text.startswith("VmRSS"))
    return int(line.split()[1]) // 1024


def sanitized(server):
    """Whether it runs under a sanitizer, which maps terabytes and keeps what was freed."""
    with open("/proc/%d/statm" % server.process.pid) as statm:
        return int(statm.read().split()[0]) * os.sysconf("SC_PAGE_SIZE") > 1 << 40


def processor_seconds(server):
    with open("/proc/%d/stat" % server.process.pid) as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class HostileClients(Rig):
    def start(self, **options):
        server, _ = self.run_vm(wait=False, **options)
        server.wait_log("attached to virtual machine")
        return server

    def attacker(self, server, **options):
        client = hostile.HostileClient(server.address, **options)
        self.addCleanup(client.close)
        return client

    def gone(self, client, seconds=20):
        """Waits until the server has closed the connection; what came before does not matter."""
        client.tls.settimeout(seconds)
        try:
            while client.tls.recv(65536):
                pass
        except ConnectionError:
            pass

    def test_login_cannot_be_gone_around(self):
        """NLA only: a client that offers less gets no TLS, and certainly no session."""
        server = self.start()
        for protocols in (0, 1, 4, 0x10):  # plain RDP, TLS, RDSTLS, Entra
            client = self.attacker(server)
            try:
                self.assertIsNone(client.negotiate(protocols))
            except EOFError:
                pass  # as good a refusal
            client.close()
        server.wait_log("connection refused: the client cannot do NLA; --tls-login lets such clients in")
        server.wait_log("connection refused: the client can do neither NLA nor TLS")
        self.assertNotIn("logged in", server.log())

    def test_tls_login_needs_the_password(self):
        server = self.start(options=["--tls-login"])
        client = self.attacker(server)
        self.assertEqual(client.negotiate(), 1)
        client.start_tls()
        client.join()
        client.tls.sendall(hostile.keys())  # input in place of a login
        self.gone(client)

        def connected():
            try:
                return self.attacker(server).connect(USER, PASSWORD)
            except (EOFError, ConnectionError):
                return None

        def pauses():
            """Three wrong passwords: the address has to pause, even with the right one."""
            logins = server.log().count("logged in")
            for user, password in ((USER, "not-this-one"), (USER, ""), ("nobody", PASSWORD)):
                with self.assertRaises((EOFError, ConnectionError)):
                    self.attacker(server).connect(user, password)
                wait_for(lambda: not server.status()["clients"], 30, "the refused client to be gone")
            self.assertEqual(server.log().count("logged in"), logins)
            self.assertNotIn("not-this-one", server.log())
            late = connected()  # the pause is a second: on a busy machine it may be over
            if late:
                late.close()
            return not late
        wait_for(pauses, 90, "a pause")
        server.wait_log("too many failed logins from this address, for another ")
        wait_for(connected, 60, "the pause to end")

    def test_input_flood(self):
        """Events faster than QEMU takes them: the client waits, memory and everybody else do not."""
        server = self.start(credentials=None)
        client = self.attacker(server).connect("flood", "")
        before = resident(server)
        stop, sent = threading.Event(), [0]
        block = hostile.keys() * 64

        def pump():
            try:
                while not stop.is_set():
                    client.tls.sendall(block)
                    sent[0] += 1
            except OSError:
                pass
        thread = threading.Thread(target=pump)
        thread.start()
        try:
            slowest = 0
            for _ in range(10):
                start = time.monotonic()
                server.status()
                slowest = max(slowest, time.monotonic() - start)
            wait_for(lambda: sent[0] >= 20, 60, "twenty blocks of input to be taken")
            grown = resident(server) - before
        finally:
            stop.set()
            client.tls.shutdown(socket.SHUT_RDWR)
            thread.join()
        self.assertLess(slowest, 30)  # a server that waits for the flood to end waits for ever
        if not sanitized(server):
            self.assertLess(grown, 60)

    def test_unanswered_deactivation(self):
        """The guest changes its mode and the client never answers: no busy loop."""
        server = self.start(credentials=None, video="std")
        client = self.attacker(server).connect("silent", "")
        deadline = time.monotonic() + 30

        def deactivated():
            while time.monotonic() < deadline:
                pdu = client.read()
                if pdu and pdu[0] == 0x68:
                    body = pdu[8:] if pdu[6] & 0x80 else pdu[7:]
                    if body[2] & 0x0F == 6:
                        return True
            return False
        self.assertTrue(deactivated(), "the guest never changed its mode")
        client.tls.sendall(client.dynamic(b"\x50\x00\x01\x00"))  # channels come up, to no avail
        start, used = time.monotonic(), processor_seconds(server)
        wait_for(lambda: time.monotonic() - start > 2, 10, "two seconds to pass")
        self.assertLess(processor_seconds(server) - used, 0.3)
        self.assertTrue(server.process.alive())

    def test_detection_answers(self):
        """Auto-detection: answers to nothing, twice, of other numbers, absurd ones, and then none."""
        server = self.start(credentials=None, video="std")
        client = self.attacker(server, detect=True).connect("liar", "")
        absurd = hostile.u32(0, 0xFFFFFFFF)
        client.tls.sendall(client.detected(0) + client.detected(0xFFFF) + client.detected(1, 11, absurd))
        sequence, kind = client.read_detect()
        while kind != 1:  # a round trip; bandwidth around a picture may come first
            client.tls.sendall(client.detected(sequence, 11, absurd))
            sequence, kind = client.read_detect()
        client.tls.sendall(client.detected(sequence + 1) + client.detected(sequence) * 2
                           + client.detected(sequence, 11, absurd))

        def counted():
            status = server.status()["clients"][0]["display"]
            return status and status["probes_stray"] >= 5 and status["probes_answered"] == 1 and status
        status = wait_for(counted, 30, lambda: "the answers to be counted: %s" % server.status()["clients"])
        self.assertLessEqual(status["probes"], 2)  # the second one has no answer, and there is no third
        self.assertEqual(status["network_bytes_per_s"], 0)
        self.assertLess(status["network_round_trip_us"], 30000000)

    def test_reads_nothing(self):
        """It is given --stall-seconds, by the kernel too: FreeRDP's own setting is nine."""
        server, vm = self.run_vm(credentials=None, options=["--stall-seconds=12"])
        vm.agent.drm()
        client = self.attacker(server, receive_buffer=4096).connect("stuck", "")
        vm.agent.animate("noise")
        server.wait_log("stuck@127.0.0.1: connection ended: ", 90)
        self.assertIn("connection ended: it read nothing for 12 seconds", server.log())
        client.close()

    def test_advertises_again(self):
        """Graphics: each CapsAdvertise wants the whole picture again. Who reads none of it makes one wait, not each."""
        server, vm = self.run_vm(credentials=None, options=["--stall-seconds=120"])
        vm.agent.drm()
        vm.agent.pattern("noise", "1")
        client = self.attacker(server, receive_buffer=4096, graphics=True).connect("greedy", "")
        channel = client.open_graphics()
        # Version 10.4 without H.264 (MS-RDPEGFX 2.2.2.18, 2.2.3.6).
        advertise = client.dynamic(bytes([0x30, channel]) + u16(0x12, 0) + u32(22) + u16(1) + u32(0xA0400, 4, 0x20))
        # Its display is in the status after its first report.
        sent = lambda what: (server.status()["clients"][0]["display"] or {what: 0})[what]

        def again(count):
            """Advertises; the frames that there are when the server has done what it does about it."""
            client.tls.sendall(advertise)
            wait_for(lambda: server.log().count("GFX version") == count, 30, "advertisement %d to be read" % count)
            return wait_still(lambda: sent("frames"), 60, "the server")
        again(1)
        wait_for(lambda: sent("bytes") > 1 << 20, 30, "more than the network takes")
        first = wait_still(lambda: sent("frames"), 60, "the server")
        self.assertEqual({again(2 + n) for n in range(5)}, {first})
        client.tls.settimeout(1)

        def read():
            with contextlib.suppress(TimeoutError):
                for _ in range(100):  # records
                    client.tls.recv(1 << 20)
            return sent("frames") > first
        wait_for(read, 60, "another frame, now that the first is read", 0)

    def test_goodbye_that_does_not_leave(self):
        """A client that signs off has left, whether it closes its connection or goes on talking."""
        server = self.start(credentials=None)
        for more in (False, True):
            client = self.attacker(server, graphics=True)
            client.connect("liar", "")
            client.open_graphics()
            goodbye = client.tpkt(b"\x02\xf0\x80\x21\x80")  # Disconnect Provider Ultimatum: user requested
            client.tls.sendall(goodbye + (client.dynamic(b"\xf0\x01" + bytes(8)) if more else b""))
            self.gone(client)
            wait_for(lambda: not server.status()["clients"], 20, "the client to be out of the status")
        self.assertNotIn("unknown or unsupported", server.log())

    def test_channel_claims(self):
        """Lengths that are not true end the connection before memory is spent."""
        server = self.start(credentials=None)
        before = resident(server)
        attacks = {
            "longer than allowed": lambda c: c.channel_bytes(
                hostile.DRDYNVC, hostile.u32(0xFFFFFFFF, 1) + bytes(64)),
            "longer than it claimed": lambda c: c.channel_bytes(
                hostile.DRDYNVC, hostile.u32(8, 3) + bytes(64)),
            "outside of a message": lambda c: c.channel_bytes(
                hostile.DRDYNVC, hostile.u32(64, 0) + bytes(64)),
            "compressed": lambda c: c.channel_bytes(
                hostile.DRDYNVC, hostile.u32(64, 0x200003) + bytes(64)),
            "unknown or unsupported": lambda c: c.dynamic(b"\xf0\x01" + bytes(8)),
        }
        for why, attack in attacks.items():
            client = self.attacker(server).connect("liar", "")
            client.tls.sendall(client.dynamic(b"\x50\x00\x01\x00"))
            client.tls.sendall(attack(client))
            self.gone(client)
            server.wait_log(why)
        if not sanitized(server):
            self.assertLess(resident(server) - before, 60)

    def test_many_connections(self):
        """Garbage from one address costs the others nothing and leaves nothing behind."""
        server = self.start(credentials=None)
        host, port = server.address.rsplit(":", 1)
        threads = "/proc/%d/task" % server.process.pid
        before = len(os.listdir(threads))
        for _ in range(200):
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(os.urandom(64))
        self.assertLessEqual(len(os.listdir(threads)), before + 20)
        wait_for(lambda: not server.status()["clients"], 30, "the connections to be gone")
        wait_for(lambda: len(os.listdir(threads)) <= before + 2, 10, "their threads to be gone")

    def test_places_held_before_login(self):
        """Four addresses take every place and say nothing: somebody else gets in all the same."""
        server = self.start(credentials=None)
        host, port = server.address.rsplit(":", 1)
        held = []
        for n in range(16):
            held.append(socket.create_connection((host, int(port)),
                                                 source_address=("127.0.1.%d" % (1 + n % 4), 0)))
            self.addCleanup(held[-1].close)
        wait_for(lambda: len(server.status()["clients"]) == 16, 30, "every place to be taken")
        self.attacker(server).connect("honest", "")
        server.wait_log("honest@127.0.0.1 logged in")
        wait_for(lambda: len(server.status()["clients"]) == 16, 30, "one to have gone for it")
        # The oldest of a crowd: which of the four crowds is the table's affair.
        gone = [h for h in held[:4] if self.is_gone(h)]
        self.assertEqual(len(gone), 1)

    @staticmethod
    def is_gone(connection):
        connection.setblocking(False)
        try:
            return connection.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionError:
            return True

    @full
    def test_half_open(self):
        """Handshakes that stop half-way: bounded in number, ended by their deadline."""
        server = self.start(credentials=None)
        for step in range(5):
            client = self.attacker(server, seconds=60)
            if step > 1:
                client.negotiate()
            if step > 3:
                client.start_tls()
        wait_for(lambda: len(server.status()["clients"]) == 5, 10, "five connections")
        with self.assertRaises((EOFError, ConnectionError)):
            self.attacker(server).negotiate()
        wait_for(lambda: not server.status()["clients"], 45, "the deadline")
        self.attacker(server).connect("late", "")
