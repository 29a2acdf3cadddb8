using System.Text;

namespace Veneer.Mount.Tests.Crash;

/// <summary>One server that is killed at one step of one operation, and all that must be true then.</summary>
internal sealed class Trial : IDisposable
{
    private const Facets Seen = Facets.Visible | Facets.RecentTimesAreNow;

    private readonly Operation operation;
    private readonly Overlay overlay;
    private readonly SteppedServer server;
    private readonly StringBuilder problems = new();

    /// <param name="operation">What is done.</param>
    /// <param name="on">Where the layers are.</param>
    /// <param name="step">When the server is killed: at the entry of which step; 0 when all is done.</param>
    /// <param name="upperOn">What upper lies on, if on no ordinary filesystem.</param>
    public Trial(Operation operation, Filesystem on, int step = 0, UpperOn upperOn = UpperOn.Same)
    {
        this.operation = operation;
        Tree upper = operation.AlsoInUpper is { } more ? Operation.Upper.And(more.Path, more.Node) : Operation.Upper;
        overlay = Overlay.With(lowers: Operation.Lowers, upper: upper, options: operation.Options, on: on, upperOn: upperOn,
            mounted: false);
        server = new SteppedServer(overlay.Beside("steps"), step);
    }

    /// <summary>What was done until the server was killed.</summary>
    public string[] Steps => server.Steps;

    /// <summary>Whether the server was killed, and has not ended by itself.</summary>
    public bool WasKilled => server.WasKilled;

    /// <summary>What users see before the operation: the kernel says.</summary>
    public TreeImage ViewBefore()
    {
        overlay.MountWithKernel();
        return LookAndUnmount();
    }

    /// <summary>Does all of the operation, and kills the server then.</summary>
    /// <returns>What users see.</returns>
    public TreeImage RunThrough()
    {
        Assert.Equal(Errno.None, MountAndDo());
        TreeImage shown = Look(overlay.Merged);
        overlay.KillServer();
        TreeImage seen = ViewOfCopy();
        Expect("What Veneer showed is not what the kernel shows", seen, shown);
        MountAgain(seen);
        Assert.Equal("", problems.ToString());
        return seen;
    }

    /// <summary>Has the kernel do the operation.</summary>
    /// <returns>What users see then.</returns>
    public TreeImage RunWithKernel()
    {
        overlay.MountWithKernel();
        Assert.Equal(Errno.None, Sys.ErrorOf(() => operation.Do(overlay.Merged)));
        return LookAndUnmount();
    }

    /// <summary>Does all of the operation.</summary>
    /// <returns>What users see then, in this mount and in the next.</returns>
    public TreeImage RunThroughSteps()
    {
        Assert.Equal(Errno.None, MountAndDo());
        TreeImage shown = Look(overlay.Merged);
        overlay.KillServer();
        MountAgain(shown);
        Assert.Equal("", problems.ToString());
        return shown;
    }

    /// <summary>
    /// Does the operation, during which the server is killed, on an upper where names change in steps. The next mount must turn
    /// what is left into the old state or the new one.
    /// </summary>
    /// <returns>What is wrong then, or nothing.</returns>
    public string RunInSteps(TreeImage before, TreeImage after)
    {
        Errno answer = MountAndDo();
        overlay.KillServer();
        Sys.DropCaches();

        FilePath notes = overlay.Work / "work/incompat";
        bool isNoted = notes.Exists && notes.Entries().Length > 0;
        TreeImage? refused = isNoted ? ViewAfterRefusal() : null;
        overlay.Mount();
        TreeImage seen = LookAndUnmount();
        if (refused is not null && Difference(seen, refused) is { Length: > 0 } harm)
        {
            Say("Of what the kernel refuses to mount another state is made", harm);
        }
        string fromOld = Difference(before, seen), fromNew = Difference(after, seen);
        if (answer == Errno.None && fromNew.Length > 0) { Say("It had succeeded, but the new state is not there", fromNew); }
        else if (fromOld.Length > 0 && fromNew.Length > 0) { Say("Neither the old state", fromOld).Say("nor the new", fromNew); }
        Expect("Veneer does not show what the kernel shows of a copy", ViewOfCopy(), seen);
        MountAgain(seen);
        if (fromOld.Length > 0) { return problems.ToString(); }
        answer = Sys.ErrorOf(() => operation.Do(overlay.Merged));
        if (answer != Errno.None) { Say("It cannot be done again", answer.ToString()); }
        else { Expect("Done again, it leads to another state", WithoutDirectoryTimes(after), WithoutDirectoryTimes(Look(overlay.Merged))); }
        return problems.ToString();
    }

    /// <summary>Does the operation, of which the server dies.</summary>
    /// <returns>What is wrong then, or nothing.</returns>
    public string Run(TreeImage before, TreeImage after)
    {
        Errno answer = MountAndDo();
        overlay.KillServer();

        TreeImage seen = ViewOfCopy();
        string fromOld = Difference(before, seen), fromNew = Difference(after, seen);
        if (answer == Errno.None && fromNew.Length > 0) { Say("It had succeeded, but the new state is not there", fromNew); }
        else if (fromOld.Length > 0 && fromNew.Length > 0) { Say("Neither the old state", fromOld).Say("nor the new", fromNew); }

        MountAgain(seen);
        if (fromOld.Length > 0) { return problems.ToString(); }
        answer = Sys.ErrorOf(() => operation.Do(overlay.Merged));
        if (answer != Errno.None) { Say("It cannot be done again", answer.ToString()); }
        if (operation.SplitsNames) { return problems.ToString(); }
        overlay.Unmount();
        overlay.MountWithKernel();
        Expect("Done again, it leads to another state", WithoutDirectoryTimes(after), WithoutDirectoryTimes(LookAndUnmount()));
        return problems.ToString();
    }

    /// <summary>What the kernel answers when the server dies, is no answer: it may have been done or not.</summary>
    private Errno MountAndDo()
    {
        if (operation.LeftInWork is { } left)
        {
            left.MakeAt(overlay.Work);
            server.CountSteps();
        }
        try { overlay.Mount(server); }
        catch (InvalidOperationException) when (server.WasKilled) { return Errno.ENOTCONN; }
        server.CountSteps();
        return Sys.ErrorOf(() => operation.Do(overlay.Merged));
    }

    private void MountAgain(TreeImage seen)
    {
        foreach (string problem in UpperFormat.ProblemsOf(overlay.Upper)) { Say("Ill-formed", problem); }
        overlay.Mount();
        // On a disk it has directories of its own there while it is mounted.
        const string probe = "#veneer-probe";
        string[] there = overlay.Work.Entries();
        if (there.Except([probe]).ToArray() is not ["work"]) { Say("Left in the work directory", string.Join(' ', there)); }
        if (there.Contains(probe) && (overlay.Work / probe).Entries() is not ["l", "u", "w"])
        {
            Say($"Left in {probe}", string.Join(' ', (overlay.Work / probe).Entries()));
        }
        if ((overlay.Work / "work").Entries() is { Length: > 0 } left) { Say("Left in work", string.Join(' ', left)); }
        Expect("Veneer does not show what the kernel shows", seen, Look(overlay.Merged));
    }

    public void Dispose()
    {
        server.Dispose();
        overlay.Dispose();
    }

    /// <summary>Does the operation and unmounts, of which the server dies.</summary>
    /// <returns>What is wrong then, or nothing.</returns>
    public string RunUnmount()
    {
        overlay.Mount(server);
        Assert.Equal(Errno.None, Sys.ErrorOf(() => operation.Do(overlay.Merged)));
        TreeImage shown = Look(overlay.Merged);
        server.CountSteps();
        overlay.Unmount();
        overlay.KillServer();

        TreeImage seen = ViewOfCopy();
        Expect("The kernel does not show what Veneer showed", shown, seen);
        MountAgain(seen);
        return problems.ToString();
    }

    private Layers Copy(string name)
    {
        FilePath copy = overlay.Beside(name), seen = overlay.Beside($"seen-{name}");
        Sys.MakeDirectory(copy);
        Sys.MakeDirectory(seen);
        _ = Command.Require("cp", "-a", overlay.Upper, overlay.Work, copy);
        return new Layers(overlay.Lowers, copy / overlay.Upper.Name, copy / overlay.Work.Name, seen, operation.Options);
    }

    /// <summary>What Veneer makes of a copy that the kernel does not mount: that may have removed something before it saw why.</summary>
    private TreeImage ViewAfterRefusal()
    {
        Layers copy = Copy("half");
        FilePath work = copy.Work!.Value / "work";
        foreach (string name in work.Entries().Where(one => one != "incompat"))
        {
            // It removes what it finds before the notes, and tmpfs lists last what was named first.
            Sys.Rename(work / name, work / "incompat.after");
            Sys.Rename(work / "incompat.after", work / name);
        }
        if (!Sys.ErrorOf(() => Mounter.Kernel.Mount(copy)).IsError)
        {
            Say("The kernel mounts", "what is half done");
            Mounter.Kernel.Unmount(copy.Merged);
        }
        Mounter.UnderTest.Mount(copy);
        try { return Look(copy.Merged); }
        finally { Mounter.UnderTest.Unmount(copy.Merged); }
    }

    /// <summary>
    /// What the kernel makes of upper and work as the crash left them. The kernel mounts a copy, so that Veneer finds both
    /// unchanged.
    /// </summary>
    private TreeImage ViewOfCopy()
    {
        Layers copy = Copy("copy");
        FilePath seen = copy.Merged;
        Mounter.Kernel.Mount(copy);
        try
        {
            TreeImage image = Look(seen);
            // A whiteout with nothing below it, see docs/differences.md: the kernel lists the name and has nothing under it.
            foreach (string path in image.Lines.Where(one => one.Value == nameof(Errno.ENOENT)).Select(one => one.Key).ToArray())
            {
                image.Without(path);
            }
            // A work directory that the kernel cannot clean makes the mount read-only.
            Errno error = Sys.ErrorOf(() => Sys.MakeDirectory(seen / "writable"));
            if (error.IsError) { Say("The kernel cannot write", error.ToString()); }
            return image;
        }
        finally
        {
            Mounter.Kernel.Unmount(seen);
        }
    }

    private TreeImage LookAndUnmount()
    {
        TreeImage image = Look(overlay.Merged);
        overlay.Unmount();
        return image;
    }

    private TreeImage Look(FilePath root) => TreeImage.Of(root, Seen).Map(line => Without(line, operation.Unsteady));

    /// <summary>A directory's own time is not part of a state: it changes by each step that is done in it.</summary>
    private static TreeImage WithoutDirectoryTimes(TreeImage image) =>
        image.Map(line => line.StartsWith("directory", StringComparison.Ordinal) ? Without(line, "mtime=") : line);

    private static string Difference(TreeImage state, TreeImage seen) =>
        TreeImage.Difference(WithoutDirectoryTimes(state), WithoutDirectoryTimes(seen));

    private void Expect(string otherwise, TreeImage expected, TreeImage actual)
    {
        string difference = TreeImage.Difference(expected, actual);
        if (difference.Length > 0) { Say(otherwise, difference); }
    }

    private Trial Say(string what, string detail)
    {
        problems.Append(what).Append(": ").AppendLine(detail);
        return this;
    }

    private static string Without(string line, params string[] words) =>
        words.Length == 0
            ? line
            : string.Join(' ', line.Split(' ').Where(one => !words.Any(word => one.StartsWith(word, StringComparison.Ordinal))));
}
