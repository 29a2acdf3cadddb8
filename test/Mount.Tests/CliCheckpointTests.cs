namespace Veneer.Mount.Tests;

/// <summary>An overlay that was checkpointed is mounted again wherever its layers are, and not if they are others.</summary>
public sealed class CliCheckpointTests : IDisposable
{
    private const string Veneer = "veneer mount -o lowerdir=l,upperdir=u,workdir=w,redirect_dir=on,noatime,fsname=my\\\\,source m; ";
    private const string Kernel = "mount -t overlay o -o lowerdir=$PWD/l,upperdir=$PWD/u,workdir=$PWD/w,redirect_dir=on,noatime m; ";
    private const string Change = "mkdir -p m/dir; echo more >>m/f; echo new >m/dir/new; ";
    private const string Inodes = "(cd m; find . -exec stat -c '%n %i %h' {} + | sort; cat f dir/new); ";

    private readonly CliSandbox sandbox = new();

    public void Dispose() => sandbox.Dispose();

    private string Succeeds(string script) => sandbox.Succeeds(script).Replace(sandbox.Root, "ROOT", StringComparison.Ordinal);

    private void Refuses(int exitCode, string sentence, string script)
    {
        Outcome outcome = sandbox.Run(script);
        Assert.Matches($"^veneer: {sentence}\n$", sandbox.Relative(outcome.Error));
        Assert.Equal(("", exitCode), (outcome.Output, outcome.ExitCode));
    }

    [MountTheory]
    [InlineData(Veneer)]
    [InlineData(Kernel)]
    public void The_same_overlay_is_mounted_again(string mount)
    {
        string output = Succeeds(
            mount + Change + Inodes
            + "grep -o ' rw.*' /proc/self/mountinfo | grep -E 'overlay|veneer' | sed 's/relatime,//;s/-dir=[^,]*//g'; "
            + "veneer checkpoint m >c; umount m; ended; echo ===; "
            + "veneer restore c; " + Inodes
            + "grep -o ' rw.*' /proc/self/mountinfo | grep -E 'overlay|veneer'; echo again >m/again; umount m; "
            + "cat u/again; touch u/again; rm u/again");

        string[] halves = output.Split("===\n");
        Assert.Equal(halves[0] + "again\n", halves[1]);
        Assert.Contains("more", halves[0], StringComparison.Ordinal);
    }

    [MountFact]
    public void Options_and_flags_are_kept()
    {
        string output = Succeeds(
            "veneer mount -o lowerdir=l,upperdir=u,workdir=w,redirect_dir=on,passthrough=off,nosuid,noatime m; veneer checkpoint m >c; "
            + "veneer umount m; veneer restore c; "
            + "grep -o ' rw.*fuse.veneer' /proc/self/mountinfo; mkdir -p l; veneer checkpoint m | grep -A3 options");

        Assert.Contains(" rw,nosuid,noatime - fuse.veneer", output, StringComparison.Ordinal);
        Assert.Contains("\"redirect_dir=on\",\n      \"passthrough=off\"", output, StringComparison.Ordinal);
    }

    [MountFact]
    public void Layers_may_have_moved_and_be_mounted_elsewhere()
    {
        string output = Succeeds(
            "mkdir 'a:b,c' d; mount -t tmpfs t 'a:b,c'; cp -r l 'a:b,c'; cd 'a:b,c'; mkdir u w; "
            + "veneer mount -o lowerdir=l,upperdir=u,workdir=w ../m; cd ..;" + Change + Inodes
            + "veneer checkpoint m >c; veneer umount m; echo ===; mount --bind 'a:b,c' d; umount -l 'a:b,c'; mkdir d/deep; "
            + "mv d/u 'd/deep/u,\\:'; mv d/l d/deep/l2; veneer restore c; " + Inodes);

        string[] halves = output.Split("===\n");
        Assert.Equal(halves[0], halves[1]);
        Assert.Contains("new", halves[0], StringComparison.Ordinal);
    }

    [MountFact]
    public void What_is_volatile_stays_so_and_is_used_again_only_if_it_may_be()
    {
        const string boot = "echo 11111111-2222-3333-4444-555555555555 >boot; mount --bind boot /proc/sys/kernel/random/boot_id; ";
        const string made =
            boot
            + "mount -t tmpfs t /mnt; mkdir /mnt/u /mnt/w; veneer mount -o lowerdir=l,upperdir=/mnt/u,workdir=/mnt/w,volatile m; "
            + "echo more >>m/f; veneer checkpoint m >c; veneer umount m; mv /mnt/w /mnt/w2; ";

        Assert.Equal(
            "old\nmore\nfsync            volatile\n",
            Succeeds(
                made
                + "test -e /mnt/w2/work/incompat/volatile/dirty; veneer restore c; cat m/f; veneer status m | grep ^fsync; "
                + "veneer umount m; test -e /mnt/w2/work/incompat/volatile/dirty"));
        Refuses(32, ".*the machine has been started anew.*", made + "echo 99999999-2222-3333-4444-555555555555 >boot; veneer restore c");
    }

    [MountFact]
    public void An_overlay_without_upper_is_mounted_again()
    {
        const string again =
            "veneer checkpoint m >c; umount m; mv l l3; veneer restore c; cat m/f m/g; touch m/x 2>/dev/null || echo read-only";
        Assert.Equal("old\nsecond\nread-only\n", Succeeds("mkdir l2; echo second >l2/g; veneer mount -o lowerdir=l:l2 m; " + again));
        Assert.Equal("old\nsecond\nread-only\n",
            Succeeds("rm -r l2; mv l3 l; mkdir l2; echo second >l2/g; mount -t overlay o -o lowerdir=$PWD/l:$PWD/l2 m; " + again));
    }

    [MountFact]
    public void It_may_be_mounted_elsewhere_and_come_from_a_pipe()
    {
        Assert.Equal(
            "old\nmore\n",
            Succeeds(
                Veneer + Change
                + "veneer checkpoint m >c; veneer umount m; mkdir n; cat c | veneer restore - n; cat n/f; veneer umount n"));
    }

    [MountFact]
    public void A_layer_that_is_another_directory_is_refused()
    {
        const string made = "veneer mount -o lowerdir=l,upperdir=u,workdir=w m; veneer checkpoint m >c; veneer umount m; ";
        const string nothing = "; code=$?; ! grep -q fuse.veneer /proc/self/mountinfo || echo mounted; exit $code";
        Refuses(8, @"The lower layer l is not the same directory: its inode number is \d+, not \d+\.",
            made + "cp -r l l2; rm -r l; mv l2 l; veneer restore c" + nothing);
        Refuses(8, @"The upper layer u is not found, by its handle or by its path: mount its filesystem \(.*\) first\.",
            made + "rm -r u; veneer restore c" + nothing);
        Refuses(8, @"The lower layer l is not the same directory: it is on the (filesystem|device) \S+, not \S+\.",
            "mkdir -p u w; " + made + "rm -r l; mkdir l; mount -t tmpfs t l; veneer restore c" + nothing);
    }

    [MountFact]
    public void What_is_no_checkpoint_is_refused()
    {
        const string made = "veneer mount -o lowerdir=l,upperdir=u,workdir=w m; veneer checkpoint m >c; veneer umount m; ";
        Refuses(1, "No checkpoint is given: name its file, or - for standard input\\.", "veneer restore");
        Refuses(1, "none does not exist: name a file that veneer checkpoint has written\\.", "veneer restore none");
        Refuses(7, "l/f is not a checkpoint of veneer: make one with veneer checkpoint\\.", "veneer restore l/f");
        Refuses(7, "c is not a checkpoint of veneer: make one with veneer checkpoint\\.", "echo '{\"a\": 1}' >c; veneer restore c");
        Refuses(7, "c is not a checkpoint of veneer: make one with veneer checkpoint\\.", made + "truncate -s -20 c; veneer restore c");
        Refuses(7, "/dev/zero is too large for a checkpoint of veneer: make one with veneer checkpoint\\.", "veneer restore /dev/zero");
        Refuses(
            13,
            "c is a checkpoint of version 2, and this veneer reads version 1: "
            + "use the veneer that made it, or make one anew with veneer checkpoint\\.",
            made + "sed -i 's/\"veneer_checkpoint\": 1/\"veneer_checkpoint\": 2/' c; veneer restore c");
        Refuses(
            13,
            "Standard input is a checkpoint of version 2, and this veneer reads version 1: "
            + "use the veneer that made it, or make one anew with veneer checkpoint\\.",
            made + "sed -i 's/\"veneer_checkpoint\": 1/\"veneer_checkpoint\": 2/' c; veneer restore - <c");
        Refuses(32, "The upper directory u is the upper of the overlay on m, which process .*: unmount that first\\.",
            made + "veneer mount -o lowerdir=l,upperdir=u,workdir=w m; mkdir n; veneer restore c n");
        Refuses(7, "c is damaged: something in it is missing, or is not what it should be: make one with veneer checkpoint\\.",
            made + "sed -i /root_ino/d c; veneer restore c");
        Refuses(1, "l is a directory: name a file that veneer checkpoint has written\\.", "veneer restore l");
        Refuses(4, "c cannot be read by this user: see its permissions\\.",
            CliSandbox.AsNobody + "touch c; chmod 600 c; as veneer restore c");
        Refuses(3, "/proc is a mount of type proc, not an overlay: name the mount point of an overlay\\.", "veneer checkpoint /proc");
        Refuses(11, "l is not a mount point: name the mount point of an overlay\\.", "veneer checkpoint l");
        Refuses(1, "No mount point is given: name the one of an overlay\\.", "veneer checkpoint");
    }

    private const string Lines =
        "line() { grep \" $PWD/$1 \" /proc/self/mountinfo | tail -n 1 | sed 's/^[0-9]* [0-9]* [0-9:]* //; s/,lowerdir.*//; "
        + "s/lowerdir.*//'; }; ";

    /// <summary>Flags of the filesystem, of the mount, and of both.</summary>
    [MountTheory]
    [InlineData(Veneer)]
    [InlineData(Kernel)]
    public void Every_flag_comes_back(string mount)
    {
        string all = mount.Replace(",noatime", ",$f", StringComparison.Ordinal);
        string output = Succeeds(
            $"{Lines}for f in strictatime noatime nodiratime,noatime nosymfollow sync dirsync nosuid,nodev,noexec; do {all}a=$(line m); "
            + "veneer checkpoint m >c; umount m; ended; veneer restore c; b=$(line m); [ \"$a\" = \"$b\" ] || echo \"$f: $a, then $b\"; "
            + "umount m; ended; done; "
            + $"f=nodev; {all} mount -o remount,bind,ro m; mount --make-shared m; a=$(line m); veneer checkpoint m >c; umount m; ended; "
            + "veneer restore c; [ \"${a//shared:*-/}\" = \"$(line m | sed 's/shared:.*-//')\" ] || { echo \"$a\"; line m; }; "
            + "umount m; ended; "
            + $"{all} mount --make-unbindable m; veneer checkpoint m >c; umount m; ended; veneer restore c; line m | grep -c unbindable");

        Assert.Equal("1\n", output);
    }

    [MountFact]
    public void What_cannot_come_back_is_named()
    {
        Outcome outcome = sandbox.Run(
            "veneer mount -o $LAYERS m; veneer checkpoint m >c; veneer umount m; sed -i 's/\"propagation\": \\[[^]]*]/\"propagation\": "
            + "[\"slave\"]/; s/\"filesystem_flags\": \\[/&\"lazytime\",/' c; veneer restore c m");

        Assert.Equal(6, outcome.ExitCode);
        Assert.Equal(
            "veneer: m is mounted, but not quite as it was: the filesystem's flags were lazytime,rw, and are rw; "
            + "the propagation were slave, and are private.\n",
            sandbox.Relative(outcome.Error));
    }

    [MountTheory]
    [InlineData(Veneer)]
    [InlineData(Kernel)]
    public void A_mount_of_a_part_shows_that_part_again(string mount)
    {
        const string again =
            "mkdir b; mount --bind m/d b; veneer checkpoint b >c; umount b; umount m; ended; veneer restore c; "
            + "ls b; findmnt -n -o FSROOT b; echo 3 >b/y; umount b; cat u/d/y; ";
        Assert.Equal("x\n/d\n3\n", Succeeds("mkdir l/d; echo 2 >l/d/x; " + mount + again));
        Refuses(8, "The mount showed d of the overlay, and that cannot be opened any more \\(ENOENT\\): .*",
            "rm -rf l/d u/d; veneer restore c; code=$?; mountpoint -q b && echo mounted; exit $code");
    }

    /// <summary>More than the page of options that mount(2) takes.</summary>
    [MountFact]
    public void Many_layers_with_long_names_come_back()
    {
        Assert.Equal("60\n", Succeeds(
            "n=$(printf 'n,%.0s' {1..60}); lowers=; for i in {1..60}; do mkdir -p \"low/$n$i\"; touch \"low/$n$i/f$i\"; done; "
            + "python3 -c 'import ctypes,os,sys\nl=ctypes.CDLL(None); fs=l.syscall(430,b\"overlay\",1); "
            + "s=lambda k,p: l.syscall(431,fs,5,k,None,os.open(p,os.O_PATH))\n"
            + "for i in range(60): s(b\"lowerdir+\",\"low/\"+sys.argv[1]+str(i+1))\n"
            + "s(b\"upperdir\",\"u\"); s(b\"workdir\",\"w\"); l.syscall(431,fs,6,None,None,0); "
            + "l.syscall(429,l.syscall(432,fs,1,0),b\"\",-100,b\"m\",4)' \"$n\"; "
            + "veneer checkpoint m >c; umount m; veneer restore c; ls m | wc -l"));
    }

    [MountFact]
    public void A_copy_of_a_filesystem_is_not_taken_for_it()
    {
        const string made =
            "truncate -s 16m i; mkfs.ext4 -q i; mkdir a b c; d=$(losetup -f --show i); trap 'umount m a b c 2>/dev/null; "
            + "losetup -d $d' EXIT; mount $d a; mkdir a/u a/w; veneer mount -o lowerdir=l,upperdir=a/u,workdir=a/w m; echo right >m/x; "
            + "veneer checkpoint m >k; veneer umount m; umount a; cp i j; mount -o loop j b; echo copy >b/u/x; ";

        Assert.Equal("right\n", sandbox.Run(made + "mount $d c; veneer restore k; cat m/x; veneer umount m").Output);
        Refuses(
            8,
            @"The upper layer a/u is at b/u, on a copy \(device \S+\) of its filesystem, which was on the device \S+, "
            + @"and that is still there: mount that one\.",
            "rm -r a b c i j k; " + made + "veneer restore k");
        Refuses(
            8,
            @"The upper layer a/u is at \S+ \(device \S+\) and at \S+ \(device \S+\), on copies of one filesystem: "
            + @"unmount the one that is not meant\.",
            "rm -r a b c i j k; " + made + "mount $d c; sed -i '/\"boot\"/d' k; veneer restore k");
    }

    /// <summary>A checkpoint names directories once, each with what it must be.</summary>
    [MountFact]
    public void A_checkpoint_is_not_believed()
    {
        const string made =
            "mkdir -p evil/work v; touch evil/work/kept; veneer mount -o lowerdir=l,upperdir=u,workdir=w,redirect_dir=on m; "
            + "veneer checkpoint m >c; veneer umount m; ";
        const string nothing =
            "; code=$?; [ -e evil/work/kept ] || echo emptied; ! grep -q -e fuse.veneer -e ' - overlay' /proc/self/mountinfo || "
            + "echo mounted; exit $code";
        foreach (string type in (string[])["fuse.veneer", "overlay"])
        {
            foreach (string option in (string[])["workdir=evil", "index=off,workdir=evil"])
            {
                Refuses(
                    7,
                    "c has .* among the options, which is more than an option, or names what a checkpoint names elsewhere: "
                    + "make one with veneer checkpoint\\.",
                    $"{made}sed -i 's/fuse.veneer/{type}/; s|redirect_dir=on|{option}|' c; veneer restore c{nothing}");
            }
            Refuses(
                7, "c has .* among the options.*",
                $"{made}sed -i 's/fuse.veneer/{type}/; s|\"flags\": \"[^\"]*\"|\"flags\": \"rw,upperdir=evil\"|' c; "
                + $"veneer restore c{nothing}");
        }
        Refuses(7, "c is damaged: .*",
            made + "sed -i 's|\"mount_point\": \".*\"|\"mount_point\": \"m\\\\u0000x\"|' c; veneer restore c" + nothing);
        Refuses(7, "c is damaged: .*", made + "sed -i 's|\"root\": \"/\"|\"root\": \"..\"|' c; veneer restore c" + nothing);
        Refuses(8, ".*cannot be opened any more.*", made + "sed -i 's|\"root\": \"/\"|\"root\": \"/../l\"|' c; veneer restore c" + nothing);
        Refuses(
            4,
            "c belongs to user 65534, and what is in it decides what root mounts, and where: read it, and restore a copy that is root's\\.",
            made + "chown nobody c; veneer restore c" + nothing);
        Refuses(4, "c can be written by everybody, .*", made + "chown root c; chmod 666 c; veneer restore c" + nothing);
    }
}
