#!/usr/bin/env python3
"""A tiny virtual machine on RDP: started by ./dev demo.

demo.py [--listen=ADDR[:PORT]]                  for people: prints how to connect, runs until Ctrl-C
demo.py --once --screenshot=FILE.png            unattended: the stock client connects, types, brings a USB
                                                stick; its window's picture goes to FILE.png
"""

import argparse
import glob
import ipaddress
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile

import qemu
import qrdp
import rig
import standin
import xclient
from wait import wait_for

USER = "demo"
STICK = "46f4:0001"  # what the emulated stick of --once calls itself

RDP_FILE = """full address:s:%(address)s
username:s:%(user)s
prompt for credentials:i:1
enablecredsspsupport:i:1
authentication level:i:2
screen mode id:i:1
desktopwidth:i:1280
desktopheight:i:800
drivestoredirect:s:
usbdevicestoredirect:s:*
"""

HOW = """
The virtual machine is on RDP at %(address)s%(where)s
user %(user)s, password %(password)s

FreeRDP   xfreerdp3 /v:%(address)s /u:%(user)s
          and with a USB device of the client's machine in the virtual machine:
%(usb)s
          Name the device by its id, as lsusb on the client's machine shows it: /usb:auto skips
          sticks, keyboards, mice, audio devices and smart card readers.
Windows   mstsc %(file)s
          (copy this file there%(file_hint)s). USB devices: the client's policy "Allow RDP
          redirection of other supported RemoteFX USB devices from this computer" (Computer
          Configuration, Administrative Templates, Windows Components, Remote Desktop Services,
          Remote Desktop Connection Client, RemoteFX USB Device Redirection) must be on, and
          Windows restarted after that; then tick the device under Local Resources, More.
          Without that policy mstsc offers no USB devices at all. With it, it lists devices for
          which it has no redirection of its own (serial adapters, scanners, dongles, ...). A
          stick it normally offers as a drive, a printer as a printer: not as a USB device, so
          that the virtual machine does not get it. With FreeRDP it does.

The certificate was made on this machine: clients ask once whether to trust it.
End with Ctrl-C.
"""


def listen_address(text):
    """ADDR, ADDR:PORT, [ADDR6]:PORT or :: as ADDR:PORT."""
    if not text:
        return "127.0.0.1:3389"
    try:
        ipaddress.IPv6Address(text)
        return "[%s]:3389" % text
    except ValueError:
        pass
    host, colon, port = text.rpartition(":")
    return text if colon and port.isdigit() and host else text + ":3389"


def is_loopback(address):
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def reachable(address):
    """The address to give to clients: a wildcard becomes this machine's name."""
    host, _, port = address.rpartition(":")
    return "%s:%s" % (socket.gethostname(), port) if host in ("0.0.0.0", "[::]") else address


def usb_lines(address):
    """One line to type per USB device of this machine, or an example."""
    lines = []
    for path in sorted(glob.glob("/sys/bus/usb/devices/*/idVendor")):
        base = os.path.dirname(path)

        def read(name):
            try:
                with open(os.path.join(base, name), errors="replace") as attribute:
                    return attribute.read().strip()
            except OSError:
                return ""
        if read("bDeviceClass") != "09":
            lines.append(("%s:%s" % (read("idVendor"), read("idProduct")), read("product")))
    command = "            xfreerdp3 /v:%s /u:%s /usb:id:" % (address, USER)
    if not lines:
        return command + "VID:PID       for example /usb:id:0781:5567"
    return "\n".join("%s%s   (%s)" % (command, ident, name or "no name") for ident, name in lines)


def new_password():
    """Random, without letters that look alike and without anything a shell or keyboard minds."""
    return "-".join("".join(secrets.choice("abcdefghjkmnpqrstuvwxyz23456789") for _ in range(5))
                    for _ in range(3))


def attended(options):
    address = listen_address(options.listen)
    directory = os.path.join(qemu.BASE, "build-demo")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    password = new_password()
    auth = os.path.join(directory, "auth")
    status, _, error = qrdp.run_once(directory, "passwd", "--auth-file=" + auth, USER,
                                     stdin=password + "\n")
    if status:
        sys.exit("demo: " + error.strip())
    arguments = qemu.guest_arguments(directory, agent=False)
    server = subprocess.Popen(
        [qrdp.binary(), "run", "--listen=" + address, "--auth-file=" + auth, "--print-ready",
         "--run-dir=" + os.path.join(directory, "run"), "--", qemu.QEMU] + arguments,
        stdout=subprocess.PIPE, text=True, errors="replace", env=dict(os.environ, HOME=directory))
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    try:
        for line in server.stdout:
            ready = qrdp.READY.match(line)
            if not ready:
                print(line, end="", flush=True)
                continue
            there = reachable(ready.group(1))
            rdp_file = os.path.join(directory, "qrdp-demo.rdp")
            with open(rdp_file, "w", newline="\r\n") as rdp:
                rdp.write(RDP_FILE % {"address": there, "user": USER})
            local = is_loopback(ready.group(1))
            print(HOW % {
                "address": there, "user": USER, "password": password, "usb": usb_lines(there),
                "file": rdp_file,
                "file_hint": "; it needs --listen=ADDR, see above" if local else "",
                "where": ",\nwhich is reachable from this machine only; --listen=ADDR opens it to others"
                         if local else
                         ",\nOPEN TO OTHER MACHINES: who reaches this port and knows the password is in"},
                  flush=True)
        return server.wait()
    except KeyboardInterrupt:
        server.terminate()
        return 0 if server.wait() in (0, 130, -signal.SIGTERM, 128 + signal.SIGTERM) else 1
    finally:
        if server.poll() is None:
            server.terminate()
            server.wait()


def unattended(options):
    """Every step either happens or ends this with an error."""
    def say(text):
        print("demo: " + text, flush=True)
    directory = tempfile.mkdtemp(prefix="qrdp-demo")
    undo = []
    done = False
    try:
        say("starting the virtual machine, logs are in " + directory)
        password = new_password()
        arguments = qemu.guest_arguments(directory) + [
            "-qmp", "unix:%s/qmp2,server=on,wait=off" % directory]
        server = qrdp.Qrdp(directory, run=arguments, credentials=(USER, password), log_level="info")
        undo.append(server.stop)
        vm = rig.RunningVm(directory)
        undo.append(vm.close)

        say("connecting the stock client, with a USB stick at hand")
        stick = os.path.join(directory, "stick.img")
        qemu.make_stick(stick, files=[("hello.txt", b"This file is on the client's USB stick.\n")])
        display = xclient.Display(os.path.join(directory, "x"))
        undo.append(display.stop)
        usb = standin.Standin(directory, [standin.spec(
            "stick", vid=STICK[:4], pid=STICK[5:], vendor="Demo", product="USB Stick", image=stick)])
        undo.append(usb.close)
        client = xclient.Client(display, directory, server.address, USER, password,
                                args=["/usb:id:" + STICK], env=usb.env)
        undo.append(client.stop)
        client.connect(60)

        say("typing")
        client.type("echo typed over RDP >/tmp/typed\n")
        wait_for(lambda: vm.agent.run("cat /tmp/typed")[1] == "typed over RDP\n", 30,
                 "what was typed in the client's window to arrive in the guest")

        say("waiting until the guest has mounted the stick")
        place = vm.agent.wait_mount(1, 120)[0]
        client.type("cat %s/hello.txt; uname -a\n" % place)
        content = vm.agent.shell("cat %s/hello.txt" % place)
        if "client's USB stick" not in content:
            raise AssertionError("the stick's file does not read right in the guest: %r" % content)

        say("waiting until the window shows the guest's screen")
        client.wait_pixels(vm.screen, 60).save_png(options.screenshot)
        say("done: %s" % options.screenshot)
        done = True
    except AssertionError as failure:
        say("FAILED: %s" % failure)
    finally:
        for step in reversed(undo):
            step()
        if done:
            rig.remove(directory)
    return 0 if done else 1


def main():
    parser = argparse.ArgumentParser(prog="./dev demo", description=__doc__.split("\n")[0])
    parser.add_argument("--listen", metavar="ADDR[:PORT]", help="serve other machines too")
    parser.add_argument("--once", action="store_true", help="unattended: connect, type, redirect")
    parser.add_argument("--screenshot", metavar="FILE", help="with --once: the picture to write")
    options = parser.parse_args()
    if options.once != bool(options.screenshot):
        parser.error("--once and --screenshot=FILE go together")
    return unattended(options) if options.once else attended(options)


if __name__ == "__main__":
    sys.exit(main())
