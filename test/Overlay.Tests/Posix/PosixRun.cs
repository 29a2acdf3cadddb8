using Veneer.Fuse.Tests;

namespace Veneer.Overlay.Tests.Posix;

/// <summary>One run of <see cref="PosixModelTests"/>: random operations on an overlay and on a tree in memory, from one seed.</summary>
internal sealed class PosixRun
{
    private const int Sessions = 3, Rounds = 3, OperationsOfRound = 45;

    private readonly string variant;
    private readonly int seed;
    private readonly Random random;
    private readonly string[] lowers;
    private readonly string upper, work;
    private readonly RealLayers layers;
    private readonly ModelNode root;
    private readonly string[] attributes;
    private readonly bool isWritable, movesDirectories;
    private readonly OverlayOptions options;
    private readonly List<string> trace = [];
    private int lastCompared;

    public PosixRun(string scratch, string variant, int seed)
    {
        this.variant = variant;
        this.seed = seed;
        random = new Random(seed);
        bool isUser = variant == "userxattr";
        isWritable = variant != "no upper";
        movesDirectories = variant is "redirect_dir" or "metacopy";
        layers = new RealLayers(isUser ? "user.overlay." : "trusted.overlay.");
        attributes = ["user.one", "user.new", "trusted.two", layers.Prefix + "zz"];
        lowers = [.. Enumerable.Range(1, 4).Select(i => Directory.CreateDirectory(Path.Combine(scratch, $"lower{i}")).FullName)];
        upper = Directory.CreateDirectory(Path.Combine(scratch, "upper")).FullName;
        work = Directory.CreateDirectory(Path.Combine(scratch, "work")).FullName;
        bool metacopies = variant is "metacopy" or "no upper";
        PosixLowers.Make(layers, lowers, redirects: !isUser, metacopies);
        options = new OverlayOptions
        {
            LowerDirectories = lowers,
            UpperDirectory = isWritable ? upper : null,
            WorkDirectory = isWritable ? work : null,
            ReadOnly = !isWritable,
            RedirectDirectory = movesDirectories ? RedirectDirectory.On : isUser ? RedirectDirectory.NoFollow : RedirectDirectory.Follow,
            Metacopy = metacopies,
            UserXattr = isUser,
            Sync = isWritable ? Sync.Volatile : Sync.Auto,
            MountPoint = "/nowhere",
            Passthrough = KernelFeature.Off,
            IoUring = KernelFeature.Off,
        };
        root = layers.Merge(Layers);
    }

    private string[] Layers => isWritable ? [upper, .. lowers] : lowers;

    public void Run()
    {
        string[][] before = [.. lowers.Select(RealLayers.Snapshot)];
        try
        {
            for (int session = 0; session < Sessions; session++)
            {
                trace.Add($"--- session {session}");
                RunSession();
                if (isWritable) { CheckLayers(); }
                for (int i = 0; i < lowers.Length; i++) { Assert.Equal(before[i], RealLayers.Snapshot(lowers[i])); }
            }
        }
        catch (Exception exception)
        {
            throw new InvalidOperationException(
                $"Variant '{variant}', seed {seed}: {exception.Message}\n{Story(exception.Message)}", exception);
        }
    }

    /// <summary>What was done since the tree was last compared, and before that to the names that the message mentions.</summary>
    private string Story(string message)
    {
        string[] words = message.Split([' ', '\n', ',', ':'], StringSplitOptions.RemoveEmptyEntries);
        string[] mentioned = [.. words.Where(word => word.StartsWith('/') && word.Length > 1)];
        return string.Join('\n', trace.Where((line, i) => i >= lastCompared || line[0] == '-' || mentioned.Any(line.Contains)));
    }

    private void RunSession()
    {
        var logged = new List<string>();
        using var overlay = OverlayMount.Open(options, logged.Add);
        using var kernel = FakeKernel.Start(overlay.FileSystem);
        var client = new FuseClient(kernel);
        var comparison = new PosixComparison(root, client, random);
        var operations = new PosixOperations(root, client, comparison, random, trace)
        {
            IsWritable = isWritable, MovesDirectories = movesDirectories, Attributes = attributes,
        };
        foreach (var (_, _, _, node) in root.Walk())
        {
            // Of a lower file with several names, those that were never looked up are others after a mount, as with the kernel.
            if (node.LowerNlink > 0 || (layers.IsUser && !node.TakesUserAttributes)) { node.Ino = 0; }
            if (node.LowerNlink > 0) { node.Nlink = 0; }
        }
        comparison.Compare();
        for (int round = 0; round < Rounds; round++)
        {
            for (int i = 0; i < OperationsOfRound; i++) { operations.Step(); }
            lastCompared = Math.Max(lastCompared, trace.Count - OperationsOfRound);
            comparison.Compare();
            comparison.CheckHandles(operations.Handles);
            lastCompared = trace.Count;
        }
        operations.CloseAll();
        client.ForgetAll();
        Assert.Empty(kernel.Logged);
        Assert.Empty(logged);
    }

    /// <summary>After a session: upper and the lowers say what the overlay said, and work holds nothing that is needed.</summary>
    private void CheckLayers()
    {
        PosixComparison.CompareModels(root, layers.Merge(Layers), "");
        const string mark = "work/incompat/volatile";
        string[] known = ["work", "work/#whiteout", "work/incompat", mark, mark + "/dirty", "veneer-volatile", "#veneer-probe"];
        IEnumerable<string> left = Directory.EnumerateFileSystemEntries(work, "*", SearchOption.AllDirectories)
            .Select(path => Path.GetRelativePath(work, path)).Except(known)
            .Where(path => !path.StartsWith("#veneer-probe/", StringComparison.Ordinal));
        PosixComparison.Check("", string.Join(' ', left), "", "left in work");
    }
}
