#!/usr/bin/env bash
# Describes a tree: tree.sh DIR. Each line is a NAME, a tab, a FACT, a tab and its VALUE; they are sorted.
set -euo pipefail
export LC_ALL=C
cd "$1"

{
    find . -printf '%p\tmode\t%M\n%p\towner\t%U:%G\n%p\tlinks\t%n\n%p\tino\t%i\n%p\tatime\t%A@\n%p\tmtime\t%T@\n%p\tctime\t%C@\n'
    find . -type d -printf '%p\tdirectory-size\t%s\n'
    find . -type f -printf '%p\tsize\t%s\n'
    find . -type l -printf '%p\ttarget\t%l\n'
    find . '(' -type b -o -type c ')' -exec stat --printf '%n\tdevice\t%t:%T\n' {} +
    find . -type f -exec sha256sum -z {} + | tr '\0' '\n' | sed -E 's/^([0-9a-f]+)  (.*)/\2\tdata\t\1/'
    # The names of one file, each with the first of them.
    find . ! -type d -links +1 -printf '%D:%i\t%p\n' | sort |
        awk -F'\t' '$1 != inode { inode = $1; first = $2 } { print $2 "\tsame-as\t" first }'
    find . -exec getfattr -h -d -e hex -m - {} + |
        awk '/^# file: / { name = substr($0, 9) } /^[^#].*=/ { print name "\txattr\t" $0 }'
} | sort
