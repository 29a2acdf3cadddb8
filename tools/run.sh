#!/usr/bin/env bash
# Mounts a writable view of LOWER at MNT: tools/run.sh LOWER MNT STATE.
# LOWER may be several directories with a colon between, topmost first. Changes are kept under STATE.
set -euo pipefail

lower=${1:?lower directory}
mnt=$(realpath -m "${2:?mount point}")
name=${mnt#/}
state=$(realpath -m "${3:?state directory}")/${name//\//-}

if mountpoint -q "$mnt" || ! { ls -d "$mnt" || [ ! -e "$mnt" ]; } >/dev/null 2>&1; then
    echo "$mnt is already mounted; to unmount it: umount $mnt" >&2
    exit 1
fi

mkdir -p "$mnt" "$state/upper" "$state/work"
if [ ! -O "$state" ]; then
    echo "$state belongs to another user; choose another with STATE=" >&2
    exit 1
fi

veneer=$(realpath "$(dirname "$0")/../out/veneer")
options="lowerdir=$lower,upperdir=$state/upper,workdir=$state/work"
echo "$veneer mount -o $options $mnt"
"$veneer" mount -o "$options" "$mnt"

cat <<TEXT

  $mnt   shows $lower, and can be written
  $state/upper   holds what you change; $lower stays as it is

To unmount: umount $mnt   (or, if you are not root: fusermount3 -u $mnt)
To forget the changes, then: rm -rf $state
TEXT
