# Packages of the lower layer: one is unpacked over itself, one removed, so that every name of it is a whiteout.
apt-get install -y --reinstall $REINSTALLED
apt-get purge -y --allow-remove-essential $PURGED
dpkg --verify >&3
