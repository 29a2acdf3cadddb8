namespace Veneer.Cli;

/// <summary>What <c>--help</c> shows, in the sections of a manual page.</summary>
internal static class Manual
{
    /// <summary>The page of a command, or null when there is no such command.</summary>
    public static string? Of(string command) => command switch
    {
        "mount" => Mount,
        "umount" or "unmount" => Umount,
        "diff" => Diff,
        "layers" => Layers,
        "holders" => Holders,
        "list" => List,
        "stats" => Stats,
        "checkpoint" => Checkpoint,
        "restore" => Restore,
        "shutdown" => Shutdown,
        "sync" => Sync,
        "status" => Status,
        _ => null,
    };

    /// <summary>For who called without any word.</summary>
    public const string Synopsis = """
        veneer mount -o OPTIONS MOUNTPOINT     mount an overlay
        veneer umount MOUNTPOINT               unmount it
        veneer list                            list the overlays of this machine
        veneer holders DIRECTORY               see who holds a directory or a mount
        veneer diff MOUNTPOINT                 list what was changed in it
        veneer layers MOUNTPOINT [PATH]        show what it is made of
        veneer stats MOUNTPOINT                see what it does
        veneer --help                          say more
        """;

    public const string Veneer = """
        NAME
            veneer - overlay filesystem in user space

        SYNOPSIS
            veneer mount [SOURCE] MOUNTPOINT -o OPTIONS [-f] [-d]
            veneer umount [-l] MOUNTPOINT
            veneer diff MOUNTPOINT | --upper DIR --lower DIR
            veneer layers MOUNTPOINT [PATH]
            veneer holders [--json] DIRECTORY | MOUNTPOINT
            veneer list [--json]
            veneer stats [-w [SECONDS]] [--json | --openmetrics] MOUNTPOINT
            veneer checkpoint MOUNTPOINT > FILE
            veneer restore FILE [MOUNTPOINT]
            veneer sync [--iops N] MOUNTPOINT | UPPER
            veneer status [--json] MOUNTPOINT
            veneer shutdown MOUNTPOINT
            veneer COMMAND --help
            veneer --version
            mount -t fuse.veneer SOURCE MOUNTPOINT -o OPTIONS

        DESCRIPTION
            An overlay shows several directories, the layers, as one. Of what has the
            same name in several layers, directories are merged, and of anything else
            the topmost is seen. Changes go to the upper layer; the lower layers never
            change. Options and the format on disk are those of the kernel's overlayfs,
            which can mount the same layers.

            Called without a command, as other overlays are (veneer -o OPTIONS
            MOUNTPOINT), veneer mounts.

        COMMANDS
            mount       mount an overlay and serve it
            umount      unmount it, and wait until its layers are free
            list        list the overlays of this machine
            holders     see who holds a directory or a mount, and why
            diff        list what the upper changes in what the lowers show
            layers      show what it is made of, and where an object comes from
            stats       show what a mount has served, and what its server holds
            checkpoint  write down what is needed to mount it again
            restore     mount it again, wherever its layers are now
            sync        bring the upper to the disk
            status      say whether what was written is safe
            shutdown    end an overlay though its mount stays

            veneer COMMAND --help describes each.

        OPTIONS
            -h, --help      show this page, or that of a command
            -V, --version   show the version

        EXAMPLES
            Make a read-only tree writable, and keep the changes apart:
                mkdir upper work merged
                veneer mount -o lowerdir=/usr/share,upperdir=upper,workdir=work merged
                veneer umount merged

            From /etc/fstab:
                image /merged fuse.veneer lowerdir=/image,upperdir=/u,workdir=/w 0 0

        EXIT STATUS
            0    success
            1    the command line or an option is wrong
            2    the system has no process or memory left, or the output takes no more
            3    what is named is a mount, but not an overlay
            4    the caller may not do this
            7    a record is damaged
            8    a layer is not there, or is not what it was
            11   what is named is not there, or is no mount point
            12   a path is not in the overlay
            13   a record is of another version
            32   mounting or unmounting failed, or the mount does not answer

            What else a command may end with is told by its page.

        SEE ALSO
            mount(8), umount(8), fstab(5), fuse(4), fusermount3(1)
            https://docs.kernel.org/filesystems/overlayfs.html

        """;

    public const string Mount = """
        NAME
            veneer mount - mount an overlay and serve it

        SYNOPSIS
            veneer mount [SOURCE] MOUNTPOINT -o OPTIONS [-f] [-d]
            veneer -o OPTIONS MOUNTPOINT
            mount -t fuse.veneer SOURCE MOUNTPOINT -o OPTIONS

        DESCRIPTION
            Shows the lower directories at MOUNTPOINT as one tree. With an upper
            directory the tree can be written, and the upper holds the changes. SOURCE
            is what mount tables show; it has no other meaning.

            The command returns when the mount answers; its server goes on in the
            background until the mount is unmounted, and says what goes wrong through
            syslog. SIGTERM, SIGINT, SIGHUP and SIGQUIT make the server unmount; a
            second one ends it though the mount is in use. Other signals are ignored,
            but for those that tell of a fault in a program, such as SIGABRT.

            MOUNTPOINT may be /dev/fd/N, where descriptor N is a /dev/fuse that the
            caller has mounted, as libfuse's mount.fuse3 -o drop_privileges does.

            Root mounts for all users. Others mount through fusermount3, for
            themselves. What the filesystem of the upper lacks is done in another way,
            where there is one; veneer status says what.

        OPTIONS
            -o, --options LIST   mount options, with commas between; may be repeated
            -f, --foreground     serve in the foreground
            -d, --debug          show each request on standard error; implies -f
            -h, --help           show this page
            -V, --version        show the version

        MOUNT OPTIONS
          Layers
            lowerdir=DIR[:DIR...]
                The lower directories, topmost first, at most 500. A colon in a name
                is written \:, a backslash \\, a comma \, (also in other options).
            lowerdir+=DIR
                One more lower directory below those given so far, colons and
                backslashes and all.
            upperdir=DIR
                Where changes go. Without it the overlay is read-only.
            workdir=DIR
                An empty directory beside the upper, on the same filesystem. Needed
                with upperdir.

          As in the kernel
            redirect_dir=on|follow|nofollow|off
                on: directories of lower layers can be renamed. Otherwise that gives
                EXDEV, and mv copies. off means follow. Default: follow.
            metacopy=on|off
                on: when the mode, owner, times or attributes of a lower file change,
                the upper gets these alone, a metacopy, and the data when the file is
                written. Implies redirect_dir=on. Trust the layers: a metacopy shows
                what a name in a lower layer leads to. Without it, opening a metacopy
                that is there gives EPERM. Default: off.
            index=on|off
                on is not supported yet: hard links of lower layers stay links while
                mounted, and not across mounts. Default: off.
            xino=on|auto|off
                Accepted, without effect: inode numbers are always unique in the
                mount, and tell the filesystem where the layers are on several.
            userxattr
                Keep the overlay's attributes in user.overlay.* instead of
                trusted.overlay.*, in all layers. Where upper takes no others, as from
                users other than root, that is chosen for it by itself.
            volatile, fsync=auto|strict|volatile, fsync=1|0
                volatile, 0: nothing is synced, and fsync returns at once; after a
                crash of the machine the upper is lost. It can be mounted again with
                volatile as long as nothing is lost, and otherwise after veneer sync.
                auto, 1: copies of files with data are synced before they get their
                names. strict: so are those of directories and of empty files, for
                filesystems that do not keep their order. Default: auto.

          Of Veneer
            errors=continue|remount-ro|shutdown
                What happens when the kernel cannot write something back to the
                upper's filesystem, from when on fsync gives EIO in any case, or when
                a layer is moved or removed, which is logged in any case.
                remount-ro: whatever changes something gives EROFS. shutdown: see
                veneer shutdown. Default: shutdown with volatile, else continue.
            sync_on_unmount
                Sync a volatile upper when it is unmounted, as veneer sync does.
            revocable
                The kernel never reads and writes files without the server, so that a
                shutdown reaches all that is open or mapped; costs speed.
            passthrough=auto|off|lower|require
                Whether the kernel reads and writes files of upper without the server,
                and, if there is no upper, those of lower layers. Needs root and Linux
                6.9. auto: if that is there, and veneer status says why not. require:
                if it is not there, the mount fails. lower: as auto, and large files and
                programs of lower layers as well: that is faster, but whoever has one
                open when it is first changed goes on reading the old content, and its
                watches and locks are not those of who opens it later. Default: auto.
            coherent
                Whoever has a lower file open sees what is written to it later: the
                default, and so without effect.
            io_uring[=auto|off|require]
                Whether requests come over io_uring, which saves a quarter to a third
                of the time that each takes. The kernel must offer it: Linux 6.14, and
                Y in /sys/module/fuse/parameters/enable_uring, which root writes there
                before mounting. auto: over io_uring if it does, and veneer status
                says why not. Default: auto; without a value: require.
            threads=N
                How many threads, from 1 to 256, are ready for requests that do not
                come over io_uring, which has one for each CPU. More come when some
                take long. Default: one or two.
            inuse=refuse|warn
                What to do when another overlay, of Veneer or of the kernel, uses the
                upper or the work, or changes a lower. warn: mount all the same, and
                say so in the log; what both do to it is undefined. Default: refuse,
                and name who has it.
            pin
                While mounted, the layers cannot be removed or renamed in this mount
                namespace: that gives EBUSY. Needs the right to mount. Without it, what
                happens when one is, errors= says.

          Of any mount
            ro, rw, nosuid, suid, nodev, dev, noexec, exec, sync, async, dirsync,
            noatime, nodiratime, relatime, strictatime, nosymfollow
                As for mount(8).
            remount
                Change these flags of a mount that is there, as in veneer mount -o
                remount,ro MOUNTPOINT. mount -o remount does the same where the helper
                of mount(8) is installed. Other options are ignored then, as by the
                kernel.
            debug
                As -d.
            allow_other
                Let other users in. The default for root.
            fsname=NAME
                The same as SOURCE.
            subtype=NAME, uuid=on|auto|null|off
                No effect: the type is always fuse.veneer, and a FUSE mount shows no
                identity in statfs(2).
            default_permissions, override_creds, nfs_export=off, verity=off
                No effect: it is always so. The kernel checks permissions; the layers
                are reached with the mounter's credentials.

            Options of other overlays that would do no harm are named on standard
            error and have no effect. Unknown options are refused.

        EXAMPLES
            Two read-only layers:
                veneer mount -o lowerdir=/image/top:/image/base /mnt

            A mount point inside the lower tree:
                veneer mount -o lowerdir=/,upperdir=/var/u,workdir=/var/w /mnt

            As a user other than root:
                veneer mount -o lowerdir=a,upperdir=u,workdir=w,userxattr mnt

        EXIT STATUS
            0    the mount answers (with -f: it was unmounted)
            1    the command line or an option is wrong
            2    the system has no process or memory left
            32   the mount failed

        SEE ALSO
            veneer umount --help, mount(8), fuse(4), fusermount3(1)
            https://docs.kernel.org/filesystems/overlayfs.html

        """;

    public const string Umount = """
        NAME
            veneer umount - unmount an overlay and wait until its layers are free

        SYNOPSIS
            veneer umount [-l] MOUNTPOINT
            umount MOUNTPOINT

        DESCRIPTION
            Unmounts MOUNTPOINT, and returns when its server has let go of the layers,
            so that the filesystem they are on can be unmounted at once. umount(8)
            does the same where /sbin/umount.fuse.veneer is installed; without it,
            umount and fusermount3 -u return when the mount is out of sight.

            A mount in use is left as it is, and the message names who uses it. Of one
            with sync_on_unmount the upper is brought to the disk first, which takes as
            long as it takes; veneer umount waits for that.

        OPTIONS
            -l, --lazy      take the mount out of sight now; it ends when its last user
                            has gone, and this command does not wait for that
            -v, --verbose   say what was unmounted
            -h, --help      show this page
            -V, --version   show the version

            -f, -n, -r, -N and -t, which umount(8) passes, have no effect: a server
            that hangs is no hindrance to unmounting.

        EXAMPLES
            veneer umount merged && umount /filesystem/of/the/layers

        EXIT STATUS
            0    unmounted
            1    the command line is wrong
            32   not unmounted; or unmounted, while the server still holds the layers
                 after 30 seconds, since another mount namespace has a copy

        SEE ALSO
            veneer mount --help, umount(8), fusermount3(1), mount_namespaces(7)

        """;

    public const string Diff = """
        NAME
            veneer diff - list what an upper changes in what its lowers show

        SYNOPSIS
            veneer diff MOUNTPOINT [--json | --stat | --tar FILE]
            veneer diff --upper DIR --lower DIR[:DIR...] [--userxattr] [...]

        DESCRIPTION
            Lists the changes since the baseline, which is what the lower layers show
            without the upper: a line for each, in the order of their paths as bytes.
            Reads the upper, and of the lowers only what has the same name as something
            in the upper, so that it takes as long as there are changes, however large
            the image is. Nothing is changed by it, and no symbolic link is followed.

            MOUNTPOINT is that of an overlay of Veneer or of the kernel. Layers that are
            named need not be mounted. An overlay may be written meanwhile: what changes
            while it is read is named on standard error. Where the layers are out of
            reach, as in a container, the server of the mount is asked.

            A path                added
            M path                its content differs
            m path                the same, but for permissions, owner, attributes or
                                  the time of modification
            D path                deleted; of a directory, with all that was in it
            S path                substituted: another object of the same type
            R old -> new          renamed; with RM its content, with Rm its attributes
                                  differ as well. What is listed below a renamed
                                  directory is relative to the old one
            T path                changed its type
            O path                a directory in the place of another, of which nothing
                                  is left

            Bytes that are not UTF-8, and characters that are not seen, are written
            \xNN; a backslash \\.

        OPTIONS
            --upper DIR      the upper directory
            --lower DIR      the lower directories, as in lowerdir=
            --userxattr      the overlay's attributes are user.overlay.*
            --json           a JSON object on each line, see docs/changes.md
            --stat           how many changes of each kind, and the size of new content
            --tar FILE       a layer of an OCI image, with whiteouts of AUFS (.wh.NAME);
                             the same layers give the same bytes. - is standard output
            --mtime TIME     with --tar: the time of modification that all in it gets,
                             @SECONDS since 1970 or a date
            --clamp-mtime    with --tar: only what is newer gets the time of --mtime, or
                             that of SOURCE_DATE_EPOCH
            -h, --help       show this page

        EXAMPLES
            What a container has changed:
                veneer diff /run/container/merged

            What an image's topmost layer changes:
                veneer diff --upper /image/top --lower /image/middle:/image/base

            Make a layer of it:
                veneer diff /run/container/merged --tar layer.tar

        EXIT STATUS
            0    everything was listed, also when there is nothing
            1    the command line is wrong, or a layer is not there
            2    the output could not be written
            3    MOUNTPOINT is a mount, but not an overlay
            4    the caller may not read the layers
            5    everything was listed, but something changed meanwhile: it was named
            6    something could not be read, or be put into a tar: it was named
            11   MOUNTPOINT is not there, or is no mount point
            32   the mount does not tell its layers

        SEE ALSO
            veneer mount --help, docs/changes.md

        """;

    public const string Layers = """
        NAME
            veneer layers - show what an overlay is made of

        SYNOPSIS
            veneer layers MOUNTPOINT [PATH] [--json]

        DESCRIPTION
            Shows the layers of a mounted overlay, of Veneer or of the kernel: where
            each is now, though it was named by a relative path or moved since, the
            device and the mount that it is on, and its file handle. With PATH, an
            object in the overlay or one that was deleted there, also which layers
            contribute to it, in their order, and what for:

            upper       it is in the upper, which has the attributes that users see
            lower       it is in a lower, and nothing is above it
            merged      a directory whose entries show through one above it
            opaque      a directory below which nothing shows through
            whiteout    it says that there is nothing
            metacopy    it has attributes only
            data        it has the data of a metacopy
            origin      the upper's object was copied from it, and has its number
            redirected  it has another path in this layer, since it was renamed

            MOUNTPOINT may also be an object in an overlay. A layer is found by its
            path, or, as root, by its handle wherever its filesystem is mounted.

        OPTIONS
            --json          an object of JSON, see docs/control.md
            -h, --help      show this page

        EXAMPLES
            Where does a file come from?
                veneer layers /run/container/merged etc/passwd

        EXIT STATUS
            0    shown
            1    the command line is wrong
            2    the output takes no more
            3    MOUNTPOINT is a mount, but not an overlay
            4    the caller may not read the layers
            11   MOUNTPOINT is not there, or is no mount point
            12   PATH is not in the overlay, or no layer has it
            32   the mount does not tell its layers

        SEE ALSO
            veneer diff --help, docs/control.md, open_by_handle_at(2)

        """;

    public const string Holders = """
        NAME
            veneer holders - see who holds a directory or a mount, and why

        SYNOPSIS
            veneer holders [--json] DIRECTORY | MOUNTPOINT

        DESCRIPTION
            Answers "device or resource busy, but nothing is mounted here". It shows, of
            a directory or of all that a mount shows:

            the overlays that have it as a layer, of Veneer and of the kernel, with
            what keeps each of them: the mount namespaces in which a copy of it lives,
            with the processes in them, or what else keeps a namespace (a bind mount of
            its file, a descriptor), and the processes that use its files;
            other mounts of it, in all mount namespaces that may be read, and what is
            mounted in it;
            processes with a working directory, a root directory, a program, open
            files, maps, bound sockets or files registered with an io_uring in it,
            each thread with what it has for itself, also where the mount was taken
            out of sight (umount -l);
            loop devices and swap files on files in it, and mounts of images in it.

            Of a mount that nobody was found to hold, the kernel is asked whether it is
            in use. Then it says so, and what cannot be seen: processes of other pid
            namespaces, descriptors that were sent and not yet received.

            Of an overlay that was shut down, who has files open or mapped that are
            passed through still holds the filesystems of its layers.

            Nothing below a mount that hangs is touched, so the answer comes even then.
            Root sees all; others see what /proc shows them.

        OPTIONS
            --json          an object of JSON, see docs/lifecycle.md
            -h, --help      show this page

        EXAMPLES
            Who keeps the upper of a container?
                veneer holders /run/container/upper

        EXIT STATUS
            0    nothing holds it
            1    the command line is wrong
            2    the output takes no more
            4    the caller may not reach it
            6    nothing was found to hold it, but not everything could be looked at
            10   something holds it
            11   it does not exist, or is no directory
            32   it cannot be looked at

        SEE ALSO
            veneer list --help, fuser(1), lsof(8), findmnt(8), mount_namespaces(7)

        """;

    public const string List = """
        NAME
            veneer list - list the overlays of this machine

        SYNOPSIS
            veneer list [--json]

        DESCRIPTION
            Shows every overlay of Veneer that can be seen, in all mount namespaces that
            may be read, those included that are mounted nowhere any more: where it is
            mounted, its server, how long that has served and how many requests, the
            layers, how full upper's filesystem is, and the command.

            Each server has a second to answer; one that hangs "does not answer".

        OPTIONS
            --json          an object of JSON, see docs/lifecycle.md
            -h, --help      show this page

        EXAMPLES
            What is mounted, and by which command?
                veneer list --json | jq -r '.overlays[].command'

        EXIT STATUS
            0    listed
            1    the command line is wrong
            2    the output takes no more
            6    listed, but not everything could be looked at

        SEE ALSO
            veneer stats --help, veneer holders --help, findmnt(8)

        """;

    public const string Stats = """
        NAME
            veneer stats - show what a mount has served, and what its server holds

        SYNOPSIS
            veneer stats [-w [SECONDS]] [--json | --openmetrics] MOUNTPOINT

        DESCRIPTION
            Asks the server of a mount for its numbers, which are counted from when it
            was mounted, and prints a summary and a table of the requests that the
            kernel sent, the most frequent first. MOUNTPOINT may be any file or
            directory of the mount. Only root and the user who mounted it may ask.

            What does not reach the server is not counted: names and attributes that
            the kernel remembers, and data of files that are passed through.

            request   the kind, as the kernel's protocol names it
            count     how many were served
            /s        how many a second since the last look (with --watch)
            errors    how many were answered with an error, such as "no attribute"; the
                      first flush and opendir are, which spares all others
            bytes     content that was read or written (K is 1024)
            p50, p90, p99, max
                      half, nine of ten, 99 of 100, all of them took no longer, from
                      their arrival at the server until the reply; right to some 10 %.
                      With --watch those since the last look.

        OPTIONS
            -w, --watch [SECONDS]
                            look again every so many seconds, from 0.1 on, until it is
                            interrupted or the mount is gone. Default: 2
            --json          print the server's answer as one line of JSON, with stable
                            names; docs/control.md describes it
            --openmetrics   print OpenMetrics text, such as Prometheus reads
            -h, --help      show this page
            -V, --version   show the version

        EXAMPLES
            Which requests fail, or take long:
                veneer stats merged

            Whether data is passed through:
                veneer stats --json merged | jq .opens

            For the textfile collector of node_exporter, from cron:
                veneer stats --openmetrics merged >/var/lib/node/m.prom.new &&
                mv /var/lib/node/m.prom.new /var/lib/node/m.prom

        EXIT STATUS
            0    success
            1    the command line is wrong
            2    the system has no process or memory left, or the output takes no more
            3    MOUNTPOINT is not in a mount of Veneer
            4    the caller may not ask
            11   MOUNTPOINT is not there
            32   there is no answer: the server is gone, older, or has not answered for
                 5 seconds

        SEE ALSO
            veneer mount --help, https://prometheus.io/docs/specs/om/

        """;

    public const string Checkpoint = """
        NAME
            veneer checkpoint - write down what is needed to mount an overlay again

        SYNOPSIS
            veneer checkpoint MOUNTPOINT > FILE

        DESCRIPTION
            Writes an object of JSON to standard output: the layers of an overlay, of
            Veneer or of the kernel, by filesystem, file handle and path, its options
            and flags. Nothing is stopped or changed by it.

        OPTIONS
            -h, --help      show this page

        EXAMPLES
            veneer checkpoint /merged > merged.json
            veneer umount /merged
            veneer restore merged.json

        EXIT STATUS
            0    written
            1    the command line is wrong
            2    the output could not be written
            3    MOUNTPOINT is a mount, but not an overlay
            4    the caller may not ask for it
            11   MOUNTPOINT is not there, or is no mount point
            32   the mount does not tell its layers

        SEE ALSO
            veneer restore --help, docs/checkpoint.md

        """;

    public const string Restore = """
        NAME
            veneer restore - mount an overlay again from a checkpoint

        SYNOPSIS
            veneer restore FILE [MOUNTPOINT]

        DESCRIPTION
            Mounts the overlay that FILE describes (- is standard input) where it was,
            or on MOUNTPOINT. Each layer is found by its file handle, wherever its
            filesystem is mounted now and whatever its path has become, or by its path;
            in any case it must be the same directory of the same filesystem, and not
            one on a copy of it. Otherwise nothing is mounted, and the reason is named.
            Finding by handle needs root.

            Inode numbers are the same as before, since they are those of the layers.
            Flags are the same as well; those that cannot be are named.

            FILE decides what is mounted, and where: root takes none that belongs to
            somebody else, or that everybody can write.

        OPTIONS
            -h, --help      show this page

        EXAMPLES
            veneer restore merged.json
            veneer restore merged.json /elsewhere

        EXIT STATUS
            0    mounted
            1    the command line is wrong, or FILE cannot be read
            2    the system has no process or memory left
            4    the caller may not read FILE, or should not believe it
            6    mounted, but something is not as it was: it was named
            7    FILE is not a checkpoint, or is damaged
            8    a layer is not found, or is not the same directory
            13   FILE is a checkpoint of another version
            32   the mount failed

        SEE ALSO
            veneer checkpoint --help, veneer mount --help, docs/checkpoint.md

        """;

    public const string Shutdown = """
        NAME
            veneer shutdown - end an overlay though its mount stays

        SYNOPSIS
            veneer shutdown MOUNTPOINT

        DESCRIPTION
            Every operation on the overlay fails with EIO from now on, in whatever
            mount namespace its mount was copied into. Operations that were begun end
            first, and what was changed through maps is written. Then the server lets
            go of the layers and of its locks: they can be unmounted, removed, or
            mounted again. The mount itself stays until it is unmounted.

            Files that are open fail as well, also where the kernel reads and writes
            them without the server. What had been mapped of such a file before can
            still be read and written through the map, and keeps the layer's filesystem
            in use until it is unmapped. With the mount option revocable there are none.

            For those with CAP_SYS_ADMIN in the user namespace of the mount, and for
            the user who mounted it without being root. Programs call ioctl(2) with
            FS_IOC_SHUTDOWN on any file or directory of the mount.

        OPTIONS
            -h, --help      show this page

        EXAMPLES
            Free the layers of a mount that some process has a copy of:
                veneer shutdown merged
                veneer umount -l merged

        EXIT STATUS
            0    it is shut down
            1    the command line is wrong
            2    the system has no process or memory left
            3    MOUNTPOINT is not in a mount of Veneer
            4    the caller may not do this
            11   MOUNTPOINT is not there
            32   it could not be shut down, or files that the kernel reads and writes by
                 itself could not be taken from who has them open

        SEE ALSO
            veneer umount --help, ioctl(2)

        """;

    public const string Sync = """
        NAME
            veneer sync - bring an upper directory to the disk

        SYNOPSIS
            veneer sync [--iops N] MOUNTPOINT
            veneer sync [--iops N] [--work DIR] UPPER

        DESCRIPTION
            Writes what was written to an overlay to the disk: each file and directory
            of its upper, and nothing else of that filesystem. The overlay goes on
            meanwhile; what was there at the beginning is synced, though it is moved.
            If hundreds of things are moved, or an UPPER is named that is in use, all of
            that filesystem is synced in the end. (Of moves in an overlay of the kernel
            nobody is told: sync it when it is unmounted.) What cannot be written is
            named, file by file.

            When all is there, and the overlay is not mounted, the mark of a volatile
            upper is removed, so that it can be mounted without volatile, also by the
            kernel. A mounted one stays volatile: unmount it and sync once more. The
            mount option sync_on_unmount does that by itself.

            What may lack something that no sync brings back, since the machine was
            started anew, the filesystem mounted anew, or writing to it failed, is
            refused, and nothing is changed.

        OPTIONS
            --iops N      at most N operations a second: files, directories, and pieces
                          of large files of 1 MiB
            --work DIR    the work directory, where it is not where it was
            -h, --help    show this page

        EXAMPLES
            Make a volatile upper an ordinary one, without pressing the disk:
                veneer umount merged
                veneer sync --iops 100 upper

        EXIT STATUS
            0    all is on the disk
            1    the command line is wrong
            2    the system has no process or memory left
            3    MOUNTPOINT is that of an overlay of the kernel
            4    the caller may not read UPPER, or not ask the server
            7    the record in UPPER is damaged
            9    something is not on the disk, or may be lost: it was named
            11   what is named is not there
            13   the record in UPPER is of another version of Veneer
            32   it failed otherwise

        SEE ALSO
            veneer mount --help, fsync(2)

        """;

    public const string Status = """
        NAME
            veneer status - whether what was written to an overlay is safe

        SYNOPSIS
            veneer status [--json] MOUNTPOINT

        DESCRIPTION
            Says what fsync(2) does on the overlay, whether anything could not be
            written back since it was mounted, which failures are found, what follows
            after one, how its upper can be mounted again, what the filesystem of
            its upper cannot do, with what is done instead; and why files are not
            passed through, or requests do not come over io_uring, if that was wanted
            and cannot be. The user who mounted it may ask, and root.

        OPTIONS
            --json        the answer as docs/control.md has it
            -h, --help    show this page

        EXAMPLES
            Has anything been lost?
                veneer status --json merged | jq .failure

        EXIT STATUS
            0    it was said
            1    the command line is wrong
            2    the system has no process or memory left, or the output takes no more
            3    MOUNTPOINT is not in a mount of Veneer
            4    the caller may not ask
            11   MOUNTPOINT is not there
            32   the server gives no answer

        SEE ALSO
            veneer sync --help, docs/control.md

        """;
}
