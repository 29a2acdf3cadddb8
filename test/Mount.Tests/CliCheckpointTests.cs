namespace Veneer.Mount.Tests;

/// <summary>An overlay that was checkpointed is mounted again wherever its layers are, and not if they are others.</summary>
[Collection(typeof(CliCollection))]
public sealed class CliCheckpointTests : IDisposable
{
    private const string Veneer = "veneer mount -o lowerdir=l,upperdir=u,workdir=w,redirect_dir=on,noatime,fsname=my\\\\,source m; ";
    private const string Kernel = "mount -t overlay o -o lowerdir=$PWD/l,upperdir=$PWD/u,workdir=$PWD/w,redirect_dir=on,noatime m; ";
    private const string Change = "mkdir -p m/dir; echo more >>m/f; echo new >m/dir/new; ";
    private const string Inodes = "(cd m; find . -exec stat -c '%n %i %h' {} + | sort; cat f dir/new); ";

    private readonly CliSandbox sandbox = new();

    public void Dispose() => sandbox.Dispose();

    private string Succeeds(string script)
    {
        Outcome outcome = sandbox.Run("set -e; " + script);
        Assert.True(outcome is { ExitCode: 0, Error: "" }, $"{outcome.ExitCode}: {outcome.Output}{outcome.Error}");
        return outcome.Output.Replace(sandbox.Root, "ROOT", StringComparison.Ordinal);
    }

    private void Refuses(int exitCode, string sentence, string script)
    {
        Outcome outcome = sandbox.Run(script);
        Assert.Matches($"^veneer: {sentence}\n$", outcome.Error.Replace(sandbox.Root + "/", "", StringComparison.Ordinal));
        Assert.Equal(("", exitCode), (outcome.Output, outcome.ExitCode));
    }

    [CliTheory]
    [InlineData(Veneer)]
    [InlineData(Kernel)]
    public void The_same_overlay_is_mounted_again(string mount)
    {
        string output = Succeeds(
            mount + Change + Inodes + "grep -o ' rw.*' /proc/self/mountinfo | grep -E 'overlay|veneer' | sed 's/relatime,//;s/-dir=[^,]*//g'; veneer checkpoint m >c; umount m; sleep 0.2; echo ===; "
            + "veneer restore c; " + Inodes + "grep -o ' rw.*' /proc/self/mountinfo | grep -E 'overlay|veneer'; echo again >m/again; umount m; cat u/again; touch u/again; rm u/again");

        string[] halves = output.Split("===\n");
        Assert.Equal(halves[0] + "again\n", halves[1]);
        Assert.Contains("more", halves[0], StringComparison.Ordinal);
    }

    [CliFact]
    public void Options_and_flags_are_kept()
    {
        string output = Succeeds(
            "veneer mount -o lowerdir=l,upperdir=u,workdir=w,redirect_dir=on,passthrough=off,nosuid,noatime m; veneer checkpoint m >c; veneer umount m; veneer restore c; "
            + "grep -o ' rw.*fuse.veneer' /proc/self/mountinfo; mkdir -p l; veneer checkpoint m | grep -A3 options");

        Assert.Contains(" rw,nosuid,noatime - fuse.veneer", output, StringComparison.Ordinal);
        Assert.Contains("\"redirect_dir=on\",\n      \"passthrough=off\"", output, StringComparison.Ordinal);
    }

    [CliFact]
    public void Layers_may_have_moved_and_be_mounted_elsewhere()
    {
        string output = Succeeds(
            "mkdir 'a:b,c' d; mount -t tmpfs t 'a:b,c'; cp -r l 'a:b,c'; cd 'a:b,c'; mkdir u w; veneer mount -o lowerdir=l,upperdir=u,workdir=w ../m; cd ..;" + Change + Inodes
            + "veneer checkpoint m >c; veneer umount m; echo ===; mount --bind 'a:b,c' d; umount -l 'a:b,c'; mkdir d/deep; mv d/u 'd/deep/u,\\:'; mv d/l d/deep/l2; veneer restore c; " + Inodes);

        string[] halves = output.Split("===\n");
        Assert.Equal(halves[0], halves[1]);
        Assert.Contains("new", halves[0], StringComparison.Ordinal);
    }

    [CliFact]
    public void What_is_volatile_stays_so_and_is_used_again_only_if_it_may_be()
    {
        const string boot = "echo 11111111-2222-3333-4444-555555555555 >boot; export VENEER_TEST_BOOT_ID=$PWD/boot; ";
        const string made = boot + "mount -t tmpfs t /mnt; mkdir /mnt/u /mnt/w; veneer mount -o lowerdir=l,upperdir=/mnt/u,workdir=/mnt/w,volatile m; echo more >>m/f; veneer checkpoint m >c; veneer umount m; mv /mnt/w /mnt/w2; ";

        Assert.Equal("old\nmore\nfsync            volatile\n", Succeeds(made + "test -e /mnt/w2/work/incompat/volatile/dirty; veneer restore c; cat m/f; veneer status m | head -n 1; veneer umount m; test -e /mnt/w2/work/incompat/volatile/dirty"));
        Refuses(32, ".*the machine has been started anew.*", made + "echo 99999999-2222-3333-4444-555555555555 >boot; veneer restore c");
    }

    [CliFact]
    public void An_overlay_without_upper_is_mounted_again()
    {
        const string again = "veneer checkpoint m >c; umount m; mv l l3; veneer restore c; cat m/f m/g; touch m/x 2>/dev/null || echo read-only";
        Assert.Equal("old\nsecond\nread-only\n", Succeeds("mkdir l2; echo second >l2/g; veneer mount -o lowerdir=l:l2 m; " + again));
        Assert.Equal("old\nsecond\nread-only\n", Succeeds("rm -r l2; mv l3 l; mkdir l2; echo second >l2/g; mount -t overlay o -o lowerdir=$PWD/l:$PWD/l2 m; " + again));
    }

    [CliFact]
    public void It_may_be_mounted_elsewhere_and_come_from_a_pipe()
    {
        Assert.Equal("old\nmore\n", Succeeds(Veneer + Change + "veneer checkpoint m >c; veneer umount m; mkdir n; cat c | veneer restore - n; cat n/f; veneer umount n"));
    }

    [CliFact]
    public void A_layer_that_is_another_directory_is_refused()
    {
        const string made = "veneer mount -o lowerdir=l,upperdir=u,workdir=w m; veneer checkpoint m >c; veneer umount m; ";
        const string nothing = "; code=$?; ! grep -q fuse.veneer /proc/self/mountinfo || echo mounted; exit $code";
        Refuses(8, @"The lower layer l is not the same directory: its inode number is \d+, not \d+\.", made + "cp -r l l2; rm -r l; mv l2 l; veneer restore c" + nothing);
        Refuses(8, @"The upper layer u is not found, by its handle or by its path: mount its filesystem \(.*\) first\.", made + "rm -r u; veneer restore c" + nothing);
        Refuses(8, @"The lower layer l is not the same directory: it is on the (filesystem|device) \S+, not \S+\.", "mkdir -p u w; " + made + "rm -r l; mkdir l; mount -t tmpfs t l; veneer restore c" + nothing);
    }

    [CliFact]
    public void What_is_no_checkpoint_is_refused()
    {
        const string made = "veneer mount -o lowerdir=l,upperdir=u,workdir=w m; veneer checkpoint m >c; veneer umount m; ";
        Refuses(1, "No checkpoint is given: name its file, or - for standard input\\.", "veneer restore");
        Refuses(1, "none does not exist: name a file that veneer checkpoint has written\\.", "veneer restore none");
        Refuses(7, "l/f is not a checkpoint of veneer: make one with veneer checkpoint\\.", "veneer restore l/f");
        Refuses(7, "c is not a checkpoint of veneer: make one with veneer checkpoint\\.", "echo '{\"a\": 1}' >c; veneer restore c");
        Refuses(7, "c is not a checkpoint of veneer: make one with veneer checkpoint\\.", made + "truncate -s -20 c; veneer restore c");
        Refuses(7, "/dev/zero is too large for a checkpoint of veneer: make one with veneer checkpoint\\.", "veneer restore /dev/zero");
        Refuses(13, "c is a checkpoint of version 2, and this veneer reads version 1: use the veneer that made it, or make one anew with veneer checkpoint\\.", made + "sed -i 's/\"veneer_checkpoint\": 1/\"veneer_checkpoint\": 2/' c; veneer restore c");
        Refuses(7, "c is damaged: something in it is missing, or is not what it should be: make one with veneer checkpoint\\.", made + "sed -i /root_ino/d c; veneer restore c");
        Refuses(1, "l is a directory: name a file that veneer checkpoint has written\\.", "veneer restore l");
        Refuses(4, "c cannot be read by this user: see its permissions\\.", CliSandbox.AsNobody + "touch c; chmod 600 c; as veneer restore c");
        Refuses(3, "/proc is a mount of type proc, not an overlay: name the mount point of an overlay\\.", "veneer checkpoint /proc");
        Refuses(11, "l is not a mount point: name the mount point of an overlay\\.", "veneer checkpoint l");
        Refuses(1, "No mount point is given: name the one of an overlay\\.", "veneer checkpoint");
    }
}
