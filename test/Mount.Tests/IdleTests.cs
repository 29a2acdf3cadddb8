namespace Veneer.Mount.Tests;

/// <summary>A mount that nobody uses costs nothing.</summary>
[Collection<Alone>] // others have the kernel drop its caches, which it tells every server
public sealed class IdleTests
{
    [MountFact(NotOfKernel = "It has no server.")]
    public void An_idle_server_never_wakes_up()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("dir/file", "old"), ("dir/other", "x")));
        File.AppendAllText(overlay.Merged / "dir/file", " new");
        Sys.Unlink(overlay.Merged / "dir/other");
        Assert.Equal(["file"], (overlay.Merged / "dir").Entries());
        Dictionary<string, string> before = SwitchesOf(overlay);
        Assert.NotEmpty(before);

        // Not at once: threads wait a little for the next request. And others may have the kernel drop its caches, which
        // it tells every server. A server that wakes up by itself every three seconds never gets through.
        for (int attempt = 0; attempt < 6; attempt++)
        {
            Thread.Sleep(3000);
            Dictionary<string, string> after = SwitchesOf(overlay);
            if (after.Count == before.Count && !after.Except(before).Any()) { return; }
            before = after;
        }
        Assert.Fail($"Its threads never slept for three seconds: {string.Join(", ", before)}");
    }

    /// <summary>How often each thread of the server has left its CPU.</summary>
    private static Dictionary<string, string> SwitchesOf(Overlay overlay) =>
        overlay.Servers.SelectMany(pid => Directory.GetDirectories($"/proc/{pid}/task")).ToDictionary(
            thread => thread,
            thread => string.Join(' ',
                File.ReadLines($"{thread}/status").Where(line => line.Contains("ctxt_switches", StringComparison.Ordinal))),
            StringComparer.Ordinal);
}
