#!/usr/bin/env bash
# Makes the lower layer, unless it is there and unchanged: debian.sh DIR PACKAGE...
# DIR/lower is a minimal Debian, of the host's release; DIR/archives has the packages, and what they need, as files.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
mkdir -p "$1"
cd "$1"
shift
release=$(. /etc/os-release && [ "$ID" = debian ] && echo "${VERSION_CODENAME:-}") || true
release=${release:-bookworm}

# Packages come from where the host gets them, and through the same proxy.
sources() {
    apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' |
        grep -E " $release(-updates|-security)? main$" | sort -u
}
sources >sources.list || { apt-get update && sources >sources.list; } ||
    { echo "The host's apt knows no mirror of Debian $release: name one in its sources.list." >&2; exit 1; }
echo 'Dir::Etc::sourcelist "/mnt/sources.list";' >apt.conf
apt-config dump | grep -iE '^Acquire::https?::Proxy' >>apt.conf || true

if [ -s lower.tree ] && "$here/tree.sh" lower | cmp -s - lower.tree; then exit; fi

rm -rf lower archives lower.tree
mirror=$(awk -v release="$release" '$3 == release { print $2; exit }' sources.list)
extra=()
[[ $mirror != https:* ]] || extra=(--include=ca-certificates)
eval "$(apt-config shell http_proxy Acquire::http::Proxy https_proxy Acquire::https::Proxy)"
http_proxy=${http_proxy:-} https_proxy=${https_proxy:-} debootstrap --variant=minbase "${extra[@]}" "$release" lower "$mirror"
rm -f lower/var/cache/apt/archives/*.deb

mkdir -p archives/partial lower/tmp/lists/partial
mount --bind . lower/mnt
mount --bind /etc/resolv.conf lower/etc/resolv.conf
apt=(chroot lower /usr/bin/env APT_CONFIG=/mnt/apt.conf apt-get -o Dir::Cache::archives=/mnt/archives -o Dir::Cache::pkgcache=
    -o Dir::Cache::srcpkgcache= -o Dir::State::lists=/tmp/lists -o APT::Sandbox::User=root)
"${apt[@]}" update
"${apt[@]}" install -y --download-only --no-install-recommends --reinstall "$@"
umount lower/mnt lower/etc/resolv.conf
rm -rf lower/tmp/lists archives/partial archives/lock
"$here/tree.sh" lower >lower.tree
