using System.Globalization;
using System.Text;
using Veneer.Linux;

namespace Veneer.Overlay.Format;

/// <summary>What an overlay says of itself on its upper and on its work, for those who find them locked.</summary>
/// <remarks>
/// The attribute <c>trusted.overlay.veneer.owner</c> (<c>user.</c> with userxattr) of the directory: lines of
/// <c>name=value</c>, in which a backslash and a newline are written \\ and \n. It informs and decides nothing: a lock
/// of a living process says whether the directory is in use, and what is left of a process that was killed is not
/// believed. Names that a reader does not know are passed over; a record of another version is not read.
/// </remarks>
public sealed record OwnerRecord
{
    private const string Version = "1";

    /// <summary>More than this of a path or of a command is left out, in characters: an attribute of ext4 has less than a block of 1 KiB.</summary>
    private const int MaxPath = 256, MaxCommand = 96;

    /// <summary>What the directory is to the overlay: <c>upper</c> or <c>work</c>.</summary>
    public required string Role { get; init; }

    /// <summary>The boot, as <see cref="Linux.BootId"/> has it.</summary>
    public required string Boot { get; init; }

    /// <summary>The server's process id, in its own pid namespace.</summary>
    public required int Pid { get; init; }

    /// <summary>The inode number of that namespace.</summary>
    public required ulong PidNamespace { get; init; }

    /// <summary>The inode number of the mount namespace in which it was mounted.</summary>
    public required ulong MountNamespace { get; init; }

    /// <summary>When it was mounted, to the second.</summary>
    public required DateTimeOffset Since { get; init; }

    /// <summary>The server's command line, or its beginning.</summary>
    public required string Command { get; init; }

    /// <summary>Where it was mounted, seen from there.</summary>
    public required string MountPoint { get; init; }

    /// <summary>The id of that mount, or -1 while there is none.</summary>
    public int MountId { get; init; } = -1;

    /// <summary>The number of the mount's device, <c>MAJOR:MINOR</c>, which all its copies have; empty while there is none.</summary>
    public string Device { get; init; } = "";

    /// <summary>The record.</summary>
    internal byte[] ToBytes()
    {
        var text = new StringBuilder();
        Add("version", Version);
        Add("role", Role);
        Add("boot", Boot);
        Add("pid", Number(Pid));
        Add("pidns", Number(PidNamespace));
        Add("mntns", Number(MountNamespace));
        Add("since", Number(Since.ToUnixTimeSeconds()));
        Add("mount", Number(MountId));
        Add("device", Device);
        Add("on", Shortened(MountPoint, MaxPath));
        Add("command", Shortened(Command, MaxCommand));
        return PathText.Encode(text.ToString())[..^1];

        void Add(string name, string value) => text.Append(name).Append('=').Append(Escape(value)).Append('\n');
        static string Number<T>(T value) where T : IFormattable => value.ToString(null, CultureInfo.InvariantCulture);
    }

    /// <summary>Reads a record.</summary>
    /// <returns>Null when it is none, is broken, or has another version.</returns>
    internal static OwnerRecord? Parse(ReadOnlySpan<byte> record)
    {
        var values = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (string line in PathText.Decode(record).Split('\n'))
        {
            int equals = line.IndexOf('=', StringComparison.Ordinal);
            if (equals > 0) { values[line[..equals]] = Unescape(line[(equals + 1)..]); }
        }
        if (values.GetValueOrDefault("version") != Version
            || values.GetValueOrDefault("role") is not ("upper" or "work")
            || !TryNumber("pid", out long pid) || !TryNumber("pidns", out long pidNamespace) || !TryNumber("mntns", out long mountNamespace)
            || !TryNumber("since", out long since) || !TryNumber("mount", out long mount)
            || since > DateTimeOffset.MaxValue.ToUnixTimeSeconds() || since < 0)
        {
            return null;
        }
        return new OwnerRecord
        {
            Role = values["role"],
            Boot = values.GetValueOrDefault("boot", ""),
            Pid = (int)pid,
            PidNamespace = (ulong)pidNamespace,
            MountNamespace = (ulong)mountNamespace,
            Since = DateTimeOffset.FromUnixTimeSeconds(since),
            MountId = (int)mount,
            Device = values.GetValueOrDefault("device", ""),
            MountPoint = values.GetValueOrDefault("on", ""),
            Command = values.GetValueOrDefault("command", ""),
        };

        bool TryNumber(string name, out long number) =>
            long.TryParse(values.GetValueOrDefault(name), NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out number);
    }

    private static string Shortened(string text, int length) => text.Length <= length ? text : string.Concat(text.AsSpan(0, length), "...");

    private static string Escape(string value) => value.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("\n", "\\n", StringComparison.Ordinal);

    private static string Unescape(string value)
    {
        if (!value.Contains('\\', StringComparison.Ordinal)) { return value; }
        var plain = new StringBuilder(value.Length);
        for (int i = 0; i < value.Length; i++)
        {
            if (value[i] == '\\' && i + 1 < value.Length)
            {
                i++;
                plain.Append(value[i] == 'n' ? '\n' : value[i]);
            }
            else
            {
                plain.Append(value[i]);
            }
        }
        return plain.ToString();
    }
}
