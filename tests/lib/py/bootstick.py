"""A stick that boots the test guest by itself, on a BIOS and on UEFI: nothing comes from QEMU's -kernel.

BIOS: syslinux's boot record, its loader and a configuration. UEFI: kernel, initramfs and command line in one
program, EFI/BOOT/BOOTX64.EFI, made with systemd's stub around the kernel, which is itself an EFI program.
"""

import glob
import os
import subprocess

import qemu

MBR = "/usr/lib/syslinux/mbr/mbr.bin"
STUB = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
PARTITION = 2048 * 512
COMMAND_LINE = "console=ttyS0 console=tty0 quiet loglevel=3 started.from=stick "

CONFIG = """SERIAL 0 115200
DEFAULT linux
LABEL linux
  LINUX /vmlinuz
  INITRD /initrd
  APPEND %s
"""


def packaged_kernel():
    """The bzImage that the guest's kernel was taken from."""
    found = glob.glob(os.path.join(qemu.GUEST_DIR, "linux-image-*", "boot", "vmlinuz-*"))
    if not found:
        raise AssertionError("no packaged kernel in %s: run tests/guest/build.sh" % qemu.GUEST_DIR)
    return found[0]


def read(path):
    with open(path, "rb") as f:
        return f.read()


def make_bios(path, append=""):
    """Writes the image of a stick that a BIOS boots."""
    config = (CONFIG % (COMMAND_LINE + append)).encode()
    qemu.make_stick(path, 64, [("vmlinuz", read(packaged_kernel())),
                               ("initrd", read(os.path.join(qemu.GUEST_DIR, "initramfs"))),
                               ("syslinux.cfg", config)])
    subprocess.run(["syslinux", "--install", "--offset", str(PARTITION), path], check=True,
                   stdout=subprocess.DEVNULL)
    with open(path, "r+b") as stick:
        stick.write(read(MBR)[:440])
        stick.seek(446)
        stick.write(b"\x80")  # the partition is active


def make_uefi(path, append=""):
    """Writes the image of a stick that UEFI boots."""
    program = path + ".efi"
    command_line = path + ".cmdline"
    with open(command_line, "w") as f:
        f.write(COMMAND_LINE + append)
    sections = [(".cmdline", command_line), (".linux", packaged_kernel()),
                (".initrd", os.path.join(qemu.GUEST_DIR, "initramfs"))]
    # Each behind the one before, from the end of the stub's own on.
    address = align(max(vma + size for size, vma in stub_sections()))
    arguments = ["objcopy"]
    for name, content in sections:
        arguments += ["--add-section", "%s=%s" % (name, content), "--change-section-vma",
                      "%s=0x%x" % (name, address)]
        address = align(address + os.path.getsize(content))
    subprocess.run(arguments + [STUB, program], check=True)
    qemu.make_stick(path, 64)
    env = dict(os.environ, MTOOLS_SKIP_CHECK="1")
    drive = "%s@@%d" % (path, PARTITION)
    for directory in ("::EFI", "::EFI/BOOT"):
        subprocess.run(["mmd", "-i", drive, directory], check=True, env=env)
    subprocess.run(["mcopy", "-i", drive, program, "::EFI/BOOT/BOOTX64.EFI"], check=True, env=env)
    os.remove(program)


def align(address):
    return (address + 0xffff) & ~0xffff


def stub_sections():
    """(size, address) of each section of the stub, from objdump's table."""
    text = subprocess.run(["objdump", "-h", STUB], check=True, stdout=subprocess.PIPE).stdout.decode()
    rows = [line.split() for line in text.splitlines()]
    return [(int(row[2], 16), int(row[3], 16)) for row in rows if row and row[0].isdigit()]
