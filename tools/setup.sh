#!/usr/bin/env bash
# Puts in place what a target needs: tools/setup.sh build|run|test|test-real|bench.
# As root on a Debian system it installs what is missing; otherwise it names it.
set -euo pipefail

purpose=${1:?build, run, test, test-real or bench}
export DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1 # .NET's own command line wants ICU, or to be told to do without

if ! command -v dotnet >/dev/null || ! dotnet --version >/dev/null 2>&1; then
    cat >&2 <<'TEXT'
Veneer needs the .NET SDK 10, and `dotnet` on the PATH. On Debian 12:
  apt-get install -y curl
  curl -LO https://packages.microsoft.com/config/debian/12/packages-microsoft-prod.deb
  dpkg -i packages-microsoft-prod.deb && apt-get update && apt-get install -y dotnet-sdk-10.0
Other systems: https://dotnet.microsoft.com/download/dotnet/10.0
TEXT
    exit 1
fi

PATH=$PATH:/usr/sbin:/sbin # where mkfs.* are, for those who are not root
missing=()
absent=()

# needs PACKAGE TEST...: the package is missing when the test fails.
needs() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}

# likes PACKAGE TEST...: the same, for what can be done without.
likes() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || absent+=("$package")
}

# As root on Debian; otherwise, and when it fails, false.
install_packages() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    echo "Installing $*"
    local log
    log=$(mktemp)
    if ! { apt-get update && apt-get install -y --no-install-recommends "$@"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        return 1
    fi
    rm -f "$log"
}
export DEBIAN_FRONTEND=noninteractive

needs gcc command -v gcc
needs libc6-dev test -e /usr/include/stdio.h
needs zlib1g-dev test -e /usr/include/zlib.h

if [ "$purpose" != build ]; then
    needs fuse3 command -v fusermount3
fi

if [ "$purpose" = test ]; then
    needs util-linux command -v unshare
    needs mount command -v mount
    needs attr command -v getfattr
    needs acl command -v setfacl
    needs e2fsprogs command -v mkfs.ext4
    needs xfsprogs command -v mkfs.xfs
    needs btrfs-progs command -v mkfs.btrfs
    needs squashfs-tools command -v mksquashfs
    needs erofs-utils command -v mkfs.erofs
    needs python3 command -v python3
    needs fuse-overlayfs command -v fuse-overlayfs
    needs bindfs command -v bindfs
    needs man-db command -v man
    needs groff-base command -v groff
fi

if [ "$purpose" = test-real ]; then
    needs util-linux command -v unshare
    needs mount command -v mount
    needs attr command -v getfattr
    needs debootstrap command -v debootstrap
fi

if [ "$purpose" = bench ]; then
    needs util-linux command -v unshare
    needs mount command -v mount
    needs e2fsprogs command -v mkfs.ext4
    likes xfsprogs command -v mkfs.xfs
    likes btrfs-progs command -v mkfs.btrfs
    likes git command -v git
    likes sqlite3 command -v sqlite3
    likes fio command -v fio
    likes debootstrap command -v debootstrap
    likes fuse-overlayfs command -v fuse-overlayfs
    likes unionfs-fuse command -v unionfs
    likes mergerfs command -v mergerfs
fi

if [ ${#missing[@]} -gt 0 ] && ! install_packages "${missing[@]}"; then
    echo "Please install: ${missing[*]} (Debian: apt-get install ${missing[*]})" >&2
    exit 1
fi
if [ ${#absent[@]} -gt 0 ] && ! install_packages "${absent[@]}"; then
    echo "Going on without ${absent[*]} (Debian: apt-get install ${absent[*]})" >&2
fi

if [ "$purpose" != build ] && [ ! -e /dev/fuse ]; then
    modprobe fuse 2>/dev/null || true
    [ -e /dev/fuse ] || echo "There is no /dev/fuse here: nothing can be mounted." >&2
fi
