#!/bin/bash
# Builds the client machine: tests/clientvm/build.sh OUTDIR GUESTDIR leaves OUTDIR/kernel and OUTDIR/initramfs.
#
# A machine that somebody sits at: Linux with a real USB stack, udev and the stock xfreerdp3 under Xvfb. QEMU
# gives it USB devices. Its kernel and modules are those of the test guest in GUESTDIR (tests/guest/build.sh).
# xfreerdp3, Xvfb and their libraries are copied from this system, which has them from Debian's packages
# (./dev setup); udev's package is fetched and unpacked, because a container has none. All of it is one
# initramfs: 190 MB, unpacked by the kernel in two seconds. Nothing is done when OUTDIR holds what would be made.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
guest=$here/../guest
out=${1:?usage: build.sh OUTDIR GUESTDIR}
kernel=$(cd "${2:?usage: build.sh OUTDIR GUESTDIR}" && pwd)
mkdir -p "$out"
out=$(cd "$out" && pwd)

modules="virtio_pci virtio_console virtio_net evdev af_packet
    xhci_pci ehci_pci uhci_hcd usbhid hid_generic usb_storage uas sd_mod
    usbserial ftdi_sio cdc_acm cdc_ether rndis_host? usblp snd_usb_audio
    dummy_hcd? libcomposite usb_f_hid usb_f_acm usb_f_printer"
programs="xfreerdp3 Xvfb xkbcomp"

say() { printf 'client machine: %s\n' "$*"; }
die() { say "$*" >&2; exit 1; }
. "$guest/modules.sh"

PATH=$PATH:/sbin:/usr/sbin
for tool in apt-get dpkg-deb depmod cpio busybox ldd $programs; do
    command -v "$tool" >/dev/null || die "$tool is missing; ./dev setup installs it"
done
[ -s "$kernel/stamp" ] || die "no test guest in $kernel: run tests/guest/build.sh $kernel"
tree=$(ls -d "$kernel"/linux-image-*)
[ -d "$tree/lib/modules" ] || die "$tree holds no modules: remove $kernel and build the guest again"

# What would be made: the guest's kernel, our files, and the versions of the packages that are copied.
stamp=$({
    cat "$kernel/stamp" "$guest"/modules.sh "$here"/init "$here"/build.sh
    for program in $programs; do
        dpkg-query -S "$(readlink -f "$(command -v "$program")")" 2>/dev/null || sha256sum "$(command -v "$program")"
    done | cut -d: -f1 | xargs dpkg-query -W 2>/dev/null
    apt-cache policy udev
} | sha256sum)
if [ "$(cat "$out/stamp" 2>/dev/null)" = "$stamp" ] && [ -s "$out/initramfs" ] && [ -s "$out/kernel" ]; then
    exit 0
fi
rm -f "$out/stamp"

say "fetching udev"
rm -rf "$out/udev"
mkdir -p "$out/udev"
(cd "$out/udev" && apt-get -q -o APT::Sandbox::User= download udev) >"$out/fetch.log" 2>&1 ||
    die "cannot fetch udev (run apt-get update?); apt says: $(tail -n 3 "$out/fetch.log")"
dpkg-deb -x "$out"/udev/*.deb "$out/udev"

say "gathering the client and its libraries"
root=$out/root
rm -rf "$root"
mkdir -p "$root"/{dev,proc,sys,run,tmp,root,etc/udev,usr/bin,usr/sbin,usr/lib/udev/rules.d,usr/lib64}
for link in bin sbin lib lib64; do
    ln -s usr/$link "$root/$link"
done
# A file with what the dynamic linker loads for it, to the same places.
install_program() {
    local library
    ldd "$1" | awk '/not found/ { print $1 > "/dev/stderr"; exit 1 } $3 ~ /^\// { print $3 }
        $1 ~ /^\// { print $1 }' | while read -r library; do
        [ -e "$root$library" ] || cp -L --parents "$library" "$root"
    done || die "$1 lacks libraries: $(ldd "$1" | grep 'not found')"
}
for program in $programs; do
    program=$(command -v "$program")
    install_program "$program"
    cp -L "$program" "$root/usr/bin/"
done
# OpenSSL's legacy provider (NTLM needs MD4) is loaded at run time, by a name under the libraries' directory.
legacy=$(find /usr/lib -path '*ossl-modules/legacy.so' -print -quit)
[ -z "$legacy" ] || cp -L --parents "$legacy" "$root"
cp -r --parents /usr/share/X11/xkb "$root"

udevadm=$(find "$out/udev" -path '*bin/udevadm' -type f)
install_program "$udevadm"
# Newer ones load this by name, to load drivers with.
libkmod=$(find /usr/lib /lib -name 'libkmod.so.2' -print -quit)
[ -n "$libkmod" ] || die "libkmod.so.2 is missing: it comes with kmod, which ./dev setup installs"
install_program "$libkmod"
mkdir -p "$root$(dirname "$libkmod")"
cp -L "$libkmod" "$root$libkmod"
cp "$udevadm" "$root/usr/bin/udevadm"
ln -s ../bin/udevadm "$root/usr/sbin/systemd-udevd" # the same program by another name
for rules in 50-udev-default 80-drivers; do
    cp "$(find "$out/udev" -name $rules.rules)" "$root/usr/lib/udev/rules.d/"
done
: >"$root/etc/udev/udev.conf"
echo 'root::0:0:root:/root:/bin/sh' >"$root/etc/passwd"
number=0
for group in root tty disk lp kmem dialout audio video input render cdrom tape kvm sgx; do
    echo "$group:x:$number:"
    number=$((number + 1))
done >"$root/etc/group"

cp "$(command -v busybox)" "$root/bin/busybox"
for applet in $("$root/bin/busybox" --list); do
    [ -e "$root/bin/$applet" ] || ln -s busybox "$root/bin/$applet"
done
ln -sf ../bin/busybox "$root/sbin/modprobe" # where the kernel looks for it
cpio --quiet -i --to-stdout bin/agent <"$kernel/initramfs" >"$root/bin/agent" # one agent for both machines
chmod 755 "$root/bin/agent"
install -m 755 "$here/init" "$root/init"
guest_modules "$tree" "$root" "$modules"

(cd "$root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$out/initramfs"
cp "$kernel/kernel" "$out/kernel"
rm -rf "$root" "$out/udev"
printf '%s\n' "$stamp" >"$out/stamp"
say "ready: $(du -h "$out/initramfs" | cut -f1) initramfs"
