#!/usr/bin/env bash
# Real work in a Debian: the same steps in a Veneer mount and in kernel overlayfs over one lower directory, then the
# trees are compared, and each upper is mounted by the other. Ends with "N passed, N failed" (", N skipped").
#   STATE     keeps the Debian between runs        SCRATCH   holds all else, for as long as the test runs
#   OPTIONS   for both, such as redirect_dir=on    VENEER_OPTIONS   for Veneer, such as passthrough=off
#   KEEP=1    leaves SCRATCH for a look at it
set -uo pipefail
export LC_ALL=C

export PACKAGES='git python3 iputils-ping attr' REINSTALLED='coreutils gzip' PURGED='tzdata'
here=$(dirname "$(realpath "$0")")
veneer=$(realpath "$here/../../out/veneer")
debian=$(realpath -m "${STATE:-/tmp/veneer/state}")/real
sdk=$(dirname "$(realpath "$(command -v dotnet)")")

if [ "${1:-}" != inside ]; then
    if [ "$(id -u)" != 0 ]; then
        echo 'The real-work test mounts and makes devices: run it as root.' >&2
        exit 1
    fi
    mkdir -p "${SCRATCH:=/tmp/veneer}"
    scratch=$(mktemp -d -p "$(realpath "$SCRATCH")" real.XXXXXX)
    # In namespaces of its own: no mount and no process outlives the test.
    SCRATCH=$scratch unshare --mount --propagation private --pid --fork --kill-child --mount-proc \
        timeout --kill-after=10 3600 "$0" inside </dev/null &
    inside=$!
    trap 'kill -KILL $inside; exit 130' INT TERM
    trap '[ -n "${KEEP:-}" ] || rm -rf "$scratch"' EXIT
    wait $inside
    exit
fi

cd "$SCRATCH"
passed=0 failed=0 skipped=0

# pass NAME [NOTE], skip NAME REASON, fail NAME NOTE [FILE]: one line for each check; FILE says more.
pass() { passed=$((passed + 1)); printf 'ok    %-46s %s\n' "$1" "${2:-}"; }
skip() { skipped=$((skipped + 1)); printf 'skip  %-46s %s\n' "$1" "$2"; }
fail() {
    failed=$((failed + 1))
    printf 'FAIL  %-46s %s\n' "$1" "$2"
    [ -z "${3:-}" ] || head -n 20 "$3" | sed 's/^/      /'
}
finish() {
    local line="$passed passed, $failed failed"
    [ $skipped = 0 ] || line+=", $skipped skipped"
    echo "$line"
    [ $failed = 0 ]
    exit
}
# must NAME COMMAND...; same NAME FILE FILE
must() { if "${@:2}" >output 2>&1; then pass "$1"; else fail "$1" '' output; fi; }
same() { if diff "$2" "$3" >output; then pass "$1"; else fail "$1" "$(wc -l <output) lines of difference:" output; fi; }

# layers SIDE: the options of both mounts.
layers() { echo "lowerdir=$debian/lower,upperdir=$1/upper,workdir=$1/work${OPTIONS:+,$OPTIONS}"; }
mount_kernel() { mount -t overlay -o "$(layers "$1")" overlay "$2"; } # SIDE MNT
mount_veneer() { # SIDE MNT
    "$veneer" mount -f -o "$(layers "$1")${VENEER_OPTIONS:+,$VENEER_OPTIONS}" "$2" >"$2.log" 2>&1 &
    server=$!
    for _ in {1..100}; do
        ! mountpoint -q "$2" || return 0
        sleep 0.1
    done
    cat "$2.log"
    return 1
}
# The server must have ended well, and have had nothing to say.
unmount_veneer() { timeout 60 "$veneer" umount "$1" && wait "$server" && cat "$1.log" && [ ! -s "$1.log" ]; } # MNT

# trees DIR FILE...: describes each directory in the file behind it, all at once.
trees() {
    local running=()
    while [ $# -gt 0 ]; do
        "$here/tree.sh" "$1" >"$2" &
        running+=($!)
        shift 2
    done
    wait "${running[@]}"
}

# step SIDE FILE: runs a step in the side's mount, in namespaces that end with it. What it writes to descriptor 3 must be
# the same on both sides.
step() {
    local begin=$EPOCHREALTIME status=0
    timeout --kill-after=10 900 unshare --mount --propagation private --pid --fork --kill-child bash -euc '
        cd "$1"
        mount -t proc proc proc
        mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
        mount -t tmpfs tmpfs dev/shm
        mount --bind -o ro "$2" mnt
        mount --bind -o ro "$3" opt
        mount --bind -o ro /etc/resolv.conf etc/resolv.conf
        exec chroot . /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 APT_CONFIG=/mnt/apt.conf \
            DEBIAN_FRONTEND=noninteractive PACKAGES="$PACKAGES" REINSTALLED="$REINSTALLED" PURGED="$PURGED" /bin/bash -euc "$4"
    ' bash "$1/mnt" "$debian" "$sdk" "$(<"$2")" </dev/null >"$1.log" 2>&1 3>"$1.out" || status=$?
    awk -v a="$begin" -v b="$EPOCHREALTIME" 'BEGIN { print b - a }' >"$1.seconds"
    return $status
}

# both FILE: runs a step on both sides.
both() {
    local name side note status=()
    name=$(basename "$1" .sh)
    for side in veneer kernel; do
        sync -f . # what is still to be written is not this step's
        step $side "$1"
        status+=($?)
    done
    note=$(paste veneer.seconds kernel.seconds | awk '{ printf "%6.1f s   kernel %6.1f s   ratio %5.2f", $1, $2, $1 / $2 }')
    if [ "${status[*]}" = '77 77' ]; then
        skip "$name" "$(tail -n 1 veneer.out)"
    elif [ "${status[*]}" != '0 0' ]; then
        {
            echo "Exit status with Veneer ${status[0]}, with kernel overlayfs ${status[1]}; the last words with Veneer:"
            tail -n 15 veneer.log
            [ "${status[1]}" = 0 ] || { echo 'with kernel overlayfs:' && tail -n 3 kernel.log; }
        } >output
        fail "$name" "$note" output
    elif ! diff veneer.out kernel.out >output; then
        fail "$name" 'it says different things:' output
    else
        pass "$name" "$note"
    fi
}

echo 'Preparing the lower layer, a minimal Debian'
mkdir -p "$debian"
if ! flock "$debian" "$here/debian.sh" "$debian" $PACKAGES $REINSTALLED >output 2>&1; then
    fail 'prepare the lower layer' '' <(tail -n 20 output)
    finish
fi
mkdir lower
mount --bind -o ro,noatime "$debian/lower" lower # to look at it without a trace
trees lower lower.before

# With layers on two filesystems the kernel needs xino=on to give all names of a file one number; which, is its own affair.
unstable=$'\tatime\t|^\\.\tctime\t' # looking changes the first, mounting the second
if [ "$(stat -c %d "$debian")" != "$(stat -c %d .)" ]; then
    OPTIONS=${OPTIONS:+$OPTIONS,}xino=on
    unstable+=$'|\tino\t'
fi

for side in veneer kernel; do mkdir -p $side/{upper,work,mnt}; done
started=$(date +%s)
must 'mount Veneer' mount_veneer veneer veneer/mnt
must 'mount kernel overlayfs' mount_kernel kernel kernel/mnt
[ $failed = 0 ] || finish
for file in "$here"/steps/*.sh; do both "$file"; done
trees veneer/mnt veneer.tree kernel/mnt kernel.tree
must 'unmount Veneer' unmount_veneer veneer/mnt
must 'unmount kernel overlayfs' umount kernel/mnt
must "Veneer's work directory is empty" rmdir veneer/work/work
rm -f kernel/work/work/* # the kernel leaves a whiteout there, to which all others are linked
trees veneer/upper veneer.upper kernel/upper kernel.upper

# Between the two: no inode numbers, times only of what is older than the test, and none of what may differ.
sed -nE 's/^([^# ]+)\$ (\S+)$/^\1\t\2\t/p' "$here/allowed" >patterns
for tree in {veneer,kernel}.{tree,upper}; do
    awk -F'\t' -v started="$started" '
        $2 ~ /^(ino|atime|ctime|directory-size)$/ { next }
        $2 == "mtime" && $3 >= started { print $1 "\tmtime\tnew"; next }
        { print }' $tree | grep -vE -f patterns >$tree.common
done
same 'both show the same' {veneer,kernel}.tree.common
same 'both uppers are the same on disk' {veneer,kernel}.upper.common

mkdir crossed-{veneer,kernel}
must "kernel overlayfs mounts Veneer's upper" mount_kernel veneer crossed-veneer
must "Veneer mounts the upper of kernel overlayfs" mount_veneer kernel crossed-kernel
trees crossed-veneer crossed-veneer.tree crossed-kernel crossed-kernel.tree
for tree in {,crossed-}{veneer,kernel}.tree; do grep -vE "$unstable" $tree >$tree.stable; done
same 'kernel overlayfs shows what Veneer showed' {,crossed-}veneer.tree.stable
same 'Veneer shows what kernel overlayfs showed' {,crossed-}kernel.tree.stable
must 'unmount both' eval 'umount crossed-veneer && unmount_veneer crossed-kernel'

trees lower lower.after
same 'the lower layer is as it was' lower.{before,after}
finish
