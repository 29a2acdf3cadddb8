# The package lists: downloads, renames over what is there, a database mapped into memory.
apt-get update
