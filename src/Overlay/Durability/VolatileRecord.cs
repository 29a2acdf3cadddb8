using System.Globalization;
using System.Text;
using Veneer.Linux;

namespace Veneer.Overlay.Durability;

/// <summary>What is written down of a volatile upper, so that the next mount can tell whether all that was written is still there.</summary>
/// <remarks>
/// Text, one <c>name value</c> a line, the version first. A reader that finds another version, a name too many or too few,
/// or a value that it does not understand, knows nothing: the upper must not be used.
/// </remarks>
internal sealed record VolatileRecord
{
    private const string Header = "veneer-volatile 1";

    /// <summary>The reason for which the error sequence cannot be read that a user can do something about.</summary>
    private const string WithoutPrivilege = "without CAP_BPF and CAP_PERFMON";

    /// <summary>What <see cref="NoErrors"/> is after this error.</summary>
    public static string ReasonOf(Errno error) =>
        error is Errno.EPERM or Errno.EACCES ? WithoutPrivilege : $"on this system ({error}), which takes Linux 6.1 with BPF and its types";

    /// <summary>What the records of all versions begin with.</summary>
    private static ReadOnlySpan<byte> AnyHeader => "veneer-volatile "u8;

    /// <summary>A record is no longer than this, in bytes.</summary>
    public const int MaxLength = 8192;

    /// <summary>The <see cref="Boot"/> that is written where there is no /proc to tell it. It is equal to no other, nor to itself.</summary>
    public const string UnknownBoot = "unknown";

    /// <summary>The kernel's number for the time between two starts of the machine.</summary>
    public required string Boot { get; init; }

    /// <summary>Number of the device that holds upper, <c>MAJOR:MINOR</c>.</summary>
    public required string Device { get; init; }

    /// <summary>The filesystem's id, in hexadecimal digits.</summary>
    public required string FileSystemId { get; init; }

    /// <summary>The number of the filesystem's directory in sysfs, which is a new one each time that it is mounted; 0 where it has none.</summary>
    public required ulong Instance { get; init; }

    /// <summary>The unique id of the mount through which upper is reached; 0 where the kernel has none.</summary>
    public required ulong Mount { get; init; }

    /// <summary>Inode number of the upper directory.</summary>
    public required ulong Upper { get; init; }

    /// <summary>The filesystem's error sequence when the first volatile mount began; null where it cannot be read.</summary>
    public required uint? Errors { get; init; }

    /// <summary>Why it cannot be read, as the end of a sentence; null where it can, and of a record that was stored.</summary>
    public string? NoErrors { get; init; }

    /// <summary>Whether nothing on this filesystem is ever written back, since it is all in memory.</summary>
    public required bool IsInMemory { get; init; }

    /// <summary>The errno with which writing back failed, or <c>-</c>.</summary>
    public required string Failure { get; init; }

    /// <summary>The work directory, from upper, in hexadecimal digits of its bytes; empty where it is not known.</summary>
    public required string Work { get; init; }

    /// <summary>The record as it is stored.</summary>
    public byte[] ToBytes() => Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture,
        $"{Header}\nboot {Boot}\ndevice {Device}\nfsid {FileSystemId}\ninstance {Instance}\nmount {Mount}\nupper {Upper}\nerrors {(Errors is { } value ? value.ToString("x", CultureInfo.InvariantCulture) : "?")}\nmemory {(IsInMemory ? 1 : 0)}\nfailure {Failure}\nwork {Work}\n"));

    /// <summary>What is to be thought of an upper whose record is not understood.</summary>
    public static VolatileState NotUnderstood(ReadOnlySpan<byte> bytes)
    {
        int end = bytes.IndexOf((byte)'\n');
        return end > 0 && bytes.StartsWith(AnyHeader) && !bytes[..end].SequenceEqual(Encoding.ASCII.GetBytes(Header))
            ? new VolatileState(VolatileStateKind.OtherVersion, "its record is of another version of Veneer")
            : new VolatileState(VolatileStateKind.Damaged, "its record is damaged");
    }

    /// <summary>Reads one.</summary>
    /// <returns>Null when it is none, or of another version.</returns>
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
        if (!TryNumber(values[3], out ulong instance) || !TryNumber(values[4], out ulong mount) || !TryNumber(values[5], out ulong upper)) { return null; }
        if (values[6] != "?" && !uint.TryParse(values[6], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out errors)) { return null; }
        if (values[7] is not ("0" or "1") || values[8].Length == 0 || values[9].Length % 2 != 0 || !values[9].All(char.IsAsciiHexDigit)) { return null; }
        return new VolatileRecord
        {
            Boot = values[0], Device = values[1], FileSystemId = values[2], Instance = instance, Mount = mount, Upper = upper,
            Errors = values[6] == "?" ? null : errors, IsInMemory = values[7] == "1", Failure = values[8], Work = values[9],
        };
    }

    private static bool TryNumber(string text, out ulong number) => ulong.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out number);

    /// <summary>Whether what was written under this record is still there, or what speaks against it.</summary>
    /// <param name="now">The same upper as it is found now.</param>
    public VolatileState Judge(VolatileRecord now)
    {
        if (Failure != "-") { return VolatileState.Lost($"writing to its filesystem failed ({Failure})"); }
        if (Upper != now.Upper) { return VolatileState.Lost("the record in it is that of another directory, so that it is a copy"); }
        if (now.Boot == UnknownBoot)
        {
            return VolatileState.Unreadable("there is no /proc/sys/kernel/random/boot_id here, by which it is known whether the machine has been started anew", "mount /proc in full, or run this where it is");
        }
        if (Boot.StartsWith(UnknownBoot, StringComparison.Ordinal)) { return VolatileState.Lost("it was mounted where there was no /proc/sys/kernel/random/boot_id, by which it is known whether the machine has been started anew"); }
        if (Boot != now.Boot) { return VolatileState.Lost("the machine has been started anew"); }
        if (FileSystemId != now.FileSystemId) { return VolatileState.Lost("it is on another filesystem"); }
        if (Instance != 0 && now.Instance != 0 ? Instance != now.Instance : !IsInMemory && (Mount == 0 || Mount != now.Mount))
        {
            return VolatileState.Lost("its filesystem has been mounted anew");
        }
        if (Device != now.Device) { return VolatileState.Lost("it is on another filesystem"); } // after that, since each mount of btrfs may have another number
        if (IsInMemory && now.IsInMemory) { return VolatileState.Whole; }
        if (now.Errors is not { } count) { return VolatileState.Doubtful($"whether writing to its filesystem failed cannot be told {now.NoErrors ?? WithoutPrivilege}"); }
        if (Errors is not { } then) { return VolatileState.Doubtful("whether writing to its filesystem failed cannot be told, since it was mounted where the kernel did not say how often it had failed before"); }
        return then != count ? VolatileState.Lost("writing to its filesystem failed") : VolatileState.Whole;
    }
}

/// <summary>What a record says of an upper.</summary>
/// <param name="Kind">How bad it is.</param>
/// <param name="Reason">The end of a sentence that begins with "since".</param>
internal readonly record struct VolatileState(VolatileStateKind Kind, string Reason)
{
    /// <summary>What there is to try before the upper is discarded: the beginning of a list that ends with "or"; mostly nothing.</summary>
    public string Remedy => Kind == VolatileStateKind.OtherVersion ? "run veneer sync of that version, or " : "";

    /// <summary>The whole sentence about an upper that cannot be judged here, which nobody is to discard for that; null for all others.</summary>
    /// <param name="upper">How the upper is called in it.</param>
    public string? Sentence(string upper) =>
        Kind == VolatileStateKind.Unreadable ? $"Whether {upper} lacks what was written while it was volatile cannot be told, since {Reason}: {elsewhere}." : null;

    private readonly string? elsewhere;

    private VolatileState(VolatileStateKind kind, string reason, string elsewhere) : this(kind, reason) => this.elsewhere = elsewhere;

    /// <summary>All that was written is there, if only in memory.</summary>
    public static VolatileState Whole => new(VolatileStateKind.Whole, "");

    /// <summary>A sync can tell.</summary>
    public static VolatileState Doubtful(string reason) => new(VolatileStateKind.Doubtful, reason);

    /// <summary>It cannot be told here.</summary>
    public static VolatileState Unreadable(string reason, string elsewhere) => new(VolatileStateKind.Unreadable, reason, elsewhere);

    /// <summary>Something may be lost, and nothing can tell what.</summary>
    public static VolatileState Lost(string reason) => new(VolatileStateKind.Lost, reason);
}

/// <summary>How much an upper can be trusted. The later, the less.</summary>
internal enum VolatileStateKind
{
    /// <summary>As it is.</summary>
    Whole,
    /// <summary>After a sync.</summary>
    Doubtful,
    /// <summary>That cannot be told here, but elsewhere.</summary>
    Unreadable,
    /// <summary>Not at all.</summary>
    Lost,
    /// <summary>What its record says cannot be known.</summary>
    OtherVersion,
    /// <summary>Nor what it said.</summary>
    Damaged,
    /// <summary>There is no record.</summary>
    Unknown,
}
