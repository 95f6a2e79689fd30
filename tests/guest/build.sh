#!/bin/bash
# Builds the test guest: tests/guest/build.sh OUTDIR leaves OUTDIR/kernel and OUTDIR/initramfs.
#
# The kernel is the distribution's (its package is fetched and unpacked, not installed), user space is
# busybox and our agent, both static, in an initramfs with the few modules below and what they need. The
# kernel is unpacked to its ELF image because QEMU starts that directly (PVH) in half the time; where that
# fails, the packaged bzImage is used. Nothing is done when OUTDIR already holds what would be made.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
out=${1:?usage: build.sh OUTDIR}
mkdir -p "$out"
out=$(cd "$out" && pwd)

# Names as in modules.dep; the rest is pulled in by dependency. A "?" marks what a kernel may lack.
modules="virtio_pci virtio_console virtio_gpu virtio_input bochs evdev psmouse?
    xhci_pci ehci_pci uhci_hcd usbhid hid_generic
    usb_storage uas sd_mod ext4 vfat exfat? nls_cp437 nls_ascii nls_utf8? nls_iso8859_1? crc32c_generic?
    usbserial ftdi_sio cp210x pl2303 cdc_acm usbtest? snd_usb_audio? uvcvideo
    cdc_ether rndis_host? usblp af_packet"

say() { printf 'guest: %s\n' "$*"; }
die() { say "$*" >&2; exit 1; }
. "$here/modules.sh"

for tool in apt-get dpkg-deb depmod cpio gcc busybox; do
    command -v "$tool" >/dev/null || PATH=$PATH:/sbin:/usr/sbin command -v "$tool" >/dev/null ||
        die "$tool is missing; ./dev setup installs it"
done
PATH=$PATH:/sbin:/usr/sbin

package=$(apt-cache depends --no-recommends --no-suggests linux-image-amd64 2>/dev/null |
    awk '/Depends: linux-image-[0-9]/ { print $2; exit }')
[ -n "$package" ] || die "apt knows no linux-image-amd64; run apt-get update"
version=$(apt-cache policy "$package" | awk '/Candidate:/ { print $2 }')
stamp=$(printf '%s %s\n' "$package" "$version"
    cat "$here"/*.c "$here"/*.h "$here"/init "$here"/profile "$here"/banner "$here"/*.sh |
        sha256sum)
if [ -f "$out/stamp" ] && [ "$(cat "$out/stamp")" = "$stamp" ] && [ -s "$out/kernel" ] &&
    [ -s "$out/initramfs" ]; then
    exit 0
fi
rm -f "$out/stamp"

tree=$out/$package-$version
if [ ! -f "$tree/complete" ]; then
    say "fetching $package $version"
    rm -rf "$tree" "$out"/linux-image-*
    mkdir -p "$tree"
    (cd "$tree" && apt-get -q -o APT::Sandbox::User= download "$package") >"$out/fetch.log" 2>&1 ||
        die "cannot fetch $package (run apt-get update?); apt says: $(tail -n 3 "$out/fetch.log")"
    say "unpacking it"
    dpkg-deb -x "$tree"/*.deb "$tree"
    rm -f "$tree"/*.deb
    [ -d "$tree/lib/modules" ] || ln -sfn usr/lib "$tree/lib" # Debian 13 has only usr/lib
    release=$(basename "$tree"/lib/modules/*)
    depmod -b "$tree" "$release"
    touch "$tree/complete"
fi
release=$(basename "$tree"/lib/modules/*)

# The ELF image inside a bzImage: its place is in the setup header (boot protocol 2.08 and later).
extract_kernel() { # BZIMAGE ELF
    field() { od -A n -t "u$3" -j "$2" -N "$3" "$1" | tr -d ' '; }
    local sectors offset length unpack
    sectors=$(field "$1" $((0x1f1)) 1)
    offset=$(field "$1" $((0x248)) 4)
    length=$(field "$1" $((0x24c)) 4)
    payload() { tail -c "+$(((sectors + 1) * 512 + offset + 1))" "$1" | head -c "$length"; }
    case $(payload "$1" | od -A n -t x1 -N 4 | tr -d ' ') in
    fd377a58) unpack="xz -dc" ;;
    28b52ffd) unpack="zstd -dcq" ;;
    1f8b*) unpack="gzip -dc" ;;
    02214c18) unpack="lz4 -dc" ;;
    *) return 1 ;;
    esac
    # The four bytes after the stream hold its length; unpackers complain about them.
    payload "$1" | $unpack >"$2" 2>/dev/null || true
    [ "$(head -c 4 "$2" | od -A n -t x1 | tr -d ' ')" = 7f454c46 ]
}

say "taking the kernel $release"
if ! extract_kernel "$tree/boot/vmlinuz-$release" "$out/kernel"; then
    say "its ELF image cannot be unpacked: using the bzImage, which starts more slowly"
    cp "$tree/boot/vmlinuz-$release" "$out/kernel"
fi

say "building user space"
root=$out/root
rm -rf "$root"
mkdir -p "$root"/{bin,sbin,dev,proc,sys,run,mnt,tmp,root,etc} "$root/lib/modules/$release"
cp "$(command -v busybox)" "$root/bin/busybox"
"$root/bin/busybox" true 2>/dev/null || die "busybox does not run; busybox-static is needed"
for applet in $("$root/bin/busybox" --list); do
    [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
ln -s ../bin/busybox "$root/sbin/modprobe" # where the kernel looks for it
gcc -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -Wshadow -Wvla -Wmissing-prototypes -static -s \
    -I/usr/include/libdrm -o "$root/bin/agent" "$here"/*.c -lm
ln -s agent "$root/bin/usbwatch"
ln -s agent "$root/bin/usbloop"
ln -s agent "$root/bin/sound"
ln -s agent "$root/bin/usbdo"
ln -s agent "$root/bin/ttydo"
ln -s agent "$root/bin/camera"
ln -s agent "$root/bin/usbbench"
install -m 755 "$here/init" "$root/init"
install -m 644 "$here/profile" "$here/banner" "$root/etc/"
echo 'root::0:0:root:/root:/bin/sh' >"$root/etc/passwd"

guest_modules "$tree" "$root" "$modules"

(cd "$root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$out/initramfs"
rm -rf "$root"
printf '%s\n' "$stamp" >"$out/stamp"
say "ready: $(du -h "$out/kernel" | cut -f1) kernel, $(du -h "$out/initramfs" | cut -f1) initramfs"
