"""Many devices, several clients with devices, and slots that do not come."""

import array
import os
import select
import socket
import threading

import qrdp
import standin
from rig import PASSWORD, USER, say
from test_stick import UsbRig
from wait import wait_for

LOOP = "1209:0003"


class QmpProxy:
    """A monitor in front of QEMU's that plugs nothing: it says that it has.

    Descriptors are passed on, because qrdp hands QEMU its end of the display's connection.
    """

    LIES = (b'"chardev-add"', b'"device_add"')

    def __init__(self, path, target):
        self.path, self.target = path, target
        self.plugged = 0
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(path)
        self.socket.listen(4)
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                client, _ = self.socket.accept()
            except OSError:
                return
            with client, socket.socket(socket.AF_UNIX) as monitor:
                monitor.connect(self.target)
                self.pass_on(client, monitor)

    def pass_on(self, client, monitor):
        while True:
            for ready in select.select([client, monitor], [], [])[0]:
                data, fds, _, _ = socket.recv_fds(ready, 65536, 4)
                if not data:
                    return
                if ready is client and any(lie in data for lie in self.LIES):
                    self.plugged += b'"device_add"' in data
                    client.sendall(b'{"return": {}}\r\n')
                else:
                    socket.send_fds(monitor if ready is client else client, [data], array.array("i", fds))
                for fd in fds:
                    os.close(fd)

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


class NoSlotTest(UsbRig):
    """QEMU says that it has plugged a slot, and never offers it."""

    @classmethod
    def start(cls):
        cls.vm = cls.shared.machine(display="dbus,p2p=yes")
        cls.proxy = QmpProxy(cls.shared.path("proxy"), cls.vm.qmp_path)
        cls.addClassCleanup(cls.proxy.close)
        cls.server = cls.shared._server(qrdp.Qrdp(
            cls.shared.path("serve"), serve=["--qmp=" + cls.proxy.path], credentials=(USER, PASSWORD)))

    def test_refused(self):
        client, usb = self.bring([standin.spec("loop")])
        wait_for(lambda: "did not offer it" in self.usb("list"), 60, lambda: self.usb("list"))
        self.assertIn("refused", self.usb("list"))
        self.assertEqual(self.server.log().count("did not offer it"), 1)
        self.assertEqual(self.proxy.plugged, 1)
        say("refused; allowed by the operator, it is tried again")
        self.usb("allow", LOOP)
        wait_for(lambda: self.proxy.plugged == 2, 20, "another attempt: " + self.usb("list"))
