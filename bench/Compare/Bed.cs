using System.Diagnostics;
using System.Globalization;

namespace Veneer.Compare;

/// <summary>One contender over fresh upper and work directories, for one measurement.</summary>
internal sealed class Bed : IDisposable
{
    private readonly Stand stand;
    private readonly Row row;
    private readonly IReadOnlyList<FilePath> lowers;
    private readonly FilePath home;
    private readonly int limit;
    private readonly Timer watch;
    private readonly Process? inside;
    private readonly Mounter? mounter;
    private readonly List<Bed> others = [];
    private bool isMounted;

    /// <param name="stand">Where the layers are.</param>
    /// <param name="contender">Who is measured.</param>
    /// <param name="row">What is measured.</param>
    /// <param name="limit">Seconds until it is given up.</param>
    public Bed(Stand stand, Contender contender, Row row, int limit)
    {
        (this.stand, this.row, this.limit) = (stand, row, limit);
        Contender = contender;
        lowers = stand.Layers(row.Layers);
        home = stand.New();
        watch = new Timer(_ => Overlay.Abort(Merged), null, TimeSpan.FromSeconds(limit), Timeout.InfiniteTimeSpan);
        try
        {
            foreach (FilePath each in (FilePath[])[home / "u", home / "w", Merged]) { Sys.MakeDirectory(each, Octal.Oct(755)); }
            inside = contender.IsRootless ? EnterUserNamespace() : null;
            mounter = contender.MounterBehind(string.Join(' ', Prefix));
            if (mounter is null) { Copy(row.Parts); }
            MountTime = mounter is null ? 0 : Clock(Mount);
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

    /// <summary>What was looked at now and again: seconds and the value.</summary>
    public List<double[]> Samples { get; } = [];

    /// <summary>Another one of the same layers, which goes with this one.</summary>
    public void AddAnother() => others.Add(new Bed(stand, Contender, row, limit));

    /// <summary>A process in user and mount namespaces of its own. Root there is nobody here, but the owner of root's files.</summary>
    private static Process EnterUserNamespace()
    {
        // Its standard input is ours: it ends with us.
        var start = new ProcessStartInfo("unshare",
            ["--user", "--map-root-user", "--mount", "--propagation", "private", "sh", "-c", "echo ready; read end"])
        {
            RedirectStandardInput = true, RedirectStandardOutput = true,
        };
        Process process = Process.Start(start)!;
        return process.StandardOutput.ReadLine() == "ready"
            ? process
            : throw new InvalidOperationException("No user namespace can be made here.");
    }

    private string[] Prefix => inside is null ? [] : ["nsenter", $"--target={inside.Id}", "--user", "--mount", "--preserve-credentials"];

    private void Mount()
    {
        FilePath upper = row.Upper is { } prepared ? stand.Layers(prepared)[0] : home / "u";
        mounter!.Mount(new Layers(lowers, upper, home / "w", Merged, Contender.Options));
        isMounted = true;
        if (inside is null) { _ = Sys.Stat(Merged); }
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
        string[] words = [.. Prefix, Environment.ProcessPath!, "work", operation, Merged / path, $"{count}", $"{threads}", stand.WarmUp];
        Command.Result result = Command.Run(words, limit);
        return result.ExitCode == 0
            ? double.Parse(result.Output, CultureInfo.InvariantCulture)
            : throw new InvalidOperationException(result.Text);
    }

    /// <summary>Has <c>veneer diff</c> list what was changed, whoever mounted.</summary>
    /// <returns>Milliseconds.</returns>
    public double Diff() =>
        Clock(() => Command.Require(Mounter.Binary, "diff", "--upper", home / "u", "--lower", string.Join(':', lowers)));

    /// <summary>Runs a script in the mount; <c>$beside</c> is where archives are.</summary>
    /// <returns>Milliseconds.</returns>
    public double Shell(string script) =>
        Clock(() => Stand.Shell($"cd {Merged}; beside={stand.Beside}; export HOME={stand.Beside} GIT_CONFIG_NOSYSTEM=1\n{script}", limit));

    /// <summary>Milliseconds of the wall clock.</summary>
    public static double Clock(Action action)
    {
        long start = Stopwatch.GetTimestamp();
        action();
        return Stopwatch.GetElapsedTime(start).TotalMilliseconds;
    }

    /// <summary>Has the kernel forget what nobody uses, and waits until the server's memory stays as it is.</summary>
    public void Forget()
    {
        stand.Forget();
        double before = double.MaxValue;
        for (int attempt = 0; attempt < 20 && ServerMemory < before; attempt++)
        {
            before = ServerMemory;
            Thread.Sleep(2000); // what is forgotten arrives, and is given back, a little later
        }
    }

    /// <summary>Resident memory of the server in MiB.</summary>
    public double ServerMemory => Overlay.ServersOf(Merged).Sum(pid => StatusOf($"/proc/{pid}/status", "VmRSS:")) / 1024.0;

    /// <summary>How often all threads of the server together have left a CPU, since they began.</summary>
    public double ServerSwitches =>
        (from pid in Overlay.ServersOf(Merged)
         from thread in Directory.GetDirectories($"/proc/{pid}/task")
         select StatusOf($"{thread}/status", "voluntary_ctxt_switches:")
             + StatusOf($"{thread}/status", "nonvoluntary_ctxt_switches:")).Sum();

    private static double StatusOf(string file, string field) =>
        double.Parse(
            File.ReadLines(file)
                .First(line => line.StartsWith(field, StringComparison.Ordinal))
                .Split((char[])[' ', '\t'], StringSplitOptions.RemoveEmptyEntries)[1]);

    /// <summary>Milliseconds that the server has computed, to the tick of 10; null without a server.</summary>
    public double? ServerTime
    {
        get
        {
            if (!Contender.Can.HasFlag(Abilities.Server)) { return null; }
            // The name in brackets may have spaces: utime and stime are the 12th and 13th word behind it.
            IEnumerable<string[]> words = Overlay.ServersOf(Merged)
                .Select(pid => File.ReadAllText($"/proc/{pid}/stat"))
                .Select(text => text[(text.LastIndexOf(')') + 2)..].Split(' '));
            return words.Sum(word => 10 * (double.Parse(word[11]) + double.Parse(word[12]))) + others.Sum(other => other.ServerTime);
        }
    }

    public void Dispose()
    {
        foreach (Bed other in others) { other.Dispose(); }
        try
        {
            if (isMounted) { mounter!.Unmount(Merged); }
            var waited = Stopwatch.StartNew();
            while (Contender.Can.HasFlag(Abilities.Server)
                && Overlay.ServersOf(Merged).Count > 0
                && waited.Elapsed < TimeSpan.FromSeconds(5))
            {
                Thread.Sleep(1);
            }
        }
        catch (Exception problem) when (problem is SysException or InvalidOperationException or TimeoutException)
        {
            Overlay.Abort(Merged);
            _ = Libc.Unmount(Merged.Bytes, lazy: true); // best effort: gone with the namespace at the latest
        }
        inside?.StandardInput.Close();
        inside?.Dispose();
        watch.Dispose();
        _ = Sys.ErrorOf(() => Sys.RemoveTree(home)); // best effort: the filesystem goes as a whole
    }
}
