#!/bin/bash
# enter.sh TREE DIRECTORY... -- PROGRAM ARGUMENT...: runs a program with TREE as its root directory, in which the
# given directories of this machine are to be found under their own names. The mounts are the program's own
# (a mount namespace) and end with it; its process id is that of this script. Needs root.
set -eu
tree=$1
shift
directories=()
while [ "$1" != -- ]; do
    directories+=("$1")
    shift
done
shift
preload=${LD_PRELOAD:-} # for the program, not for mount and its like
unset LD_PRELOAD
# shellcheck disable=SC2016 # expanded by the inner shell
exec unshare --mount --propagation private bash -eu -c '
    tree=$1 preload=$2 count=$3
    shift 3
    mount -t proc proc "$tree/proc"
    mount --rbind /dev "$tree/dev"
    while [ "$count" -gt 0 ]; do
        mkdir -p "$tree$1"
        mount --bind "$1" "$tree$1"
        shift
        count=$((count - 1))
    done
    exec chroot "$tree" env ${preload:+LD_PRELOAD="$preload"} "$@"
' bash "$tree" "$preload" "${#directories[@]}" "${directories[@]}" "$@"
