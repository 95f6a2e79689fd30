#!/usr/bin/env python3
"""A tiny virtual machine on RDP: started by ./dev demo.

demo.py [--listen=ADDR[:PORT]]                  for people: prints how to connect, runs until Ctrl-C
demo.py --once --screenshot=FILE.png            unattended: the stock client connects, types, brings a USB
                                                stick; its window's picture goes to FILE.png
"""

import argparse
import errno
import fcntl
import glob
import hashlib
import ipaddress
import os
import secrets
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading

import qemu
import qrdp
import rig
import standin
import xclient
from wait import wait_for

USER = "demo"
STICK = "46f4:0001"  # what the emulated stick of --once calls itself
STICK_IMAGE = "stick.img"
STICK_FILE = ("hello.txt", b"This file is on the client's USB stick.\n")

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
The virtual machine is on RDP at %(host)s, %(reach)s.

    user      %(user)s
    password  %(password)s

Linux     xfreerdp3 /v:%(host)s /u:%(user)s /d: /dynamic-resolution
  with a USB device, by its id (lsusb shows it; /usb:auto skips sticks, keyboards, mice and audio):
%(usb)s
  without one, on this machine, with an emulated stick (docs/testing-standin.md):
          %(emulated)s
          The guest mounts it: ls /mnt/* shows %(file)s.
%(windows)s
          mstsc offers USB devices only under the client's policy "Allow RDP redirection of other
          supported RemoteFX USB devices" (README.md), and then no sticks and printers: FreeRDP does.

Clients show a certificate that they have not seen before. This one's SHA-256 is
  %(fingerprint)s
If yours shows the same, answer Y. End with Ctrl-C: it pulls the machine's plug.
"""

WINDOWS = """Windows   copy %s there and open it: double click, or mstsc FILE"""
WINDOWS_ELSEWHERE = """Windows   runs on another machine: start this with ./dev demo --listen=ADDR first"""


def listen_address(text):
    """ADDR, ADDR:PORT, :PORT, [ADDR6]:PORT or ADDR6 as (ADDR, PORT); ends the demo if it is none."""
    host, port = text or "127.0.0.1", "3389"
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        if ":" in host:
            host, _, port = host.rpartition(":")
    host = host.strip("[]") or "0.0.0.0"
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        sys.exit("demo: --listen=%s: '%s' is no port: write ADDR or ADDR:PORT, such as 0.0.0.0:3389"
                 % (text, port))
    return host, int(port)


def join(host, port):
    return "%s:%d" % ("[%s]" % host if ":" in host else host, port)


def check_free(host, port):
    """Ends the demo, with what to do about it, if nothing can listen there."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            sys.exit("demo: port %d is in use: ./dev demo --listen=%s" % (port, join(host, port + 1)))
        sys.exit("demo: cannot listen at %s: %s: name an address of this machine"
                 % (join(host, port), error.strerror))


def is_loopback(host):
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def reachable(host):
    """What clients call it: a wildcard becomes the address this machine uses towards others."""
    if host == "127.0.0.1":
        return "localhost"  # as the certificate says
    if host not in ("0.0.0.0", "::"):
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing, only asks for a route
            return probe.getsockname()[0]
        except OSError:
            return socket.gethostname()


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
    command = "          xfreerdp3 /v:%s /u:%s /d: /dynamic-resolution /usb:id:" % (address, USER)
    if not lines:
        return command + "0781:5567"
    return "\n".join("%s%s   (%s)" % (command, ident, name or "no name") for ident, name in lines)


def emulated_line(address, stick):
    """What to type for a client that has the stick of this image, without any USB hardware."""
    return "LD_PRELOAD=%s QRDP_STANDIN_DEVICES=%s xfreerdp3 /v:%s /u:%s /d: /dynamic-resolution /usb:id:%s" % (
        shlex.quote(standin.library()), shlex.quote("stick:image=" + stick), address, USER, standin.IDS["stick"])


def fingerprint(path):
    """SHA-256 of the certificate, as clients and qrdp's log show it."""
    with open(path) as pem:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.read())).digest().hex(":")


def new_password():
    """Random, without letters that look alike and without anything a shell or keyboard minds."""
    return "-".join("".join(secrets.choice("abcdefghjkmnpqrstuvwxyz23456789") for _ in range(5))
                    for _ in range(3))


def pass_on(stream):
    """qrdp's and QEMU's messages without how to connect: the demo knows the password, and says it."""
    for line in stream:
        if not line.startswith(("qrdp: the console is at ", "  ")):
            print(line, end="", file=sys.stderr, flush=True)


def explain(directory, host, port, password):
    """Writes the file for mstsc and prints how to connect."""
    local = is_loopback(host)
    there = reachable(host)
    there = there if port == 3389 and ":" not in there else join(there, port)
    rdp_file = os.path.join(directory, "qrdp-demo.rdp")
    with open(rdp_file, "w", newline="\r\n") as rdp:
        rdp.write(RDP_FILE % {"address": there, "user": USER})
    print(HOW % {
        "host": there, "user": USER, "password": password, "usb": usb_lines(there),
        "emulated": emulated_line(there, os.path.join(directory, STICK_IMAGE)),
        "file": STICK_FILE[0],
        "fingerprint": fingerprint(os.path.join(directory, "qrdp", "server-cert.pem")),
        "windows": WINDOWS_ELSEWHERE if local else WINDOWS % rdp_file,
        "reach": "for this machine only" if local else "OPEN TO OTHER MACHINES"}, flush=True)


def attended(options):
    host, port = listen_address(options.listen)
    directory = os.path.join(qemu.BASE, "build-demo")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    lock = open(os.path.join(directory, "lock"), "w")  # held until this process ends
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("demo: another demo runs here: end it with Ctrl-C")
    check_free(host, port)
    qemu.make_stick(os.path.join(directory, STICK_IMAGE), files=[STICK_FILE])
    password = new_password()
    auth = os.path.join(directory, "auth")
    status, _, error = qrdp.run_once(directory, "passwd", "--auth-file=" + auth, USER,
                                     stdin=password + "\n")
    if status:
        sys.exit("demo: " + error.strip())
    arguments = qemu.guest_arguments(directory, agent=False)
    server = subprocess.Popen(
        [qrdp.binary(), "run", "--listen=" + join(host, port), "--auth-file=" + auth, "--print-ready",
         "--log-level=warning", "--run-dir=" + os.path.join(directory, "run"), "--", qemu.QEMU]
        + arguments,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
        env=dict(os.environ, XDG_STATE_HOME=directory))  # where the certificate is kept
    messages = threading.Thread(target=pass_on, args=(server.stderr,), daemon=True)
    messages.start()
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    explained = False
    try:
        for line in server.stdout:
            ready = qrdp.READY.match(line)
            if not ready:
                print(line, end="", flush=True)
            elif not explained:
                explain(directory, host, int(ready.group(1).rpartition(":")[2]), password)
                explained = True
        return server.wait()
    except KeyboardInterrupt:
        server.terminate()
        return 0 if server.wait() in (0, 130, -signal.SIGTERM, 128 + signal.SIGTERM) else 1
    finally:
        if server.poll() is None:
            server.terminate()
            server.wait()
        messages.join(2)


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
        stick = os.path.join(directory, STICK_IMAGE)
        qemu.make_stick(stick, files=[STICK_FILE])
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
        client.type("cat %s/%s; uname -a\n" % (place, STICK_FILE[0]))
        content = vm.agent.shell("cat %s/%s" % (place, STICK_FILE[0]))
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
