namespace Veneer.Mount.Tests;

/// <summary>With its last process a mount namespace ends, and what was mounted there.</summary>
public sealed class NamespaceTests
{
    private static string[] InNamespace(string script) => ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script];

    /// <summary>Words as part of a script; none has an apostrophe in it.</summary>
    private static string Shell(string[] words) => string.Join(' ', words.Select(word => $"'{word}'"));

    private static string Mount(Overlay overlay) =>
        $"{Mounter.Binary} mount -o lowerdir={overlay.Lower},upperdir={overlay.Upper},workdir={overlay.Work} {overlay.Merged}";

    private static string MountAndWrite(Overlay overlay) => $"{Mount(overlay)}; echo new >{overlay.Merged}/new; ";

    private static string MountAndUnmount(Overlay overlay) => $"{Mount(overlay)} && {Mounter.Binary} umount {overlay.Merged}";

    private static bool IsFree(Overlay overlay) => Command.Run(InNamespace(MountAndUnmount(overlay))).ExitCode == 0;

    private static void AssertThatItBecomesFree(Overlay overlay)
    {
        Patience.Eventually(() => Assert.True(IsFree(overlay)));
        Assert.Equal("new\n", Sys.ReadText(overlay.Upper / "new"));
    }

    /// <summary>The server is in the namespace as well, and must not keep it.</summary>
    [MountFact(OnlyVeneer = "It has servers.")]
    public void A_server_does_not_keep_a_namespace_that_all_others_have_left()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("f", "")), mounted: false, seconds: 60);

        Command.Require(InNamespace(MountAndWrite(overlay)));

        AssertThatItBecomesFree(overlay);
    }

    /// <summary>Whoever is there keeps it, and so does a descriptor.</summary>
    [MountFact(OnlyVeneer = "It has servers.")]
    public void A_namespace_is_kept_by_a_process_and_by_a_descriptor()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("f", "")), mounted: false, seconds: 60);

        Command.Require(InNamespace(
            MountAndWrite(overlay)
            + $"(until [ -e {overlay.Beside("go")} ]; do sleep 0.05; done; "
            + $"cat {overlay.Merged}/new >{overlay.Beside("seen")}) >/dev/null 2>&1 &"));
        // The server has found somebody, for whose end it waits.
        int server = Assert.Single(overlay.Servers);
        Patience.Eventually(() => Assert.True(NamedThreads.IsInPoll(Assert.Single(NamedThreads.CallsOf(server, "namespace")))));
        Assert.False(IsFree(overlay));
        Sys.Write(overlay.Beside("go"), "");
        AssertThatItBecomesFree(overlay);
        Assert.Equal("new\n", Sys.ReadText(overlay.Beside("seen")));

        // A descriptor of the namespace, that somebody outside of it has. It is there for longer than a server waits that is left
        // alone later.
        using var other = Overlay.With(lower: Tree.Of(("f", "")), mounted: false, seconds: 60);
        Sys.Unlink(overlay.Beside("go"));
        FilePath pid = overlay.Beside("pid"), newPid = overlay.Beside("pid.new"), go = overlay.Beside("go");
        string output = Command.Require("sh", "-ec",
            $"unshare --mount --propagation private sh -ec '{MountAndWrite(overlay)} echo $$ >{newPid}; mv {newPid} {pid}; "
            + $"until [ -e {go} ]; do sleep 0.05; done' & "
            + $"until [ -e {pid} ]; do sleep 0.05; done; exec 3</proc/$(cat {pid})/ns/mnt; touch {go}; wait; "
            + $"{Shell(InNamespace(MountAndWrite(other)))}; "
            + $"until {Shell(InNamespace(MountAndUnmount(other)))} 2>/dev/null; do sleep 0.05; done; "
            + $"nsenter --mount=/proc/self/fd/3 cat {overlay.Merged}/new; "
            + $"nsenter --mount=/proc/self/fd/3 {Mounter.Binary} umount {overlay.Merged}");
        Assert.Equal("new", output.Trim());
    }
}
