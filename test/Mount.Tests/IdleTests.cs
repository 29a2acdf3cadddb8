namespace Veneer.Mount.Tests;

/// <summary>A mount that nobody uses costs nothing.</summary>
public sealed class IdleTests
{
    [MountFact(NotOfKernel = "It has no server.")]
    public void An_idle_server_never_wakes_up()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("dir/file", "old"), ("dir/other", "x")));
        File.AppendAllText(overlay.Merged / "dir/file", " new");
        Sys.Unlink(overlay.Merged / "dir/other");
        Assert.Equal(["file"], (overlay.Merged / "dir").Entries());
        Thread.Sleep(2000); // threads that wait a little for the next request go to sleep

        Dictionary<string, string> before = SwitchesOf(overlay);
        Thread.Sleep(3000);

        Assert.NotEmpty(before);
        Assert.Equal(before, SwitchesOf(overlay));
    }

    /// <summary>How often each thread of the server has left its CPU.</summary>
    private static Dictionary<string, string> SwitchesOf(Overlay overlay) =>
        overlay.Servers.SelectMany(pid => Directory.GetDirectories($"/proc/{pid}/task")).ToDictionary(
            thread => thread,
            thread => string.Join(' ', File.ReadLines($"{thread}/status").Where(line => line.Contains("ctxt_switches", StringComparison.Ordinal))),
            StringComparer.Ordinal);
}
