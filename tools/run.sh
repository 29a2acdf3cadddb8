#!/usr/bin/env bash
# Mounts a writable view of LOWER at MNT: tools/run.sh LOWER MNT STATE.
# LOWER may be several directories with a colon between, topmost first. Changes are kept under STATE.
set -euo pipefail

for each in LOWER MNT STATE; do
    [ -n "${1-}" ] || { echo "No $each is given: name a directory, as in make run $each=DIR." >&2; exit 1; }
    declare "${each,,}=$1"
    shift
done
mnt=$(realpath -m "$mnt")
name=${mnt#/}
state=$(realpath -m "$state")/${name//\//-}

if mountpoint -q "$mnt" || ! { ls -d "$mnt" || [ ! -e "$mnt" ]; } >/dev/null 2>&1; then
    echo "$mnt is already mounted; to unmount it: umount $mnt" >&2
    exit 1
fi

# Directories that were made, the last one first, to be removed if nothing comes of it.
made=()
directory() {
    [ ! -d "$1" ] || return 0
    directory "$(dirname "$1")"
    mkdir "$1" || give_up
    made=("$1" ${made[@]+"${made[@]}"})
}
give_up() {
    if [[ " ${made[*]-} " = *" $state/work "* ]]; then rmdir "$state/work/work" 2>/dev/null || true; fi
    [ ${#made[@]} = 0 ] || rmdir "${made[@]}" 2>/dev/null || true
    exit 1
}

for each in "$mnt" "$state/upper" "$state/work"; do directory "$each"; done
if [ ! -O "$state" ]; then
    echo "$state belongs to another user; choose another with STATE=" >&2
    give_up
fi

veneer=$(realpath "$(dirname "$0")/../out/veneer")
options="lowerdir=$lower,upperdir=$state/upper,workdir=$state/work"
unmount=umount
if [ "$(id -u)" != 0 ]; then
    options+=,userxattr # other attributes are root's
    unmount='fusermount3 -u'
fi
"$veneer" mount -o "$options" "$mnt" || give_up

cat <<TEXT
$veneer mount -o $options $mnt

  $mnt   shows $lower, and can be written
  $state/upper   holds what you change; $lower stays as it is

To unmount: $unmount $mnt
To forget the changes, then: rm -rf $state
TEXT
