using System.Text.RegularExpressions;

namespace Veneer.Oracle;

/// <summary>
/// Every difference from kernel overlayfs that the oracle allows; docs/differences.md explains them to users. Any other
/// difference is a failure.
/// </summary>
/// <remarks>
/// Some would make every later step differ. Operations and layers are made so that they do not occur, or they are not compared:
/// <list type="bullet">
/// <item><see cref="Features.LowerLinks"/>: hard links of a lower file stay whole while mounted; the kernel breaks them at copy-up.</item>
/// <item><see cref="Features.LoneWhiteouts"/>: the kernel lists a whiteout with nothing below it in a directory that is not merged.</item>
/// <item>A lower FIFO that was removed while it is open reappears with the kernel when it is changed through its descriptor: no
/// operation does that.</item>
/// <item>After the last name of an open lower file is gone, st_nlink is 0, and with the kernel still the lower's count: it is not
/// compared.</item>
/// </list>
/// The others are here: what one step may answer instead.
/// </remarks>
public static partial class KnownDifferences
{
    /// <summary>In a listing: d_ino is not st_ino. The kernel's may be so in directories it did not write; ours never.</summary>
    public const string OtherInode = "(other inode)";

    /// <summary>A shared map that does not see what was written after copy-up.</summary>
    public const string StaleMap = "stale";

    private static readonly Known[] All =
    [
        new("A shared map of a lower file sees what is written after copy-up.",
            (operation, tested, reference) => operation.Name == "mapread"
                && tested == reference.Replace(StaleMap, "fresh", StringComparison.Ordinal)),

        new("d_ino is st_ino in every directory.",
            (_, tested, reference) => tested == reference.Replace(OtherInode, "", StringComparison.Ordinal)),

        new("With userxattr, what can hold no user attribute (links, fifos) keeps its inode number through copy-up.",
            (operation, tested, reference) => operation.Name is "link" or "copyup"
                && tested == reference
                    .Replace("same=False", "same=True", StringComparison.Ordinal)
                    .Replace("ino False", "ino True", StringComparison.Ordinal)),

        new("What is open can be changed when it is gone from the tree, also if it was lower; the kernel cannot copy it up any more.",
            (operation, tested, reference) => operation.Name is "fchmod" or "fchown" or "futimes"
                && tested.StartsWith("ok", StringComparison.Ordinal) && reference is "EIO" or "EEXIST" or "ENOENT" or "ENOTDIR" or "ESTALE")
        { ClosesSlot = true },
    ];

    /// <summary>
    /// Whether the two answers to a step may differ in this way. If so, <paramref name="slot"/> is to be closed on both sides,
    /// since it would go on differing; -1 is none.
    /// </summary>
    public static bool Allow(Operation operation, string tested, string reference, out int slot)
    {
        slot = -1;
        foreach (Known known in All)
        {
            if (!known.Matches(operation, tested, reference)) { continue; }
            if (known.ClosesSlot) { slot = operation.Arguments[0][0] - '0'; }
            return true;
        }
        return false;
    }

    /// <summary>A line of the reference's tree as ours must be.</summary>
    public static string AsExpected(string line) => line.Replace(" d_ino!=st_ino", "", StringComparison.Ordinal);

    /// <summary>
    /// A line of an upper directory without what two mounts never have in common: the bytes of handles, and what a whiteout
    /// is made of. Nor the identity that the kernel gives a new overlay (<c>uuid=auto</c>), since a FUSE mount shows none.
    /// </summary>
    public static string AsWritten(string line) =>
        line.StartsWith("character 0:0", StringComparison.Ordinal) ? "whiteout" : Uuid().Replace(Handle().Replace(line, "${name}=..."), "");

    /// <summary>
    /// A line of an upper directory, without a redirect to where the name leads by itself. The kernel leaves such a redirect
    /// after a rename that failed.
    /// </summary>
    public static string WithoutOwnName(string path, string line) =>
        line.Replace($" trusted.overlay.redirect={path[(path.LastIndexOf('/') + 1)..]}", "", StringComparison.Ordinal);

    /// <summary>
    /// A line of an upper directory, without the marks that the kernel leaves after a rename or a copy-up that failed. If a mark
    /// hid or renumbered anything, the trees would differ.
    /// </summary>
    public static string WithoutMarks(string line) => Mark().Replace(line, "");

    [GeneratedRegex(@" (trusted|user)\.overlay\.(opaque|impure)=y", RegexOptions.NonBacktracking | RegexOptions.ExplicitCapture)]
    private static partial Regex Mark();

    /// <summary>
    /// A line without the modification time. The kernel changes that time when a metacopy is opened to write, and all later steps
    /// show it.
    /// </summary>
    public static string WithoutTime(string line) => Time().Replace(line, "");

    [GeneratedRegex(@" mtime=\S+", RegexOptions.NonBacktracking)]
    private static partial Regex Time();

    [GeneratedRegex(@"(?<name>(trusted|user)\.overlay\.origin)=\S+", RegexOptions.NonBacktracking | RegexOptions.ExplicitCapture)]
    private static partial Regex Handle();

    [GeneratedRegex(@" (trusted|user)\.overlay\.uuid=\S+", RegexOptions.NonBacktracking | RegexOptions.ExplicitCapture)]
    private static partial Regex Uuid();

    private sealed record Known(string Reason, Func<Operation, string, string, bool> Matches)
    {
        public bool ClosesSlot { get; init; }
    }
}
