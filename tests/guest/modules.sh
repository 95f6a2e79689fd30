# Kernel modules for a machine of the tests. Sourced; the caller has die().

# guest_modules TREE ROOT "NAME...": copies modules and what they need from an unpacked kernel package to ROOT.
# Names as in modules.dep. A "?" at the end marks what a kernel may lack.
guest_modules() {
    local tree=$1 root=$2 release source wanted name pattern line file target
    release=$(basename "$tree"/lib/modules/*)
    source=$tree/lib/modules/$release
    mkdir -p "$root/lib/modules/$release"
    for wanted in $3; do
        name=${wanted%\?}
        pattern="/${name//_/[-_]}\\.ko"
        line=$(grep -E "^[^:]*$pattern[^:]*:" "$source/modules.dep" || true)
        if [ -n "$line" ]; then
            echo "${line/:/}" | tr ' ' '\n'
        elif ! grep -qE "$pattern" "$source/modules.builtin" && [ "$name" = "$wanted" ]; then
            die "kernel $release has no module $name"
        fi
    done | sort -u | while read -r file; do
        [ -n "$file" ] || continue
        target=$root/lib/modules/$release/$file
        mkdir -p "$(dirname "$target")"
        case $file in
        *.xz) xz -dc "$source/$file" >"${target%.xz}" ;;
        *.zst) zstd -dcq "$source/$file" >"${target%.zst}" ;;
        *.gz) gzip -dc "$source/$file" >"${target%.gz}" ;;
        *) cp "$source/$file" "$target" ;;
        esac
    done
    cp "$source"/modules.{order,builtin,builtin.modinfo} "$root/lib/modules/$release/"
    depmod -b "$root" "$release"
}
