using System.Text.Json;
using System.Text.RegularExpressions;

namespace Veneer.Mount.Tests;

/// <summary>Each way in which a mount is kept busy: who does it is named, or it is said that nobody could be found.</summary>
public sealed partial class HolderKindsTests : IDisposable
{
    private static readonly CProgram Holder = new("test/Mount.Tests/hold.c", "-pthread");

    private readonly CliSandbox sandbox = new();

    public void Dispose() => sandbox.Dispose();

    [GeneratedRegex(@"(?<=[ (])\d+(?=\)| \()", RegexOptions.None, matchTimeoutMilliseconds: 1000)]
    private static partial Regex Number();

    /// <summary>Has a process hold something of <c>m</c>, and goes on when it does.</summary>
    private static string Hold(string how) => $"exec 3< <(exec {Holder.Path} {how} m); read -r held <&3; ";

    private (int ExitCode, string Output, string Error) Run(string script)
    {
        Outcome outcome = sandbox.Run(script);
        return (outcome.ExitCode, Plain(outcome.Output), Plain(outcome.Error));

        string Plain(string text) => Number().Replace(sandbox.Relative(text), "N");
    }

    private const string Unseen =
        "veneer: Processes of other pid namespaces than this one's are not seen from here: look from outside of the container.\n";

    private const string Busy =
        "veneer: m is in use all the same, perhaps by what no process has a descriptor of: "
        + "a descriptor in flight, a request that the kernel is at, an export over NFS, a probe of the kernel's.\n";

    [MountTheory]
    [InlineData("path", "open m/f (descriptor N)")]
    [InlineData("map", "map m/f")]
    [InlineData("socket", "socket m/a socket (descriptor N)")]
    [InlineData("datagrams", "socket m/a socket (descriptor N)")]
    [InlineData("socket-removed", "socket m/a socket (descriptor N)")]
    [InlineData("socket-elsewhere", "socket m/a socket (descriptor N)")]
    [InlineData("connection", "socket m/a socket (descriptor N)")]
    [InlineData("registered", "registered m/f")]
    [InlineData("thread-files", "open m/f (descriptor N)")]
    [InlineData("thread-cwd", "cwd m")]
    [InlineData("thread-root", "root m")]
    [InlineData("leader-ended", "open m/f (descriptor N)")]
    public void Who_holds_it_is_named(string how, string use)
    {
        (int exitCode, string output, string error) = Run(
            $"veneer mount -o $LAYERS m; {Hold(how)} veneer holders m; code=$?; umount m 2>/dev/null && echo unmounted; exit $code");

        Assert.Equal("", error);
        Assert.StartsWith("m  fuse.veneer, served by veneer (N)\n└── hold (N)\n", output, StringComparison.Ordinal);
        Assert.Contains($"── {use}\n", output, StringComparison.Ordinal);
        Assert.DoesNotContain("unmounted", output, StringComparison.Ordinal);
        Assert.Equal(10, exitCode);
    }

    [MountTheory]
    [InlineData("in-flight", "hold (N) has a socket to which a descriptor was sent that nobody has received yet; of what cannot be told.")]
    [InlineData("events", "hold (N) watches files with fanotify, and holds those of which it has not read yet.")]
    public void Who_may_hold_it_is_named_when_nobody_else_does(string how, string sentence)
    {
        (int exitCode, string output, string error) = Run(
            $"veneer mount -o $LAYERS m; {Hold(how)} veneer holders m; code=$?; umount m 2>/dev/null && echo unmounted; exit $code");

        Assert.Equal(
            (6, "m  fuse.veneer, served by veneer (N): it is in use, but what holds it was not found\n",
                $"{Unseen}veneer: {sentence}\n{Busy}"), (exitCode, output, error));
    }

    [MountFact]
    public void Processes_that_are_not_seen_are_not_taken_for_none()
    {
        (int exitCode, string output, string error) = Run(
            $"veneer mount -o $LAYERS m; {Hold("path")} unshare --pid --fork sh -c 'mount -t proc p /proc; veneer holders m; code=$?; "
            + "umount /proc; exit $code'");

        Assert.Equal((6, "m  fuse.veneer: it is in use, but what holds it was not found\n", Unseen + Busy), (exitCode, output, error));
    }

    [MountFact]
    public void What_this_command_holds_itself_is_said_to_be_so()
    {
        (int exitCode, string output, string error) = Run(
            "veneer mount -o $LAYERS m; veneer holders m >m/said; code=$?; cat m/said; exit $code");

        Assert.Equal(6, exitCode);
        Assert.Equal("m  fuse.veneer, served by veneer (N): it is in use, but what holds it was not found\n", output);
        Assert.Contains("veneer: This command holds it itself, as its descriptor N (m/said) shows.\n", error, StringComparison.Ordinal);
    }

    /// <summary>
    /// The kernel is asked by a call that unmounts when it is made twice. Of two who ask at once, one may find that the other is
    /// asking.
    /// </summary>
    [MountFact]
    public void However_often_it_is_asked_nothing_is_unmounted()
    {
        (int exitCode, string output, string error) = Run(
            "veneer mount -o $LAYERS m; for i in 1 2 3 4; do veneer holders m >said$i 2>&1 & done; wait; veneer holders m; cat m/f; cd m; "
            + "veneer holders .; exit $?");

        Assert.Equal((10, ""), (exitCode, error));
        Assert.Equal(
            "m  fuse.veneer, served by veneer (N): nothing holds it\nold\nm  fuse.veneer, served by veneer (N)\n└── bash (N)\n"
            + "    └── cwd m\n", output);
    }

    /// <summary>Who looks at all mounts, such as df, has each of them for a moment. Here it is held where nobody sees it.</summary>
    [MountFact]
    public void A_mount_that_is_in_use_for_a_moment_is_unmounted()
    {
        const string hold =
            "import os,socket,time; a,b=socket.socketpair(); f=os.open('m',os.O_PATH); socket.send_fds(a,[b'x'],[f]); os.close(f); "
            + "open('there','w'); time.sleep(0.2)";
        (int exitCode, string output, string error) = Run(
            $"veneer mount -o $LAYERS m; python3 -c \"{hold}\" & until [ -e there ]; do :; done; veneer umount m; exit $?");

        Assert.Equal((0, "", ""), (exitCode, output, error));
    }

    [MountFact]
    public void In_json_it_says_whether_the_mount_is_in_use()
    {
        Outcome outcome = sandbox.Run(
            $"veneer mount -o $LAYERS m; veneer holders --json m; {Hold("in-flight")} veneer holders --json m; exit $?");

        string[] answers = outcome.Output.Split("\n}\n", StringSplitOptions.RemoveEmptyEntries);
        using JsonDocument idle = JsonDocument.Parse(answers[0] + "}"), busy = JsonDocument.Parse(answers[1] + "}");
        Assert.False(idle.RootElement.GetProperty("busy").GetBoolean());
        Assert.Equal(0, idle.RootElement.GetProperty("gaps").GetArrayLength());
        Assert.True(busy.RootElement.GetProperty("busy").GetBoolean());
        Assert.False(busy.RootElement.GetProperty("held").GetBoolean());
        Assert.NotEqual(0, busy.RootElement.GetProperty("gaps").GetArrayLength());
        Assert.Equal(6, outcome.ExitCode);
    }

    [MountFact]
    public void A_namespace_that_is_kept_by_one_that_nobody_is_in()
    {
        (int exitCode, string output, _) = Run(
            CliSandbox.NamespaceAt + "mkdir ns; mount -t tmpfs t ns; touch ns/outer; veneer mount -o $LAYERS m; "
            + "namespace_at ns/outer bash -c 'mount -t tmpfs t w; touch w/inner; namespace_at w/inner true; umount m'; "
            + "umount m; veneer holders u");

        Assert.Equal(10, exitCode);
        Assert.Matches(@"mount namespace \d+\n        ├── mounted on m\n        └── kept by its file, mounted on w/inner\n", output);
    }

    [MountTheory]
    [InlineData("exec m/program idle m", "map")]
    [InlineData("exec m/program map m", "map")]
    [InlineData("exec ./program open m", "open")]
    public void What_outlives_a_shutdown_holds_the_filesystem_of_the_layers(string command, string use)
    {
        (int exitCode, string output, string error) = Run(
            $"truncate -s 40M disk; mkfs.ext4 -q -F disk; mkdir d; mount -o loop disk d; mkdir d/l d/u d/w; cp {Holder.Path} program; "
            + "cp program d/l; cp program d/l/f; "
            + $"veneer mount -o lowerdir=d/l,upperdir=d/u,workdir=d/w m; touch m/program m/f; exec 3< <({command}); read -r held <&3; "
            + "veneer shutdown m; veneer holders d; umount -l m; "
            + "veneer holders d; code=$?; veneer holders d/u; kill $!; while kill -0 $! 2>/dev/null; do sleep 0.02; done; "
            + "veneer holders d; exit $code");

        output = Regex.Replace(output, "(on m )?since [-0-9]+ [:0-9]+ [-+][0-9:]+", "on m since N", RegexOptions.ExplicitCapture,
            TimeSpan.FromSeconds(1));
        string[] answers = output.Split("d  ext4");
        Assert.Equal((10, "", 4), (exitCode, error, answers.Length));
        foreach (string answer in answers[1..3])
        {
            Assert.Contains(
                "of the overlay on m since N, which was shut down, served by process N "
                + "(veneer mount -o lowerdir=d/l,upperdir=d/u,workdir=d/w m)\n",
                answer, StringComparison.Ordinal);
            Assert.Contains("── program (N)\n", answer, StringComparison.Ordinal);
            Assert.Contains($"── {use} ", answer, StringComparison.Ordinal);
        }
        Assert.EndsWith("d/u: nothing holds it\n", answers[2], StringComparison.Ordinal);
        Assert.Equal(": nothing holds it\n", answers[3]);
    }

    [MountFact]
    public void A_loop_device_whose_file_has_a_name_that_is_hard_to_read()
    {
        (int exitCode, string output, _) = Run(
            "mkdir -p \"l/a b\\\\040c\"; f=$(printf 'l/a b\\\\040c/i\\nm\\nx'); truncate -s 1M \"$f\"; d=$(losetup -f --show \"$f\"); "
            + "veneer holders l | sed 's/loop[0-9]*/loopN/'; code=${PIPESTATUS[0]}; losetup -d $d; exit $code");

        Assert.Equal((10, "l\n└── /dev/loopN has l/a b\\040c/i\\x0am\\x0ax\n"),
            (exitCode, output.Replace("\\\\040", "\\040", StringComparison.Ordinal)));
    }

    [MountFact]
    public void A_loop_device_whose_file_is_in_another_namespace()
    {
        (int exitCode, string output, _) = Run(
            "mkdir k; unshare --mount --propagation private sh -c 'mount -t tmpfs t k; truncate -s 1M k/image; "
            + "losetup -f --show $PWD/k/image >said; exec sleep 30' & "
            + "until [ -s said ]; do sleep 0.05; done; mount --bind k k; veneer holders k | grep -c loop; "
            + "losetup -l -n -O NAME | grep -qx $(cat said) && p=$(pgrep -x sleep) && "
            + "nsenter -t $p -m veneer holders $PWD/k | grep -c loop; losetup -d $(cat said)");

        Assert.Equal((0, "0\n1\n"), (exitCode, output));
    }

    [MountFact]
    public void A_swap_file_with_a_blank_in_its_name()
    {
        (int exitCode, string output, _) = Run(
            "truncate -s 40M disk; mkfs.ext4 -q -F disk; mkdir d; mount -o loop disk d; "
            + "dd if=/dev/zero of='d/a swap' bs=1M count=2 status=none; chmod 600 d/a*; mkswap 'd/a swap' >/dev/null; "
            + "swapon 'd/a swap' || exit 77; "
            + "veneer holders d; code=$?; swapoff 'd/a swap'; umount d; exit $code");

        Needs.That(exitCode != 77, "to be allowed to use a swap file");
        Assert.Equal((10, "d  ext4\n└── swap file d/a swap\n"), (exitCode, output));
    }
}
