namespace Veneer.Mount.Tests.Crash;

/// <summary>What is on the disk before a copy gets its name, as <c>fsync=</c> says.</summary>
public sealed class SyncTests
{
    [MountTheory(OnlyVeneer = "Nobody else has steps that are known.")]
    [InlineData("fsync=volatile", "file", 0)]
    [InlineData("fsync=volatile", "d/x", 0)]
    [InlineData("fsync=auto", "file", 1)]
    [InlineData("fsync=auto", "empty", 0)]
    [InlineData("fsync=auto", "d", 0)]
    [InlineData("fsync=auto", "d/x", 1)]
    [InlineData("fsync=strict", "file", 1)]
    [InlineData("fsync=strict", "empty", 1)]
    [InlineData("fsync=strict", "d", 1)]
    [InlineData("fsync=strict", "d/x", 2)]
    [InlineData("fsync=strict", "fifo", 0)]
    public void A_copy_up_syncs(string option, string name, int syncs)
    {
        using var overlay = Overlay.With(lower: Tree.Of(("file", "content"), ("empty", ""), ("d/x", "x"), ("fifo", Node.Fifo())),
            options: option, mounted: false);
        using var server = new SteppedServer(overlay.Beside("steps"), 0);
        overlay.Mount(server);
        server.CountSteps();

        Sys.ChangeMode(overlay.Merged / name, Oct(700));

        string[] steps = server.Steps;
        overlay.Unmount();
        overlay.ForgetVolatile();
        Assert.True(syncs == steps.Count(IsSync), string.Join('\n', steps));
        int last = Array.FindLastIndex(steps, IsSync);
        Assert.True(
            last < Array.FindLastIndex(steps,
                step => step.StartsWith("link", StringComparison.Ordinal) || step.StartsWith("rename", StringComparison.Ordinal)),
            string.Join('\n', steps));
    }

    /// <summary>As the kernel does it: whoever has remounted may cut the power. Kernel: ovl_reconfigure()</summary>
    [MountTheory(OnlyVeneer = "Nobody else has steps that are known.")]
    [InlineData("", "ro", 1)]
    [InlineData("", "ro ro rw ro", 2)]
    [InlineData("", "noatime", 0)]
    [InlineData("ro", "ro", 0)]
    [InlineData("volatile", "ro", 0)]
    public void Upper_is_on_disk_when_the_overlay_has_become_read_only(string options, string remounts, int synced)
    {
        using var overlay = Overlay.With(lower: Tree.Of(("file", "content")), options: options, mounted: false);
        using var server = new SteppedServer(overlay.Beside("steps"), last: 0);
        overlay.Mount(server);
        if (options != "ro") { Sys.Write(overlay.Merged / "new", "new"); }
        server.CountSteps();

        foreach (string remount in remounts.Split(' ')) { overlay.RemountAs(remount); }
        overlay.Unmount();
        overlay.ForgetVolatile();

        Assert.Equal(synced, server.Steps.Count(step => step.StartsWith("syncfs ", StringComparison.Ordinal)));
    }

    private static bool IsSync(string step) => step.Split(['(', ' '])[0] is "fsync" or "fdatasync";
}
