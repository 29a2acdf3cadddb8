using System.Diagnostics;
using System.Globalization;

namespace Veneer.Compare;

/// <summary>One contender over fresh upper and work directories, for one measurement.</summary>
internal sealed class Bed : IDisposable
{
    private readonly Stand stand;
    private readonly IReadOnlyList<FilePath> lowers;
    private readonly FilePath home;
    private readonly int limit;
    private readonly Timer watch;
    private bool isMounted;

    public Bed(Stand stand, Contender contender, IReadOnlyList<FilePath> lowers, string[] parts, int limit)
    {
        (this.stand, this.lowers, this.limit) = (stand, lowers, limit);
        Contender = contender;
        home = stand.New();
        watch = new Timer(_ => Overlay.Abort(Merged), null, TimeSpan.FromSeconds(limit), Timeout.InfiniteTimeSpan);
        try
        {
            foreach (FilePath each in (FilePath[])[home / "u", home / "w", Merged]) { Sys.MakeDirectory(each, Octal.Oct(755)); }
            if (contender.Mounter is null) { Copy(parts); }
            MountTime = contender.Mounter is { } mounter ? Clock(() => Mount(mounter)) : 0;
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    public Contender Contender { get; }

    public FilePath Merged => home / "m";

    /// <summary>Milliseconds until the mount had answered its first question.</summary>
    public double MountTime { get; }

    /// <summary>Another one of the same layers.</summary>
    public Bed Another() => new(stand, Contender, lowers, [], limit);

    private void Mount(Mounter mounter)
    {
        mounter.Mount(new Layers(lowers, home / "u", home / "w", Merged, Contender.Options));
        isMounted = true;
        _ = Sys.Stat(Merged);
    }

    /// <summary>What the layers together would show, as files of their own.</summary>
    private void Copy(string[] parts)
    {
        foreach (FilePath from in from part in parts from lower in lowers.Reverse() let path = lower / part where path.Exists select path)
        {
            Command.Require("cp", "-a", from, Merged + "/");
        }
        stand.Settle();
    }

    /// <summary>Does an operation in a process of its own.</summary>
    /// <returns>Nanoseconds per operation.</returns>
    public double Work(string operation, string path, int count, int threads = 1)
    {
        string[] words = [Environment.ProcessPath!, "work", operation, Merged / path, $"{count}", $"{threads}", stand.WarmUp];
        Command.Result result = Command.Run(words, limit);
        return result.ExitCode == 0 ? double.Parse(result.Output, CultureInfo.InvariantCulture) : throw new InvalidOperationException(result.Text);
    }

    /// <summary>Runs a script in the mount; <c>$beside</c> is where archives are.</summary>
    /// <returns>Milliseconds.</returns>
    public double Shell(string script) =>
        Clock(() => Stand.Shell($"cd {Merged}; beside={stand.Beside}; export GIT_CONFIG_NOSYSTEM=1\n{script}", limit));

    /// <summary>Milliseconds of the wall clock.</summary>
    public static double Clock(Action action)
    {
        long start = Stopwatch.GetTimestamp();
        action();
        return Stopwatch.GetElapsedTime(start).TotalMilliseconds;
    }

    /// <summary>Resident memory of the server in MiB.</summary>
    public double ServerMemory => Overlay.ServersOf(Merged).Sum(pid => StatusOf(pid, "VmRSS:")) / 1024.0;

    private static double StatusOf(int pid, string field) =>
        double.Parse(File.ReadLines($"/proc/{pid}/status").First(line => line.StartsWith(field, StringComparison.Ordinal)).Split(' ', StringSplitOptions.RemoveEmptyEntries)[1]);

    /// <summary>Milliseconds that the server has computed, to the tick of 10; null without a server.</summary>
    public double? ServerTime
    {
        get
        {
            if (!Contender.Can.HasFlag(Abilities.Server)) { return null; }
            // The name in brackets may have spaces: utime and stime are the 12th and 13th word behind it.
            IEnumerable<string[]> words = Overlay.ServersOf(Merged).Select(pid => File.ReadAllText($"/proc/{pid}/stat")).Select(text => text[(text.LastIndexOf(')') + 2)..].Split(' '));
            return words.Sum(word => 10 * (double.Parse(word[11]) + double.Parse(word[12])));
        }
    }

    public void Dispose()
    {
        try
        {
            if (isMounted) { Contender.Mounter!.Unmount(Merged); }
            var waited = Stopwatch.StartNew();
            while (Contender.Can.HasFlag(Abilities.Server) && Overlay.ServersOf(Merged).Count > 0 && waited.Elapsed < TimeSpan.FromSeconds(5)) { Thread.Sleep(1); }
        }
        catch (Exception problem) when (problem is SysException or InvalidOperationException or TimeoutException)
        {
            Overlay.Abort(Merged);
            _ = Libc.Unmount(Merged.Bytes, lazy: true); // best effort: gone with the namespace at the latest
        }
        watch.Dispose();
        _ = Sys.ErrorOf(() => Sys.RemoveTree(home)); // best effort: the filesystem goes as a whole
    }
}
