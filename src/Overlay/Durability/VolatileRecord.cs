using System.Globalization;
using System.Text;
using Veneer.Linux;

namespace Veneer.Overlay.Durability;

/// <summary>
/// The record of a volatile upper, by which the next mount can tell whether everything that was written is still there.
/// </summary>
/// <remarks>
/// The record is text, one <c>name value</c> a line, the version first. A reader that finds another version, a superfluous
/// or missing name, or a value that it does not understand, knows nothing: the upper must not be used.
/// </remarks>
internal sealed record VolatileRecord
{
    private const string Header = "veneer-volatile 1";

    /// <summary>The reason that a user can do something about: the error sequence cannot be read without privilege.</summary>
    private const string WithoutPrivilege = "without CAP_BPF and CAP_PERFMON";

    /// <summary>Makes <see cref="NoErrors"/> from an error.</summary>
    public static string ReasonOf(Errno error) =>
        error is Errno.EPERM or Errno.EACCES ? WithoutPrivilege : $"on this system ({error}), which takes Linux 6.1 with BPF and its types";

    /// <summary>The beginning of the records of all versions.</summary>
    private static ReadOnlySpan<byte> AnyHeader => "veneer-volatile "u8;

    /// <summary>The largest size of a record, in bytes.</summary>
    public const int MaxLength = 8192;

    /// <summary>
    /// The value of <see cref="Boot"/> where there is no /proc to read it from. It matches no boot, not even itself.
    /// </summary>
    public const string UnknownBoot = "unknown";

    /// <summary>The id of the boot.</summary>
    public required string Boot { get; init; }

    /// <summary>The device number of upper's filesystem, <c>MAJOR:MINOR</c>.</summary>
    public required string Device { get; init; }

    /// <summary>The filesystem's id (f_fsid), in hexadecimal digits.</summary>
    public required string FileSystemId { get; init; }

    /// <summary>
    /// The inode number of the filesystem's directory in sysfs, which is new after each mount of the filesystem; 0 where it
    /// has none.
    /// </summary>
    public required ulong Instance { get; init; }

    /// <summary>The unique id of the mount through which upper is reached; 0 where the kernel has none.</summary>
    public required ulong Mount { get; init; }

    /// <summary>The inode number of the upper directory.</summary>
    public required ulong Upper { get; init; }

    /// <summary>The filesystem's error sequence when the first volatile mount began; null where it cannot be read.</summary>
    public required uint? Errors { get; init; }

    /// <summary>
    /// Why the error sequence cannot be read, as the end of a sentence; null where it can, and in a stored record.
    /// </summary>
    public string? NoErrors { get; init; }

    /// <summary>Whether the filesystem is in memory, so that nothing is ever written back.</summary>
    public required bool IsInMemory { get; init; }

    /// <summary>The errno of a failed write, or <c>-</c>.</summary>
    public required string Failure { get; init; }

    /// <summary>The path of the work directory from upper, in hexadecimal digits of its bytes; empty where it is unknown.</summary>
    public required string Work { get; init; }

    /// <summary>Encodes the record.</summary>
    public byte[] ToBytes() => Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture,
        $"{Header}\nboot {Boot}\ndevice {Device}\nfsid {FileSystemId}\ninstance {Instance}\nmount {Mount}\nupper {Upper}\n"
        + $"errors {(Errors is { } value ? value.ToString("x", CultureInfo.InvariantCulture) : "?")}\n"
        + $"memory {(IsInMemory ? 1 : 0)}\nfailure {Failure}\nwork {Work}\n"));

    /// <summary>Judges an upper whose record is not understood.</summary>
    public static VolatileState NotUnderstood(ReadOnlySpan<byte> bytes)
    {
        int end = bytes.IndexOf((byte)'\n');
        return end > 0 && bytes.StartsWith(AnyHeader) && !bytes[..end].SequenceEqual(Encoding.ASCII.GetBytes(Header))
            ? new VolatileState(VolatileStateKind.OtherVersion, "its record is of another version of Veneer")
            : new VolatileState(VolatileStateKind.Damaged, "its record is damaged");
    }

    /// <summary>Decodes a record.</summary>
    /// <returns>Null when the bytes are no record, or one of another version.</returns>
    public static VolatileRecord? Parse(ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length > MaxLength || bytes.ContainsAnyExceptInRange((byte)'\n', (byte)'~')) { return null; }
        string[] lines = PathText.Decode(bytes).Split('\n');
        string[] names = ["boot", "device", "fsid", "instance", "mount", "upper", "errors", "memory", "failure", "work"];
        if (lines.Length != names.Length + 2 || lines[0] != Header || lines[^1].Length > 0) { return null; }
        string[] values = new string[names.Length];
        for (int i = 0; i < names.Length; i++)
        {
            if (!lines[i + 1].StartsWith(names[i] + " ", StringComparison.Ordinal)) { return null; }
            values[i] = lines[i + 1][(names[i].Length + 1)..];
        }
        uint errors = 0;
        if (!TryNumber(values[3], out ulong instance) || !TryNumber(values[4], out ulong mount) || !TryNumber(values[5], out ulong upper))
        {
            return null;
        }
        if (values[6] != "?" && !uint.TryParse(values[6], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out errors))
        {
            return null;
        }
        if (values[7] is not ("0" or "1") || values[8].Length == 0 || values[9].Length % 2 != 0 || !values[9].All(char.IsAsciiHexDigit))
        {
            return null;
        }
        return new VolatileRecord
        {
            Boot = values[0], Device = values[1], FileSystemId = values[2], Instance = instance, Mount = mount, Upper = upper,
            Errors = values[6] == "?" ? null : errors, IsInMemory = values[7] == "1", Failure = values[8], Work = values[9],
        };
    }

    private static bool TryNumber(string text, out ulong number) =>
        ulong.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out number);

    /// <summary>Judges whether everything that was written under this record is still there.</summary>
    /// <param name="now">The record of the same upper's current state.</param>
    public VolatileState Judge(VolatileRecord now)
    {
        if (Failure != "-") { return VolatileState.Lost($"writing to its filesystem failed ({Failure})"); }
        if (Upper != now.Upper) { return VolatileState.Lost("the record in it is that of another directory, so that it is a copy"); }
        if (now.Boot == UnknownBoot)
        {
            return VolatileState.Unreadable(
                "there is no /proc/sys/kernel/random/boot_id here, by which it is known whether the machine has been started anew",
                "mount /proc in full, or run this where it is");
        }
        if (Boot.StartsWith(UnknownBoot, StringComparison.Ordinal))
        {
            return VolatileState.Lost(
                "it was mounted where there was no /proc/sys/kernel/random/boot_id, by which it is known whether the machine "
                + "has been started anew");
        }
        if (Boot != now.Boot) { return VolatileState.Lost("the machine has been started anew"); }
        if (FileSystemId != now.FileSystemId) { return VolatileState.Lost("it is on another filesystem"); }
        if (Instance != 0 && now.Instance != 0 ? Instance != now.Instance : !IsInMemory && (Mount == 0 || Mount != now.Mount))
        {
            return VolatileState.Lost("its filesystem has been mounted anew");
        }
        // after the instance, since each mount of btrfs may have another number
        if (Device != now.Device) { return VolatileState.Lost("it is on another filesystem"); }
        if (IsInMemory && now.IsInMemory) { return VolatileState.Whole; }
        if (now.Errors is not { } count)
        {
            return VolatileState.Doubtful($"whether writing to its filesystem failed cannot be told {now.NoErrors ?? WithoutPrivilege}");
        }
        if (Errors is not { } then)
        {
            return VolatileState.Doubtful(
                "whether writing to its filesystem failed cannot be told, since it was mounted where the kernel did not say "
                + "how often it had failed before");
        }
        return then != count ? VolatileState.Lost("writing to its filesystem failed") : VolatileState.Whole;
    }
}

/// <summary>The judgement of an upper by its record.</summary>
/// <param name="Kind">How far the upper can be trusted.</param>
/// <param name="Reason">The reason, as the end of a sentence that begins with "since".</param>
internal readonly record struct VolatileState(VolatileStateKind Kind, string Reason)
{
    /// <summary>What to try before discarding the upper: the beginning of a list that ends with "or". Mostly empty.</summary>
    public string Remedy => Kind == VolatileStateKind.OtherVersion ? "run veneer sync of that version, or " : "";

    /// <summary>
    /// The whole sentence about an upper that cannot be judged here, and so must not be discarded; null for any other.
    /// </summary>
    /// <param name="upper">The name of the upper in the sentence.</param>
    public string? Sentence(string upper) =>
        Kind == VolatileStateKind.Unreadable
            ? error.Explain($"Whether {upper} lacks what was written while it was volatile cannot be told, since {Reason}: {elsewhere}.")
            : null;

    private readonly string? elsewhere;
    private readonly Errno error;

    private VolatileState(VolatileStateKind kind, string reason, string elsewhere, Errno error) : this(kind, reason) =>
        (this.elsewhere, this.error) = (elsewhere, error);

    /// <summary>Everything that was written is there, if only in memory.</summary>
    public static VolatileState Whole => new(VolatileStateKind.Whole, "");

    /// <summary>Only a sync can tell.</summary>
    public static VolatileState Doubtful(string reason) => new(VolatileStateKind.Doubtful, reason);

    /// <summary>It cannot be told here, but perhaps elsewhere.</summary>
    public static VolatileState Unreadable(string reason, string elsewhere, Errno error = Errno.None) =>
        new(VolatileStateKind.Unreadable, reason, elsewhere, error);

    /// <summary>Something may be lost, and nothing can tell what.</summary>
    public static VolatileState Lost(string reason) => new(VolatileStateKind.Lost, reason);
}

/// <summary>How far an upper can be trusted, from the best case to the worst.</summary>
internal enum VolatileStateKind
{
    /// <summary>It can be used as it is.</summary>
    Whole,
    /// <summary>It can be used after a sync.</summary>
    Doubtful,
    /// <summary>It cannot be judged here, but elsewhere.</summary>
    Unreadable,
    /// <summary>It may have lost something.</summary>
    Lost,
    /// <summary>Its record is of another version.</summary>
    OtherVersion,
    /// <summary>Its record is damaged.</summary>
    Damaged,
    /// <summary>It has a mark but no record.</summary>
    Unknown,
}
