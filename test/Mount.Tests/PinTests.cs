namespace Veneer.Mount.Tests;

/// <summary>Layers that cannot be moved or removed while mounted, and those that are all the same.</summary>
public sealed class PinTests : IDisposable
{
    private const string Options = "lowerdir=l:l2,upperdir=u,workdir=w";

    private readonly CliSandbox sandbox = new();

    public void Dispose() => sandbox.Dispose();

    private (int ExitCode, string Text) Run(string script)
    {
        Outcome outcome = sandbox.Run($"exec 2>&1; mount -t tmpfs t /run; mkdir -p l2; o={Options}; {script}");
        return (outcome.ExitCode, sandbox.Relative(outcome.Output));
    }

    private const string MoveAll =
        "for d in l l2 u w; do mv $d $d.moved 2>/dev/null && echo moved $d; rmdir $d 2>/dev/null && echo removed $d; done";

    /// <summary>What is told of <c>mv l z</c>, and the end of each such line.</summary>
    private const string NextLoss = "the lower directory l was moved to z while it is mounted", Advice = ": see who did it, and unmount\n";

    private const string Marks = "grep -c '/run/veneer' /proc/self/mountinfo";

    [MountFact]
    public void No_layer_can_be_moved_or_removed_while_it_is_mounted()
    {
        (_, string text) = Run(
            $"veneer mount -o $o,pin m; rm l/f; {MoveAll}; ls; mkdir m/d && rmdir m/d; veneer umount m; {Marks}; ls /run/veneer; "
            + $"{MoveAll}; true");

        Assert.Equal("l\nl2\nm\nu\nw\n0\nmoved l\nmoved l2\nmoved u\nmoved w\n", text);
    }

    [MountFact]
    public void The_mount_table_says_whose_they_are()
    {
        (_, string text) = Run(
            "veneer mount -o $o,pin m; grep ' /run/veneer/' /proc/self/mountinfo | grep -c -- '- tmpfs veneer'; "
            + "grep ' /run/veneer/' /proc/self/mountinfo | grep -c shared; findmnt -no TARGET,SOURCE | grep -c ' u$'; veneer umount m");

        Assert.Equal("5\n0\n0\n", text);
    }

    [MountTheory]
    [InlineData("kill -9 $(pgrep -xf '.*pin m')")]
    [InlineData("kill -TERM $(pgrep -xf '.*pin m')")]
    [InlineData("umount m")]
    [InlineData("umount -l m")]
    public void They_vanish_with_the_server(string end)
    {
        (_, string text) = Run(
            $"veneer mount -o $o,pin m; {Marks}; {end}; for i in $(seq 100); do {Marks} && sleep 0.05 || break; done | tail -1; "
            + "umount -l m 2>/dev/null; ls /run/veneer; mv u v && echo moved");

        Assert.Equal("9\n0\nmoved\n", text);
    }

    [MountTheory]
    [InlineData("veneer umount m")]
    [InlineData("umount -l m; veneer mount -o $o,pin m; veneer umount m")]
    public void What_even_the_watcher_left_goes_with_the_next_command(string command)
    {
        (_, string text) = Run(
            $"veneer mount -o $o,pin m; kill -9 $(pgrep -f 'veneer /run/veneer') $(pgrep -xf '.*pin m'); ended; {Marks}; {command}; "
            + $"{Marks}; ls /run/veneer; mv u v && echo moved");

        Assert.Equal("9\n0\nmoved\n", text);
    }

    [MountFact]
    public void What_is_left_of_a_namespace_that_is_gone_goes_and_those_of_one_that_lives_stay()
    {
        (_, string text) = Run(
            "unshare --mount --propagation private sh -c 'veneer mount -o $0,pin m; exec sleep 30' $o & p=$!; runs sleep; "
            + "mkdir /run/veneer/1-2-3; "
            + "mkdir m2; veneer mount -o lowerdir=l,pin m2; veneer umount m2; ls /run/veneer | wc -l; "
            + "grep -c ' /run/veneer' /proc/$p/mountinfo; nsenter --mount=/proc/$p/ns/mnt rmdir $PWD/l2; "
            + "kill -9 $(pgrep -f 'veneer /run/veneer') $(pgrep -xf '.*pin m') $p; wait $p 2>/dev/null; ended; "
            + "veneer mount -o lowerdir=l m2; veneer umount m2; ls /run/veneer");

        Assert.Equal("1\n9\nrmdir: failed to remove 'l2': Device or resource busy\n", text);
    }

    /// <summary>Who has the turn may just have mounted it, and not have locked it yet.</summary>
    [MountFact]
    public void What_somebody_is_making_is_left_alone()
    {
        const string made = "grep -c ' /run/veneer/1-1-1' /proc/self/mountinfo";
        (_, string text) = Run(
            "mkdir -p /run/veneer/1-1-1 n; mount -t tmpfs veneer /run/veneer/1-1-1; veneer mount -o lowerdir=l m; "
            + $"flock /run/veneer veneer mount -o lowerdir=l2,pin n; flock /run/veneer veneer umount m; {made}; veneer umount n; {made}");

        Assert.Equal("1\n0\n", text);
    }

    [MountFact]
    public void Nothing_is_seen_of_them_where_the_layers_are()
    {
        (_, string text) = Run(
            "mkdir l/sub; mount -t tmpfs t l/sub; touch l/sub/inside; cp -r /dev/null u/before; veneer mount -o $o,pin m; ls l/sub; "
            + "stat -c %m u w l | sort -u | wc -l; "
            + "mkdir l/late; mount -t tmpfs t l/late; touch l/late/x; veneer umount m; ls l/late");

        Assert.Equal("inside\n1\nx\n", text);
    }

    [MountFact]
    public void Namespaces_of_others_are_left_alone()
    {
        (_, string text) = Run(
            "mount --make-rshared /; unshare --mount --propagation slave sleep 30 & unshare --mount --propagation shared sleep 30 & "
            + "runs sleep 2; veneer mount -o $o,pin m; "
            + "for p in $(pgrep -x sleep); do grep -c ' /run/veneer/[^ /]*/' /proc/$p/mountinfo; done; veneer umount m; "
            + "for p in $(pgrep -x sleep); do grep -c ' /run/veneer' /proc/$p/mountinfo; done; ls /run/veneer");

        Assert.Equal("0\n0\n0\n0\n", text);
    }

    [MountFact]
    public void Who_may_not_mount_is_refused()
    {
        (int exitCode, string text) = Run(CliSandbox.AsNobody + "chmod 777 . u w m; as veneer mount -o $o,userxattr,pin m");

        Assert.Equal(32, exitCode);
        Assert.Equal("veneer: The option pin needs the right to mount (CAP_SYS_ADMIN): become root, or mount without pin.\n", text);
    }

    [MountTheory]
    [InlineData("mv u x", "the upper directory u was moved to x while it is mounted")]
    [InlineData("mv w x", "the work directory w was moved to x while it is mounted")]
    [InlineData("mv l2 x", "the lower directory l2 was moved to x while it is mounted")]
    [InlineData("rmdir l2", "the lower directory l2 was removed while it is mounted")]
    [InlineData("mkdir x; mv -T x l2", "the lower directory l2 was removed while it is mounted")]
    public void A_layer_that_is_lost_is_told_of_once(string loss, string sentence)
    {
        // What happens to the layers is told in its order: the next loss comes after all that was to be told of the first.
        (_, string text) = Run(
            $"veneer mount -f -o $o,io_uring=off m 2>log & mounted m; {loss}; until_that test -s log; mv x y 2>/dev/null; "
            + "cat m/f; mv l z; until_that grep '/z ' log; umount m; wait; cat log");

        Assert.Equal($"old\nveneer: {sentence}{Advice}veneer: {NextLoss}{Advice}", text);
    }

    [MountTheory]
    [InlineData("continue", "test -s log", "old\n",
        "veneer: the upper directory u was moved to x while it is mounted: see who did it, and unmount\n")]
    [InlineData("remount-ro", "eval ! touch m/f", "old\nbash: line 1: m/g: Read-only file system\n",
        "veneer: the overlay cannot be changed any more: the upper directory u was moved to x while it is mounted\n")]
    [InlineData("shutdown", "flock -n x true", "cat: m/f: Input/output error\nbash: line 1: m/g: Input/output error\n",
        "veneer: the overlay is shut down: the upper directory u was moved to x while it is mounted\n")]
    public void What_happens_then_is_as_errors_says(string errors, string happened, string shown, string log)
    {
        (_, string text) = Run(
            $"veneer mount -f -o $o,io_uring=off,errors={errors} m 2>log & mounted m; cat m/f >/dev/null; mv u x; until_that {happened}; "
            + "cat m/f; echo new >m/g; veneer mount -o lowerdir=l,upperdir=x,workdir=w l2 2>/dev/null && echo free; umount -l l2; "
            + "umount m; wait; cat log");

        Assert.Equal(shown + (errors == "shutdown" ? "free\n" : "umount: l2: not mounted.\n") + log, text);
    }

    /// <summary>That is when somebody wants to know.</summary>
    [MountFact]
    public void A_mount_that_has_become_read_only_answers_questions()
    {
        (int code, string text) = Run(
            "veneer mount -o $o,volatile,errors=remount-ro m; echo new >m/g; mv u x; until_that eval ! touch m/g; chattr +d m/g; "
            + "veneer status m | tail -n 2; veneer layers m g | tail -n 1 | sed 's/  inode.*//'; veneer diff m; "
            + "veneer sync m | head -n 1; veneer checkpoint m | head -n 2; veneer stats m >stats && veneer shutdown m; cat m/f");

        Assert.Equal("""
            chattr: Read-only file system while setting flags on m/g
            after one        remount-ro
            can be reused    with volatile, until the filesystem is mounted anew; otherwise after veneer sync
            └── upper    upper  g
            A g
            2 files and directories synced
            {
              "veneer_checkpoint": 1,
            cat: m/f: Input/output error

            """, text);
        Assert.Equal(1, code);
    }

    [MountFact]
    public void A_shutdown_while_a_loss_is_told_of_ends()
    {
        (_, string text) = Run(
            "for i in 1 2 3 4 5 6; do veneer mount -o $o,errors=shutdown m; mv u x & veneer shutdown m 2>/dev/null; wait $!; "
            + "umount m || echo busy; mv x u; done; for i in $(seq 60); do pgrep -x veneer >/dev/null || break; sleep 0.1; done; "
            + "pgrep -xc veneer");

        Assert.Equal("0\n", text);
    }

    [MountFact]
    public void What_happens_beside_a_layer_is_no_loss()
    {
        (_, string text) = Run(
            "mkdir beside; veneer mount -f -o $o,io_uring=off m 2>log & mounted m; rmdir beside; touch a; mv a b; rm b; mkdir u/x; "
            + "rmdir u/x; echo new >m/f; rm m/f; mv l z; until_that test -s log; umount m; wait; cat log");

        Assert.Equal($"veneer: {NextLoss}{Advice}", text);
    }
}
