namespace Veneer.Mount.Tests;

/// <summary>The same question to an overlay of the kernel and to one of Veneer, for the rows of docs/differences.md.</summary>
internal static class BesideTheKernel
{
    /// <summary>Why other overlays than Veneer's are not asked.</summary>
    public const string OnlyVeneer = "It mounts the kernel's beside Veneer.";

    /// <summary>Asks the same of an overlay of the kernel and of Veneer, over the same layers.</summary>
    public static void Compare(
        string kernel, string veneer, Func<Overlay, string> ask, Tree? lower = null, Tree? upper = null, string options = "",
        string own = "", Filesystem on = Filesystem.Tmpfs, Filesystem? lowersOn = null, UpperOn upperOn = UpperOn.Same,
        FilePath[]? over = null)
    {
        foreach (Mounter mounter in (Mounter[])[Mounter.Kernel, Mounter.UnderTest])
        {
            string given = mounter.IsKernel ? options : string.Join(',', new[] { options, own }.Where(one => one.Length > 0));
            using var overlay = Overlay.With(lower: lower, upper: upper, options: given, on: on, lowersOn: lowersOn, upperOn: upperOn,
                over: over, mounter: mounter);
            Assert.Equal($"{mounter}: {(mounter.IsKernel ? kernel : veneer)}", $"{mounter}: {ask(overlay)}");
        }
    }

    /// <summary>What a call answers: the name of its error, or what it gives.</summary>
    public static string Said(Func<string> call)
    {
        try { return call(); }
        catch (SysException problem) { return problem.Errno.ToString(); }
    }

    public static string Said(Action call) => Sys.ErrorOf(call).ToString();

    /// <summary>Compares the numbers of two objects. The kernel must keep the first, though another test has it drop its caches.</summary>
    public static string Numbers(FilePath one, FilePath other) => Said(() =>
    {
        using Descriptor kept = Sys.Open(one, OpenFlags.Path | OpenFlags.NoFollow);
        return kept.Stat().Ino == Sys.Stat(other).Ino ? "equal" : "different";
    });

    public static void CompareOverSquashfs(string kernel, string veneer, Func<Overlay, string> ask)
    {
        FilePath source = Scratch.New(), image = Scratch.New() / "image", lower = Scratch.New();
        Sys.Write(source / "file", "x");
        Command.Require("mksquashfs", source, image, "-quiet", "-no-progress");
        Command.Require("mount", "-t", "squashfs", "-o", "loop,ro", image, lower);
        try { Compare(kernel, veneer, ask, over: [lower]); }
        finally { Command.Require("umount", lower); }
    }

    public static byte[] Large(string begin)
    {
        byte[] content = new byte[2 << 20];
        System.Text.Encoding.Latin1.GetBytes(begin, content);
        return content;
    }
}
