# Packages with many files, links, owners and a file with capabilities. The archives were downloaded before.
cp /mnt/archives/*.deb /var/cache/apt/archives/
apt-get install -y --no-install-recommends $PACKAGES
dpkg --verify >&3
