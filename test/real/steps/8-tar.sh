# The whole tree, packed, unpacked and compared with itself.
cd /
tar --xattrs --acls --exclude=./{srv,mnt,opt,proc,dev/pts,dev/shm} --exclude='./var/cache/apt/*' -cf /srv/tree.tar .
mkdir /srv/copy
tar --xattrs --xattrs-include='*' --acls -xpf /srv/tree.tar -C /srv/copy
tar --compare -f /srv/tree.tar -C /srv/copy >&3
tar --compare -f /srv/tree.tar -C / >&3
rm /srv/tree.tar
