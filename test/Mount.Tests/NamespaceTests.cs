namespace Veneer.Mount.Tests;

/// <summary>With its last process a mount namespace ends, and what was mounted there.</summary>
public sealed class NamespaceTests
{
    private static string[] InNamespace(string script) => ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script];

    private static string Mount(Overlay overlay) =>
        $"{Mounter.Binary} mount -o lowerdir={overlay.Lower},upperdir={overlay.Upper},workdir={overlay.Work} {overlay.Merged}";

    private static string MountAndWrite(Overlay overlay) => $"{Mount(overlay)}; echo new >{overlay.Merged}/new; ";

    private static bool IsFree(Overlay overlay) =>
        Command.Run(InNamespace($"{Mount(overlay)} && {Mounter.Binary} umount {overlay.Merged}")).ExitCode == 0;

    private static void AssertThatItBecomesFree(Overlay overlay)
    {
        for (int i = 0; i < 100 && !IsFree(overlay); i++) { Thread.Sleep(50); }
        Assert.True(IsFree(overlay));
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
        Thread.Sleep(1500); // longer than a server waits
        Assert.False(IsFree(overlay));
        Sys.Write(overlay.Beside("go"), "");
        AssertThatItBecomesFree(overlay);
        Assert.Equal("new\n", Sys.ReadText(overlay.Beside("seen")));

        // A descriptor of the namespace, that somebody outside of it has.
        Sys.Unlink(overlay.Beside("go"));
        FilePath pid = overlay.Beside("pid"), newPid = overlay.Beside("pid.new"), go = overlay.Beside("go");
        string output = Command.Require("sh", "-ec",
            $"unshare --mount --propagation private sh -ec '{MountAndWrite(overlay)} echo $$ >{newPid}; mv {newPid} {pid}; "
            + $"until [ -e {go} ]; do sleep 0.05; done' & "
            + $"until [ -e {pid} ]; do sleep 0.05; done; exec 3</proc/$(cat {pid})/ns/mnt; touch {go}; wait; sleep 1.5; "
            + $"nsenter --mount=/proc/self/fd/3 cat {overlay.Merged}/new; "
            + $"nsenter --mount=/proc/self/fd/3 {Mounter.Binary} umount {overlay.Merged}");
        Assert.Equal("new", output.Trim());
    }
}
