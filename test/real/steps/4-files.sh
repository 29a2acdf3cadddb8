# What people do by hand to files of the lower layer.
cd /usr
mv share/doc share/papers
cp -a share/papers share/doc
rm -rf share/locale
mkdir share/locale
echo new >share/locale/only
cp -a lib/x86_64-linux-gnu /srv/libraries 2>/dev/null || cp -a lib/systemd /srv/libraries
chmod -R go-rx share/perl5
chown -R daemon:games share/bash-completion
find share/man share/info -name '*.gz' -delete
ln /etc/services /etc/services.link 2>/dev/null || ln /etc/passwd /etc/passwd.link
ln -s passwd /etc/passwd.symlink
echo '# appended' >>/etc/passwd
sed -i 's/^root:/root:/' /etc/group
truncate -s 100 /etc/profile
truncate -s 5M /etc/bash.bashrc
touch -d 2001-02-03 /etc/issue
install -m 4755 -o games -g mail /bin/true /usr/local/bin/setid
mkfifo /srv/fifo
mknod /srv/null c 1 3
mkdir -m 2775 /srv/setgid && chgrp staff /srv/setgid && chmod g+s /srv/setgid && touch /srv/setgid/inherits
printf 'name with a newline and bytes that are no UTF-8' >$'/srv/\xff\xfe'
dd if=/bin/bash of=/srv/holes bs=4k seek=1000 count=3 conv=notrunc status=none
find /usr -xdev -newer /etc/issue -type f | wc -l >&3
