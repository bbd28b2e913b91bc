#!/bin/sh
# The contract of all trackers and the generated programs, on every kind of file system that can be made here.
# Needs root, for the mounts; everything is mounted below a directory of its own and unmounted at the end.
#   tests/file_systems.sh TEST_BINARY [PROGRAMS]
set -eu
binary=$1
programs=${2:-300}
place=$(mktemp -d)
trap 'cd /; for point in $(awk "{print \$2}" /proc/self/mounts | grep "^$place" | sort -r); do umount "$point"; done; rm -rf "$place"' EXIT
failed=

check() {
    echo "== $1"
    TMPDIR=$place/$1/tmp
    export TMPDIR
    mkdir -p "$TMPDIR"
    PROPTEST_CASES=$programs "$binary" snapshot::tests::contract snapshot::tests::programs 2>"$place/log" >"$place/out" ||
        { failed="$failed $1"; grep -v '^row' "$place/log" "$place/out" | tail -40; }
    grep '^test result' "$place/out"
}

image() {
    truncate -s 1G "$place/$1.image"
    mkdir "$place/$1"
    # xfs wants 300 MB and more
    "mkfs.$1" -q "$place/$1.image" && mount -o loop "$place/$1.image" "$place/$1" && check "$1"
}

overlay() {
    for part in lower upper work; do mkdir -p "$place/layers/$1/$part"; done
    mkdir "$place/$1"
    mount -t overlay overlay -o "lowerdir=$place/layers/$1/lower,upperdir=$place/layers/$1/upper,workdir=$place/layers/$1/work$2" \
        "$place/$1" && check "$1"
}

for kind in ext4 xfs btrfs; do
    if command -v "mkfs.$kind" >/dev/null; then image "$kind"; else echo "== $kind: skipped, there is no mkfs.$kind"; fi
done
mkdir "$place/tmpfs"
mount -t tmpfs tmpfs "$place/tmpfs" && check tmpfs
# an overlay on an overlay cannot be made
if [ "$(stat -f -c %T "$place")" = overlayfs ]; then
    mkdir "$place/layers" && mount -t tmpfs tmpfs "$place/layers"
fi
overlay overlay ""
overlay overlay-exported ",index=on,nfs_export=on"
overlay overlay-metacopy ",metacopy=on,redirect_dir=on"
[ -z "$failed" ] || { echo "failed on:$failed"; exit 1; }
