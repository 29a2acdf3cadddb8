using System.Text.RegularExpressions;

namespace Veneer.Mount.Tests;

/// <summary>Each mistake gets one sentence and an exit code, and nothing is touched.</summary>
public sealed partial class CliBadInputTests : IDisposable
{
    private readonly CliSandbox sandbox = new();

    public void Dispose() => sandbox.Dispose();

    [GeneratedRegex(@"\(\d+\)", RegexOptions.None, matchTimeoutMilliseconds: 1000)]
    private static partial Regex Pid();

    private void Refuses(string command, int exitCode, string sentence, string? prepare = null)
    {
        if (prepare is not null) { Assert.Equal((0, ""), (sandbox.Run(prepare).ExitCode, sandbox.Run(prepare).Error)); }
        string[] before = sandbox.Entries();

        Outcome outcome = sandbox.Run(command);

        string error = Pid().Replace(sandbox.Relative(outcome.Error), "(PID)");
        Assert.Equal($"veneer: {sentence}\n", error);
        Assert.Equal("", outcome.Output);
        Assert.Equal(exitCode, outcome.ExitCode);
        Assert.Equal(before, sandbox.Entries());
    }

    /// <summary>FUSE over io_uring, which most kernels have and do not offer.</summary>
    private const string Offer = "/sys/module/fuse/parameters/enable_uring";

    [MountFact(DisableParallelization = true)] // nobody is offered it meanwhile
    public void What_the_kernel_does_not_offer()
    {
        string? was = File.Exists(Offer) ? File.ReadAllText(Offer) : null;
        try
        {
            if (was is not null) { File.WriteAllText(Offer, "N"); }
            Assert.Equal(0, sandbox.Run("veneer mount -o $LAYERS,io_uring=auto m && veneer umount m").ExitCode);
            Assert.Equal("", sandbox.Run("veneer mount -f -o $LAYERS,io_uring=off m & mounted m; umount m; wait").Error);
            Refuses(
                "veneer mount -o $LAYERS,io_uring m", 32,
                "io_uring: the kernel does not offer it for FUSE: write Y to /sys/module/fuse/parameters/enable_uring as root (Linux "
                + "6.14), or mount with io_uring=auto.");
        }
        finally
        {
            if (was is not null) { File.WriteAllText(Offer, was); }
        }
    }

    [MountFact]
    public void Words_that_are_wrong()
    {
        Refuses("veneer mount", 1, "No mount point is given: name a directory, after the options or before them.");
        Refuses("veneer mount -o $LAYERS", 1, "No mount point is given: name a directory, after the options or before them.");
        Refuses("veneer frob", 1, "frob is not a command of veneer: see veneer --help for those that there are.");
        Refuses("veneer l m", 1, "l is not a command of veneer: see veneer --help for those that there are.");
        const string mont =
            "mont is not a command of veneer: did you mean mount? As a source it is given as veneer mount mont MOUNTPOINT -o OPTIONS.";
        Refuses("veneer mont -o $LAYERS m", 1, mont);
        Refuses("veneer mont m -o $LAYERS", 1, mont);
        const string empty = "-o needs options, such as -o lowerdir=DIR,upperdir=DIR,workdir=DIR: see veneer mount --help.";
        Refuses("veneer mount m -o", 1, empty);
        Refuses("veneer mount -o", 1, empty);
        Refuses("veneer diff m --tar", 1, "--tar needs a value: see veneer diff --help.");
        Refuses("veneer list --json=no", 1, "--json takes no value: leave out =no.");
        Refuses("veneer status --json=true m", 1, "--json takes no value: leave out =true.");
        Refuses("mkdir true; cd true; veneer status --json true; code=$?; cd ..; rmdir true; exit $code", 11,
            "true does not exist: name a mount point.");
        Refuses("veneer diff --upper u --lower ''", 1, "--lower is empty: name a directory.");
        Refuses("veneer diff --upper u --lower l::l", 1,
            "--lower l::l has an empty path: take out the colon too much, or write \\: for a colon in a name.");
        Refuses("veneer '[suggest:x]' 'veneer m'", 1, "[suggest:x] is not understood: give the position of the cursor in the line.");
        Refuses(
            "veneer umuont m", 1,
            "umuont is not a command of veneer: did you mean umount? "
            + "As a source it is given as veneer mount umuont MOUNTPOINT -o OPTIONS.");
        Refuses(
            "veneer chekpoint m", 1,
            "chekpoint is not a command of veneer: did you mean checkpoint? As a source it is given as veneer mount chekpoint MOUNTPOINT "
            + "-o OPTIONS.");
        Refuses("veneer help frob", 1, "frob is not a command of veneer: see veneer --help for those that there are.");
        Refuses("veneer --frob", 1, "--frob is not an option of veneer mount: see veneer mount --help.");
        Refuses("veneer mount -o $LAYERS a b m", 1, "m is one word too many: give a source, if any, and a mount point.");
        Refuses("veneer mount --bogus -o $LAYERS m", 1, "--bogus is not an option of veneer mount: see veneer mount --help.");
        Refuses("veneer mount -o $LAYERS ''", 1, "A word is empty: name a file or a directory.");
        Refuses("veneer umount", 1, "No mount point is given: name the one to unmount.");
        Refuses("veneer umount a b", 1, "b is one word too many: give one mount point.");
        Refuses("veneer stats", 1, "No mount point is given: name the one to look at.");
        Refuses("veneer stats a b", 1, "b is one word too many: give one mount point.");
        Refuses("veneer stats --bogus", 1, "--bogus is not an option of veneer stats: see veneer stats --help.");
        Refuses("veneer stats --json --openmetrics m", 1, "--json and --openmetrics are two forms of the same: choose one.");
        Refuses("veneer stats --watch --openmetrics m", 1,
            "--openmetrics is for one look at a time: leave out --watch, and run it as often as needed.");
        Refuses("veneer stats --watch 0 m", 1, "--watch 0 is no time to wait: give seconds from 0.1 to 86400.");
        Refuses("veneer stats m --watch 1e9", 1, "--watch 1e9 is no time to wait: give seconds from 0.1 to 86400.");
        Refuses("veneer umount --bogus", 1, "--bogus is not an option of veneer umount: see veneer umount --help.");
    }

    [MountFact]
    public void Options_that_are_wrong()
    {
        Refuses("veneer mount m", 1,
            "No lower directory is given: say which to show with -o lowerdir=DIR, or lowerdir=TOP:BELOW for several.");
        Refuses("veneer mount -o $LAYERS,frobnicate m", 1,
            "The option frobnicate is unknown: take it out, or see veneer mount --help for those that exist.");
        Refuses("veneer mount -o $LAYERS,frob m", 1,
            "The option frob is unknown: take it out, or see veneer mount --help for those that exist.");
        Refuses("veneer mount -o lowerdir=l,upperdir=a,b/u,workdir=w m", 1,
            "The option b/u is unknown: take it out, or, if it is part of a path, write \\, for the comma before it.");
        Refuses("veneer mount -o $LAYERS,redirectdir=on m", 1, "The option redirectdir is unknown: did you mean redirect_dir?");
        Refuses("veneer mount -o $LAYERS,index=on m", 1,
            "index=on is not supported yet: leave it out, hard links stay whole while mounted without it.");
        Refuses("veneer mount -o $LAYERS,nfs_export=on m", 1,
            "nfs_export=on is not supported yet: leave it out, and export a layer instead of the overlay.");
        Refuses("veneer mount -o lowerdir=l:$(seq -s: -f n%g 500) m", 1,
            "501 lower directories are given, and an overlay has at most 500: merge some of them.");
        Refuses("veneer mount -o $LAYERS,threads m", 1, "threads needs a value: a number from 1 to 256.");
        Refuses("veneer mount -o $LAYERS,threads=0 m", 1, "threads=0 is not understood: use a number from 1 to 256.");
        Refuses(
            "veneer mount -o lowerdir=l,upperdir=u m", 1,
            "upperdir=u needs a work directory: "
            + "add workdir=DIR, an empty directory on the same filesystem, beside the upper and not in it.");
    }

    [MountFact]
    public void Make_run_leaves_nothing_behind()
    {
        string run = Path.GetFullPath(Mounter.Binary + "/../../tools/run.sh");

        Assert.Equal(new Outcome(1, "", "No LOWER is given: name a directory, as in make run LOWER=DIR.\n"),
            sandbox.Run(run + " '' x/y/m x/state"));
        Refuses(run + " none x/y/m x/state", 1, "The lower directory none does not exist: create it, or correct lowerdir.");
        Refuses("mount -t tmpfs t /dev; mknod -m 666 /dev/null c 1 3; " + run + " l x/y/m x/state", 1,
            "There is no /dev/fuse: load the module with modprobe fuse, or give the container the device.");
        Refuses(run + " none m u", 1, "The lower directory none does not exist: create it, or correct lowerdir.");
    }

    [MountFact]
    public void Mount_points_that_are_wrong()
    {
        Refuses("veneer mount -o lowerdir=l none", 32, "The mount point none does not exist: create it with mkdir.");
        Refuses("veneer mount -o lowerdir=l l/f", 32, "The mount point l/f is not a directory: choose one that is.");
    }

    [MountFact]
    public void A_mount_point_whose_server_was_killed()
    {
        Refuses(
            "veneer mount -o lowerdir=l m && kill -KILL $(pgrep -x veneer) && ended; veneer mount -o lowerdir=l m",
            32,
            "The mount point m is still a mount whose server is gone: unmount that first, with umount.");
    }

    [MountFact]
    public void Layers_that_are_wrong()
    {
        Refuses("veneer mount -o lowerdir=none m", 32, "The lower directory none does not exist: create it, or correct lowerdir.");
        Refuses("veneer mount -o lowerdir=l/f m", 32, "The lower directory l/f is not a directory: correct lowerdir.");
        Refuses("veneer mount -o lowerdir=l,upperdir=none,workdir=w m", 32,
            "The upper directory none does not exist: create it, or correct upperdir.");
        Refuses("veneer mount -o lowerdir=l,upperdir=u,workdir=none m", 32,
            "The work directory none does not exist: create it, or correct workdir.");
        Refuses("veneer mount -o lowerdir=l,upperdir=u,workdir=u m", 32,
            "The upper directory u is also the work directory: give workdir an empty directory beside it.");
        Refuses("veneer mount -o lowerdir=l,upperdir=u,workdir=u/w m", 32,
            "The work directory u/w lies inside the upper directory u: put work beside upper.", prepare: "mkdir -p u/w");
        Refuses("veneer mount -o lowerdir=l,upperdir=w/u,workdir=w m", 32,
            "The upper directory w/u lies inside the work directory w: put upper beside work.", prepare: "mkdir -p w/u");
        Refuses(
            "veneer mount -o lowerdir=l:l/in m", 32,
            "The lower directory l/in lies inside the lower directory l: move one of them, layers must not overlap.",
            prepare: "mkdir -p l/in");
        Refuses("veneer mount -o lowerdir=u,upperdir=u,workdir=w m", 32,
            "The upper directory u is also a lower directory: give each role a directory of its own.");
        Refuses("veneer mount -o lowerdir=l:l m", 32, "The lower directory l is given twice: take one out, a layer counts once.");
    }

    [MountFact]
    public void An_upper_that_a_crash_may_have_cut_short()
    {
        Refuses(
            "veneer mount -o $LAYERS m",
            32,
            "The upper directory u was last mounted with volatile and may lack what was written then, "
            + "since there is no record by which that could be told, as after kernel overlayfs: "
            + "discard it and w, or, if the machine has not crashed since, sync their filesystem and remove w/work/incompat/volatile.",
            prepare: "mkdir -p w/work/incompat/volatile");
    }

    [MountFact]
    public void What_cannot_be_written_is_not_remounted_to_be()
    {
        Refuses(
            "veneer mount -o lowerdir=l m; veneer mount -o remount,rw m",
            32,
            "m has no upper directory, so it cannot be made writable: unmount it, and mount it anew with upperdir and workdir.");
        Refuses("veneer mount -o remount,ro m", 32, "m is not a mount point: mount it first.");
        Refuses("mount -t tmpfs t m; veneer mount -o remount,ro m", 32,
            "m is a mount of type tmpfs, not one of Veneer: use mount -o remount.");
        Assert.Equal(new Outcome(0, "1\n", ""),
            sandbox.Run("veneer mount -o $LAYERS,ro m; veneer mount -o remount,rw m; touch m/x; ls u | wc -l; rm u/x"));
    }

    /// <summary>mount(8) repeats what /etc/fstab says; what says the same as at the mount is no change.</summary>
    [MountFact]
    public void What_a_remount_cannot_change_is_refused_and_what_it_repeats_is_not()
    {
        foreach (string change in (string[])["metacopy=on", "threads=5", "errors=shutdown", "volatile", "lowerdir=elsewhere",
            "upperdir=elsewhere", "workdir=elsewhere"])
        {
            string name = change.EndsWith("elsewhere", StringComparison.Ordinal) ? change.Split('=')[0] : change;
            Refuses(
                $"veneer mount -o $LAYERS,redirect_dir=on m; veneer mount -o remount,ro,{change} m; code=$?; touch m/x; veneer umount m; "
                + "rm -r u/x w/work; exit $code",
                32,
                $"{name} cannot be changed while m is mounted: leave it out, or unmount m and mount it anew.");
        }
        Assert.Equal(
            new Outcome(1, "", "touch: cannot touch 'm/x': Read-only file system\n"),
            sandbox.Run(
                "veneer mount -o $LAYERS,redirect_dir=on m; veneer mount -o "
                + "remount,ro,$LAYERS,redirect_dir=on,metacopy=off,errors=continue,allow_other,x-systemd.automount m && touch m/x"));
    }

    [MountFact]
    public void Upper_and_work_on_different_mounts()
    {
        Refuses(
            "mount -t tmpfs t w && veneer mount -o $LAYERS m",
            32,
            "The upper directory u and the work directory w are on different filesystems: put work beside upper.");
        Refuses(
            "mount --bind w w && veneer mount -o $LAYERS m",
            32,
            "The upper directory u and the work directory w are on the same filesystem but reached through different mounts: "
            + "name both through one of them.");
    }

    [MountFact]
    public void Overlaps_that_bind_mounts_hide()
    {
        Refuses(
            "mount --bind l/in m && veneer mount -o lowerdir=l:m w",
            32,
            "The lower directory m lies inside the lower directory l: move one of them, layers must not overlap.",
            prepare: "mkdir -p l/in");
    }

    [MountFact]
    public void An_upper_on_a_read_only_filesystem()
    {
        Refuses(
            "mount --bind x x && mount -o remount,bind,ro x && veneer mount -o lowerdir=l,upperdir=x/u,workdir=x/w m",
            32,
            "The upper directory x/u is on a read-only filesystem: remount that with rw, or leave upperdir and workdir out for an overlay "
            + "that cannot be written.",
            prepare: "mkdir -p x/u x/w");
    }

    [MountFact]
    public void An_upper_on_a_filesystem_without_whiteouts()
    {
        Outcome outcome = sandbox.Run(
            "mkdir b bu bw; fuse-overlayfs -o lowerdir=b,upperdir=bu,workdir=bw m 2>/dev/null && mkdir m/u m/w x && "
            + "veneer mount -o lowerdir=l,upperdir=m/u,workdir=m/w x");

        Assert.Equal(
            "veneer: The filesystem of the upper directory m/u takes no whiteouts, neither as character devices 0:0 (ENOENT) nor as files "
            + "with an attribute (EOPNOTSUPP): use one that does, such as ext4, xfs, btrfs or tmpfs.\n",
            outcome.Error);
        Assert.Equal(32, outcome.ExitCode);
    }

    [MountFact]
    public void A_volatile_upper_on_a_filesystem_without_attributes()
    {
        Refuses(
            "mount -t ramfs r x && mkdir x/u x/w && veneer mount -o lowerdir=l,upperdir=x/u,workdir=x/w,volatile m",
            32,
            "The filesystem of the upper directory x/u has no attributes, which the mark of a volatile upper needs: "
            + "mount without the option volatile.",
            prepare: "mkdir -p x");
    }

    [MountFact]
    public void No_device()
    {
        Refuses(
            "mount -t tmpfs t /dev && mknod -m 666 /dev/null c 1 3 && veneer mount -o lowerdir=l m",
            32,
            "There is no /dev/fuse: load the module with modprobe fuse, or give the container the device.");
    }

    [MountFact]
    public void Another_device()
    {
        Refuses(
            "mount --bind /dev/null /dev/fuse && veneer mount -o lowerdir=l m",
            32,
            "/dev/fuse is not the device of FUSE: remove what is there and make it with mknod -m 666 /dev/fuse c 10 229, "
            + "or give the container the device.");
    }

    /// <summary>Wherever the limit is met: what was to be opened is not to blame.</summary>
    [MountFact]
    public void Too_few_files_that_may_be_open()
    {
        Outcome outcome = sandbox.Run(
            "for n in $(seq 8 60); do (ulimit -n $n; exec veneer mount -f -o $LAYERS,io_uring=off m) 2>said & "
            + "until mountpoint -q m || ! kill -0 $! 2>/dev/null; do sleep 0.02; done; "
            + "if mountpoint -q m; then echo mounted; umount m; wait; exit; fi; cat said; done");

        string[] said = outcome.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal("mounted", said[^1]);
        Assert.True(said.Length > 5, outcome.Output);
        Assert.All(said[..^1], line => Assert.Equal("veneer: Too few files may be open: raise the limit with ulimit -n.", line));
    }

    [MountFact]
    public void No_permission()
    {
        Refuses(
            CliSandbox.AsNobody + "mknod -m 600 /mnt/fuse c 10 229; mount --bind /mnt/fuse /dev/fuse; as veneer mount -o lowerdir=l m",
            32,
            "This user may not open /dev/fuse, and fusermount3 opens it for nobody who may not: let root chmod 666 /dev/fuse.");
        Refuses(
            CliSandbox.AsNobody + "as env PATH=/nowhere /mnt/veneer mount -o lowerdir=l m",
            32,
            "Only root may mount without fusermount3, and there is none: install it (on Debian, the package fuse3), or become root.");
        Refuses(
            CliSandbox.AsNobody + "as veneer mount -o $LAYERS m",
            32,
            "The upper directory u cannot be written: give this user permission to write it.");
        Refuses(
            CliSandbox.AsNobody + "chown nobody u w; as veneer mount -o $LAYERS,redirect_dir=on m",
            32,
            "The filesystem of the upper directory u takes no trusted.overlay.* attributes from this user, "
            + "and user.overlay.* ones exclude redirect_dir=on: leave that out.");
        Refuses(
            CliSandbox.AsNobody + "chown nobody u w; as veneer mount -o $LAYERS,metacopy=on m",
            32,
            "The filesystem of the upper directory u takes no trusted.overlay.* attributes from this user, "
            + "and user.overlay.* ones exclude metacopy=on: leave that out.");
        Refuses(
            CliSandbox.AsNobody + "chown nobody u w; as veneer mount -o $LAYERS,metacopy=on,redirect_dir=on m",
            32,
            "The filesystem of the upper directory u takes no trusted.overlay.* attributes from this user, "
            + "and user.overlay.* ones exclude metacopy=on and redirect_dir=on: leave both out.");
        Refuses(
            CliSandbox.AsNobody + "rm -rf /mnt/run; mkdir /mnt/run; mount --bind /mnt/run /run; as veneer mount -o lowerdir=l,pin m",
            32,
            "The option pin needs the right to mount (CAP_SYS_ADMIN): become root, or mount without pin.");
        Refuses(
            CliSandbox.AsNobody + "chmod 700 l; as veneer mount -o lowerdir=l m",
            32,
            "The lower directory l cannot be read: give this user permission to list and search it.");
    }

    [MountFact]
    public void Unmounting_what_is_not_ours()
    {
        Refuses("veneer umount none", 32, "none does not exist: name a mount point.");
        Refuses("veneer umount l/f", 32, "l/f is not a mount point: there is nothing to unmount.");
        Refuses("veneer umount m", 32, "m is not a mount point: there is nothing to unmount.");
        Refuses("mount -t tmpfs t m; veneer umount m", 32, "m is a mount of type tmpfs, not one of Veneer: use umount m.");
    }

    [MountFact]
    public void Unmounting_what_is_in_use()
    {
        Refuses(
            "veneer mount -o lowerdir=l m; tail -f m/f >/dev/null & until_that eval 'ls -l /proc/$!/fd | grep m/f'; veneer umount m",
            32,
            "m is in use by tail (PID): end it, or take the mount out of sight now with veneer umount -l m.");
        Refuses(
            "veneer mount -o lowerdir=l m; (cd m; exec sleep 61) & (cd m; exec sleep 61) & "
            + "until_that eval '[ $(ls -l /proc/*/cwd 2>/dev/null | grep -c /m$) = 2 ]'; veneer umount m",
            32,
            "m is in use by sleep (PID), sleep (PID): end them or leave the directory, "
            + "or take the mount out of sight now with veneer umount -l m.");
    }
}
