# ./dev setup: installs the Debian packages that are missing. Sourced by ./dev.
#
# Two releases are known. Debian 12 takes FreeRDP 3, QEMU 10 and libvirt 11 from its backports suite;
# Debian 13 only FreeRDP, because 3.13 to 3.15 as a server reject clients that send monitor data. What comes
# from backports is named by source package, for one run of apt, so that nothing else moves there. The suite
# is added as a copy of the machine's own entry for its release: same mirror, same keyring, same options.

apt_etc=${QRDP_APT_ETC:-/etc/apt}

setup_packages() { # prints "package minimum-version" for this release, "-" = any version
    local backported_qemu=- backported_libvirt=-
    if [ "$codename" = bookworm ]; then
        backported_qemu=1:10.0
        backported_libvirt=11.1
    fi
    printf '%s -\n' gcc libc6-dev meson ninja-build pkg-config libglib2.0-dev libusb-1.0-0-dev \
        libusbredirparser-dev libusbredirhost-dev libxkbcommon-dev libseccomp-dev libssl-dev libpixman-1-dev libjson-glib-dev libdrm-dev libavcodec-dev libgbm-dev \
        seabios python3 busybox-static cpio kmod scdoc xz-utils zstd gzip dosfstools mtools e2fsprogs \
        ovmf syslinux syslinux-common systemd-boot-efi binutils \
        usbredirect rdesktop xvfb xauth x11-utils x11-apps xdotool xkb-data dbus util-linux procps
    [ "$codename" != trixie ] || echo "openssl-provider-legacy -"
    [ -z "${setup_fuzzing:-}" ] || printf '%s -\n' clang libclang-rt-dev
    [ -z "${setup_viewers:-}" ] || printf '%s -\n' libvncserver-dev libspice-client-glib-2.0-dev zlib1g-dev
    local freerdp=3.10
    [ "$codename" != trixie ] || freerdp=3.16
    printf "%s $freerdp\n" freerdp3-dev libwinpr3-dev freerdp3-x11
    printf "%s $backported_qemu\n" qemu-system-x86 qemu-system-common qemu-system-data \
        qemu-system-modules-opengl ${setup_viewers:+qemu-system-modules-spice}
    printf "%s $backported_libvirt\n" libvirt0 libvirt-clients libvirt-daemon \
        libvirt-daemon-driver-qemu
}

# Reads "package minimum" lines, prints the lines whose package is absent or older.
setup_missing() {
    local package minimum have
    declare -A installed
    while read -r package have; do
        installed[$package]=$have
    done < <(dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\n' 2>/dev/null |
        awk '$1 == "installed" { print $2, $3 }')
    while read -r package minimum; do
        have=${installed[$package]:-}
        if [ -z "$have" ] ||
            { [ "$minimum" != - ] && dpkg --compare-versions "$have" lt "$minimum"; }; then
            echo "$package $minimum"
        fi
    done
}

# Prints the sources entry for a suite (deb822 or one-line), rewritten to another: OLD NEW.
setup_copy_source() {
    local file found
    for file in "$apt_etc"/sources.list.d/*.sources; do
        [ -f "$file" ] || continue
        found=$(grep -v '^#' "$file" | awk -v old="$1" -v new="$2" '
            function finish(    i) {
                if (is_deb && has_suite && !disabled && !done) {
                    for (i = 0; i < n; i++)
                        print kept[i]
                    print "Suites: " new
                    print "Components: main"
                    done = 1
                }
                n = is_deb = has_suite = disabled = dropping = suites = 0
            }
            /^[ \t]*$/ { finish(); next }
            /^[ \t]/ {
                if (suites)
                    for (i = 1; i <= NF; i++) has_suite = has_suite || $i == old
                if (!dropping) kept[n++] = $0
                next
            }
            {
                field = tolower($1)
                suites = field == "suites:"
                dropping = suites || field == "components:" || field == "types:"
                for (i = 2; i <= NF; i++) {
                    if (suites && $i == old) has_suite = 1
                    if (field == "types:" && $i == "deb") { is_deb = 1; kept[n++] = "Types: deb" }
                }
                if (field == "enabled:" && tolower($2) == "no") disabled = 1
                if (!dropping) kept[n++] = $0
            }
            END { finish() }')
        if [ -n "$found" ]; then
            printf '%s\n' "$found"
            return
        fi
    done
    for file in "$apt_etc"/sources.list "$apt_etc"/sources.list.d/*.list; do
        [ -f "$file" ] || continue
        found=$(sed -nE "s#^[[:space:]]*(deb[[:space:]]+(\[[^]]*\][[:space:]]+)?[^[:space:]]+[[:space:]]+)$1([[:space:]].*)?\$#\1$2 main#p" \
            "$file" | head -n 1)
        if [ -n "$found" ]; then
            printf '%s\n' "$found"
            return
        fi
    done
    return 1
}

setup_add_backports() {
    local suite=$codename-backports entry file
    if setup_copy_source "$suite" "$suite" >/dev/null; then
        return
    fi
    entry=$(setup_copy_source "$codename" "$suite") ||
        die "no apt source for $codename found in $apt_etc: add one for $suite by hand"
    case $entry in
    deb*) file=$apt_etc/sources.list.d/qrdp-backports.list ;;
    *) file=$apt_etc/sources.list.d/qrdp-backports.sources ;;
    esac
    say "adding $suite as $file"
    printf '%s\n' "$entry" | as_root tee "$file" >/dev/null
    as_root chmod 644 "$file"
}

# Apt preferences for one run: these source packages from backports. Asking for package/suite does less and
# more: Debian 13's solver takes no dependencies along, that of Debian 12 takes also those that need not be.
setup_pins() {
    local source sources=freerdp3
    [ "$codename" != bookworm ] || sources="freerdp3 qemu seabios brltty libvirt"
    [ ! -f "$apt_etc/preferences" ] || cat "$apt_etc/preferences"
    for source in $sources; do
        printf '\nPackage: src:%s\nPin: release n=%s-backports\nPin-Priority: 600\n' \
            "$source" "$codename"
    done
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        die "installing packages needs root: run this as root, or install sudo"
    fi
}

# Runs apt-get; its full output goes to a log, what it has set up to the screen.
setup_apt() {
    local log=build-setup.log
    say "apt-get $1"
    if ! { as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@" 2>&1 || echo "E: failed"; } |
        tee -a "$log" | awk '/^(Fetched|Setting up|Need to get)/ { print "       " $0; fflush() }
                             /^E: failed$/ { bad = 1 } END { exit bad }'; then
        grep -E '^(E|W):|Err:' "$log" | tail -n 20 >&2
        die "apt-get $1 failed; all it said is in $log"
    fi
}

dev_setup() {
    local missing plain=() newer=() package minimum pins=build-setup.pins
    if [ ! -r /etc/os-release ]; then
        die "packages can be installed on Debian 12 and 13 only"
    fi
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    case $codename in
    bookworm | trixie) ;;
    *)
        say "this is not Debian 12 or 13: install what docs/testing.md lists by hand; going on"
        return
        ;;
    esac
    missing=$(setup_packages | setup_missing)
    [ -n "$missing" ] || return 0
    while read -r package minimum; do
        if [ "$minimum" = - ]; then plain+=("$package"); else newer+=("$package"); fi
    done <<<"$missing"
    say "missing: ${plain[*]} ${newer[*]}"
    as_root true || die "installing packages needs root"
    : >build-setup.log
    if [ ${#newer[@]} -gt 0 ] && needs_backports "${newer[@]}"; then
        setup_add_backports
    fi
    setup_pins >"$pins"
    setup_apt update
    setup_apt install --no-install-recommends -o "Dir::Etc::Preferences=$PWD/$pins" \
        "${plain[@]}" "${newer[@]}"
    rm -f "$pins"
    missing=$(setup_packages | setup_missing)
    [ -z "$missing" ] || die "still missing or too old after installing: $(echo "$missing" | tr '\n' ' ')"
}

# On Debian 12 everything with a minimum comes from backports, on Debian 13 FreeRDP alone.
needs_backports() {
    [ "$codename" = bookworm ] || [[ "$*" == *freerdp* ]]
}
