using System.Text.RegularExpressions;

namespace Veneer.Mount.Tests;

/// <summary>What a server gets from outside: signals, a connection that somebody else has mounted, a kernel that lacks something.</summary>
public sealed class CliSurroundingsTests : IDisposable
{
    private readonly CliSandbox sandbox = new();

    public void Dispose() => sandbox.Dispose();

    private string Succeeds(string script, string error = "")
    {
        Outcome outcome = sandbox.Run("set -e; " + script);
        Assert.Equal((0, error), (outcome.ExitCode, outcome.Error));
        return outcome.Output;
    }

    /// <summary>Signals that a stray sender may send, and that say nothing about a fault of the server.</summary>
    [MountFact]
    public void Signals_that_mean_nothing_end_nothing()
    {
        string output = Succeeds(
            "veneer mount -f -o $LAYERS m & " + "mounted m; "
            + "for signal in USR1 USR2 PIPE ALRM STKFLT XCPU XFSZ VTALRM PROF IO PWR CHLD URG WINCH CONT RTMIN+1 RTMIN+5 RTMAX; do "
            + "kill -$signal $!; done; "
            + "cat m/f; echo new >m/f; cat u/f; umount m; wait $!; echo $?");

        Assert.Equal("old\nnew\n0\n", output);
    }

    [MountTheory]
    [InlineData("TERM")]
    [InlineData("INT")]
    [InlineData("HUP")]
    [InlineData("QUIT")]
    public void Signals_that_ask_for_the_end_unmount(string signal)
    {
        string output = Succeeds(
            $"veneer mount -o $LAYERS m; kill -{signal} $(pgrep -x veneer); ended; ls m; mountpoint -q m || echo gone");

        Assert.Equal("gone\n", output);
    }

    /// <summary>However early it comes, no dead mount is left.</summary>
    [MountFact]
    public void A_signal_while_it_is_being_mounted_leaves_nothing_mounted()
    {
        string output = Succeeds(
            "for delay in 0.05 0.1 0.15 0.2 0.25 0.3 0.35 0.4; do veneer mount -f -o $LAYERS m & sleep $delay; kill -TERM $!; "
            + "wait $! || true; ls m; done 2>/dev/null; mountpoint -q m || echo gone");

        Assert.Equal("gone\n", output);
    }

    /// <summary>As libfuse's helper does it: it mounts, lays down its privileges, and names its descriptor.</summary>
    [MountTheory]
    [InlineData("")]
    [InlineData(",drop_privileges")]
    public void The_helper_of_libfuse_mounts(string option)
    {
        string output = Succeeds(
            $"PATH=$PATH:/usr/sbin:/sbin; mount.fuse3 source $PWD/m -o lowerdir=$PWD/l{option} -t veneer; cat m/f; "
            + "grep -c ' fuse.veneer ' /proc/self/mountinfo; umount m; ended; ls m");

        Assert.Equal("old\n1\n", output);
    }

    [MountTheory]
    [InlineData("")]
    [InlineData("-f ")]
    public void A_connection_that_is_mounted_already_is_served_and_its_mount_is_found(string foreground)
    {
        const string mounted =
            "exec 9<>/dev/fuse; mount -i -t fuse.veneer -o fd=9,rootmode=40000,user_id=0,group_id=0,allow_other source m; ";
        string output = Succeeds(
            mounted
            + $"veneer mount {foreground}-o $LAYERS /dev/fd/9 & exec 9>&-; until stat -f m >/dev/null; do sleep 0.05; done; "
            + "echo new >m/f; cat u/f; "
            + "setpriv --reuid nobody --clear-groups sh -c 'echo no 2>/dev/null >m/g || echo refused' 2>/dev/null; "
            + "kill -TERM $(pgrep -x veneer | head -1); ended; ls m");

        Assert.Equal("new\nrefused\n", output);
    }

    [MountFact]
    public void A_connection_that_is_not_mounted_is_refused()
    {
        Outcome outcome = sandbox.Run("exec 9<>/dev/fuse; veneer mount -o $LAYERS /dev/fd/9");

        Assert.Equal((32, "veneer: /dev/fd/9 is a /dev/fuse that is not mounted: mount it first, or name the directory to mount on.\n"),
            (outcome.ExitCode, outcome.Error));
    }

    /// <summary>What is wrong with the layers is seen when the mount is there: it goes again.</summary>
    [MountFact]
    public void A_connection_that_cannot_be_served_is_unmounted()
    {
        Outcome outcome = sandbox.Run(
            "exec 9<>/dev/fuse; mount -i -t fuse.veneer -o fd=9,rootmode=40000,user_id=0,group_id=0 source m; "
            + "veneer mount -o lowerdir=none /dev/fd/9; echo $?; exec 9>&-; ls m");

        Assert.Equal(("32\n", "veneer: The lower directory none does not exist: create it, or correct lowerdir.\n"),
            (outcome.Output, outcome.Error));
    }

    /// <summary>A directory that is named by a descriptor is mounted on, as ever.</summary>
    [MountFact]
    public void A_descriptor_of_a_directory_is_a_mount_point()
    {
        Assert.Equal("old\n", Succeeds("exec 3<m; veneer mount -o $LAYERS /dev/fd/3; exec 3<&-; cat m/f; veneer umount m"));
    }

    /// <summary>All is well when the kernel offers no more than it does: nobody needs to hear of it at each mount.</summary>
    [MountFact]
    public void A_mount_says_nothing_and_the_status_says_what_it_does_without()
    {
        string output = Succeeds("veneer mount -f -o $LAYERS m & " + "mounted m; " + "veneer status --json m; umount m; wait");

        Match ring = new Regex("\"io_uring\":\"(?<state>on|the kernel does not offer it for FUSE.*?|setting it up was refused .*?)\"",
            RegexOptions.ExplicitCapture, TimeSpan.FromSeconds(1)).Match(output);
        Assert.True(ring.Success, output);
        Assert.Contains("\"passthrough\":\"", output, StringComparison.Ordinal);
        string text = Succeeds("veneer mount -o $LAYERS,io_uring=auto m; veneer status m; umount m");
        Assert.Equal(ring.Groups["state"].Value != "on", text.Contains("io_uring         none: ", StringComparison.Ordinal));
        text = Succeeds("veneer mount -o $LAYERS,io_uring=off,passthrough=off m; veneer status m; umount m");
        Assert.StartsWith("fsync", text, StringComparison.Ordinal);
    }

    /// <summary>A container learns nothing of the host's processes.</summary>
    [MountFact]
    public void The_servers_process_is_told_only_to_those_who_see_it()
    {
        const string ask = "getfattr --only-values -n user.veneer.server m 2>&1 | sed 's/.*: //'";
        string output = Succeeds(
            $"veneer mount -o $LAYERS m; {ask}; echo; unshare --pid --fork --mount-proc sh -c \"{ask}\"; "
            + $"unshare --pid --fork sh -c \"{ask}\"; umount m");

        Assert.Matches(@"\A\d+ \d+\nNo such attribute\nNo such attribute\n\z", output);
    }

    /// <summary>
    /// A kernel that lacks some system call, or a filter that does not know it. The mount does without it, or one sentence says
    /// what is missing.
    /// </summary>
    [MountFact]
    public void A_kernel_that_lacks_something_is_done_without()
    {
        (string Name, string Numbers)[] calls =
        [
            ("open_tree", "428"), ("mount_setattr", "442"), ("open_tree and mount_setattr", "428,442"), ("pidfd_open", "434"),
            ("close_range", "436"),
            ("statmount and listmount", "457,458"), ("io_uring", "425,426,427"), ("faccessat2", "439"), ("fsopen", "430,431,432"),
            ("bpf", "321"),
            ("xattrs at", "463,464,465,466"), ("fchmodat2", "452"), ("cachestat", "451"), ("copy_file_range", "326"),
            ("inotify", "254,294"),
            ("handles", "303,304"), ("getrandom", "318"), ("all that came after Linux 5.6", "436,439,442,451,452,457,458,463,464,465,466"),
            // Some filters answer EPERM to what they do not know.
            ("faccessat2, refused", "439=1"), ("fchmodat2, refused", "452=1"), ("xattrs at, refused", "463,464,465,466=1"),
            ("all that came after Linux 5.6, refused", "436,439,442,451,452,457,458,463,464,465,466=1"),
        ];
        foreach ((string name, string numbers) in calls)
        {
            Outcome outcome = sandbox.Run(
                $"set -e; mkdir -p l/d; echo old >l/d/f; {OlderKernel.Without(numbers)} veneer mount -o $LAYERS m; cat m/f; "
                + "echo new >m/d/f; chmod 600 m/f; setfattr -n user.x -v y m/f; setfattr -x user.x m/f; mv m/d/f m/d/g; mkdir m/n; "
                + "rm m/f; cat u/d/g; "
                + "umount m; ended; rm -rf u/* w/*");
            Assert.True(outcome is { ExitCode: 0, Output: "old\nnew\n", Error: "" }, $"{name}: {outcome}");
        }
    }

    [MountTheory]
    [InlineData("veneer mount -o $LAYERS m")]
    [InlineData("veneer stats m")]
    public void Without_openat2_one_sentence_says_which_kernel_is_needed(string command)
    {
        Outcome outcome = sandbox.Run($"{OlderKernel.Without("437")} {command}");

        Assert.Equal(
            new Outcome(
                2, "",
                "veneer: This system has no openat2(2): Linux 5.6 or newer is needed, "
                + "and in a container a filter of system calls that knows it.\n"),
            outcome);
    }

    /// <summary>What cannot be read is not damaged, and nobody is told to discard it.</summary>
    [MountTheory]
    [InlineData("veneer sync u")]
    [InlineData("veneer sync --work w u")]
    public void An_upper_whose_record_cannot_be_read_is_neither_damaged_nor_to_be_discarded(string command)
    {
        Outcome outcome = sandbox.Run(
            $"veneer mount -o $LAYERS,volatile m; echo new >m/f; veneer umount m; {OlderKernel.Without("191,464=5")} {command} || echo $?; "
            + "veneer sync u; cat u/f");

        Assert.Equal("32\nnew\n", outcome.Output[..3] + outcome.Output[^4..]);
        Assert.Equal(
            "veneer: Whether u lacks what was written while it was volatile cannot be told, since its record cannot be read (EIO): "
            + "see whether /proc is mounted, and its filesystem answers.\n",
            outcome.Error);
    }

    /// <summary>In a /proc that shows processes alone nothing tells whether the machine was started anew.</summary>
    [MountTheory]
    [InlineData("mount -t proc -o subset=pid proc /proc; veneer sync u")]
    [InlineData("mount -t proc -o subset=pid proc /proc; veneer mount -o $LAYERS,volatile m")]
    public void Where_nothing_tells_whether_the_machine_was_started_anew_nothing_is_to_be_discarded(string commands)
    {
        Outcome outcome = sandbox.Run(
            "veneer mount -o $LAYERS,volatile m; echo new >m/f; veneer umount m; "
            + $"unshare --mount --propagation private sh -c '{commands}' || echo $?; veneer sync u; cat u/f");

        Assert.Equal("32\nnew\n", outcome.Output[..3] + outcome.Output[^4..]);
        Assert.StartsWith("veneer: Whether ", outcome.Error, StringComparison.Ordinal);
        Assert.DoesNotContain("discard", outcome.Error, StringComparison.Ordinal);
    }
}
