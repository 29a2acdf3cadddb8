using System.Globalization;
using System.Text;
using Veneer.Linux;

namespace Veneer.Overlay.Format;

/// <summary>The owner record: what an overlay says of itself on its upper and work, for whoever finds them locked.</summary>
/// <remarks>
/// It is stored in the attribute <c>trusted.overlay.veneer.owner</c> (<c>user.</c> with userxattr) of the directory: lines
/// of <c>name=value</c>, in which a backslash and a newline are written \\ and
/// . The record only informs: whether the directory is in use, a lock of a living process says, and a record that a killed
/// process left behind is not believed. Unknown names are skipped; a record of another version is not read.
/// </remarks>
public sealed record OwnerRecord
{
    private const string Version = "1";

    /// <summary>
    /// The most characters of a path and of a command that are stored: an attribute of ext4 has less than a block of 1 KiB.
    /// </summary>
    private const int MaxPath = 256, MaxCommand = 96;

    /// <summary>The role of the directory in the overlay: <c>upper</c> or <c>work</c>.</summary>
    public required string Role { get; init; }

    /// <summary>The boot, as <see cref="Linux.BootId"/> reads it.</summary>
    public required string Boot { get; init; }

    /// <summary>The server's pid, in its own pid namespace.</summary>
    public required int Pid { get; init; }

    /// <summary>The inode number of the server's pid namespace.</summary>
    public required ulong PidNamespace { get; init; }

    /// <summary>The inode number of the mount namespace in which the overlay was mounted.</summary>
    public required ulong MountNamespace { get; init; }

    /// <summary>The time of mounting, in whole seconds.</summary>
    public required DateTimeOffset Since { get; init; }

    /// <summary>The server's command line, or its beginning.</summary>
    public required string Command { get; init; }

    /// <summary>The mount point, as seen in that mount namespace.</summary>
    public required string MountPoint { get; init; }

    /// <summary>The mount id, or -1 before there is a mount.</summary>
    public int MountId { get; init; } = -1;

    /// <summary>
    /// The device number of the mount, <c>MAJOR:MINOR</c>, which all its copies share; empty before there is a mount.
    /// </summary>
    public string Device { get; init; } = "";

    /// <summary>Encodes the record.</summary>
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

    /// <summary>Decodes a record.</summary>
    /// <returns>Null when the bytes are no record, or a damaged one, or one of another version.</returns>
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

    private static string Escape(string value) =>
        value.Replace("\\", "\\\\", StringComparison.Ordinal).Replace("\n", "\\n", StringComparison.Ordinal);

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
