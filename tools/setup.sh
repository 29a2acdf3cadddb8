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

# needs PACKAGE TEST...: the package is missing when the test fails.
needs() {
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}

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
    needs fuse-overlayfs command -v fuse-overlayfs
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
    needs xfsprogs command -v mkfs.xfs
    needs btrfs-progs command -v mkfs.btrfs
    needs git command -v git
    needs sqlite3 command -v sqlite3
    needs fuse-overlayfs command -v fuse-overlayfs
    needs unionfs-fuse command -v unionfs
    needs mergerfs command -v mergerfs
fi

if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "Please install: ${missing[*]} (Debian: apt-get install ${missing[*]})" >&2
        exit 1
    fi
    echo "Installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    if ! { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        exit 1
    fi
    rm -f "$log"
fi

if [ "$purpose" != build ] && [ ! -e /dev/fuse ]; then
    modprobe fuse 2>/dev/null || true
    [ -e /dev/fuse ] || echo "There is no /dev/fuse here: nothing can be mounted." >&2
fi
