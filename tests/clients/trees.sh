# ./dev test-clients: a directory tree for each client, made of the packages of its own Debian release.
# Sourced by ./dev after setup.sh. Trees are cached in build-clients/; a tree without its mark is made again.
#
# Where packages come from is the machine's own apt source, its suite exchanged (setup_copy_source): the
# mirror must carry both releases, and the keyring of an older machine must know the newer one's keys.

clients_dir=$PWD/build-clients

# NAME SUITE SUITE-FOR-FREERDP3 PACKAGES... of one tree.
clients_trees() {
    echo "debian12 bookworm bookworm-backports freerdp2-x11 freerdp3-x11"
    echo "debian13 trixie trixie freerdp3-x11 openssl-provider-legacy remmina remmina-plugin-rdp"
    echo "debian13-backports trixie trixie-backports freerdp3-x11 openssl-provider-legacy"
}

clients_sources() { # SUITE [MORE]: entries for these suites
    local own suite
    own=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    for suite in "$@"; do
        setup_copy_source "$own" "$suite" || die "no apt source for $own found in $apt_etc to copy for $suite"
        echo
    done
}

clients_tree() { # NAME SUITE SUITE-FOR-FREERDP3 PACKAGES...
    local name=$1 suite=$2 newer=$3 tree=$clients_dir/$1 suites packages
    shift 3
    packages=$(IFS=, && echo "$*")
    if [ "$(cat "$tree.made" 2>/dev/null)" = "$suite $newer $packages" ]; then
        return
    fi
    say "building the tree $name: $packages"
    suites=$suite
    [ "$newer" = "$suite" ] || suites="$suite $newer"
    rm -rf "$tree" "$tree.made"
    # shellcheck disable=SC2086 # suites are words
    clients_sources $suites >"$tree.sources"
    printf 'Package: src:freerdp3\nPin: release n=%s\nPin-Priority: 600\n' "$newer" >"$tree.pins"
    if ! mmdebstrap --mode=root --variant=essential --aptopt='APT::Install-Recommends "false"' \
        --aptopt="Dir::Etc::Preferences \"$tree.pins\"" \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --include="$packages" "$suite" "$tree" - <"$tree.sources" >"$tree.log" 2>&1; then
        tail -n 20 "$tree.log" >&2
        die "the tree $name could not be built; all that was said is in $tree.log"
    fi
    rm -f "$tree.sources" "$tree.pins"
    echo "$suite $newer $packages" >"$tree.made"
}

clients_build() {
    local line
    mkdir -p "$clients_dir"
    command -v mmdebstrap >/dev/null || {
        setup_apt update
        setup_apt install --no-install-recommends mmdebstrap
    }
    while read -r line; do
        # shellcheck disable=SC2086 # the line's words
        clients_tree $line </dev/null
    done < <(clients_trees)
}
