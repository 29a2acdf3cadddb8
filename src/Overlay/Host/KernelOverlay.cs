using System.Text;
using Veneer.Linux;

namespace Veneer.Overlay.Host;

/// <summary>The options of a kernel overlay as mountinfo shows them. Its paths are as they were given at the mount.</summary>
public sealed record KernelOverlay
{
    /// <summary>The lower directories, topmost first.</summary>
    public required IReadOnlyList<string> LowerDirectories { get; init; }

    /// <summary>Data-only lower layers, which show nothing by themselves.</summary>
    public required IReadOnlyList<string> DataDirectories { get; init; }

    /// <summary>The upper directory, or null.</summary>
    public string? UpperDirectory { get; init; }

    /// <summary>The work directory, or null.</summary>
    public string? WorkDirectory { get; init; }

    /// <summary>
    /// The possible readings of <c>upperdir=</c>, the likeliest first. The kernel shows a text with the escapes that it was
    /// given with, but the path of a descriptor without escapes.
    /// </summary>
    public IReadOnlyList<string> UpperReadings { get; init; } = [];

    /// <summary>The possible readings of <c>workdir=</c>, like <see cref="UpperReadings"/>.</summary>
    public IReadOnlyList<string> WorkReadings { get; init; } = [];

    /// <summary>Whether the overlay's attributes are <c>user.overlay.*</c>.</summary>
    public bool UserXattr { get; init; }

    /// <summary>The other options, as in mountinfo.</summary>
    public required IReadOnlyList<string> Options { get; init; }

    /// <summary>Reads the options of a mount.</summary>
    /// <returns>Null when the mount is not a kernel overlay.</returns>
    public static KernelOverlay? Of(MountEntry mount)
    {
        if (mount.Type != "overlay") { return null; }
        List<string> lowers = [], data = [], others = [];
        string? upper = null, work = null;
        foreach (string option in mount.FileSystemOptions)
        {
            int equals = option.IndexOf('=', StringComparison.Ordinal);
            string value = option[(equals + 1)..];
            switch (equals < 0 ? option : option[..equals])
            {
                case "lowerdir": Split(value, lowers, data); break;
                case "lowerdir+": lowers.Add(value); break;
                case "datadir+": data.Add(value); break;
                case "upperdir": upper = value; break;
                case "workdir": work = value; break;
                default: others.Add(option); break;
            }
        }
        return new KernelOverlay
        {
            LowerDirectories = lowers,
            DataDirectories = data,
            UpperDirectory = ReadingsOf(upper).FirstOrDefault(),
            WorkDirectory = ReadingsOf(work).FirstOrDefault(),
            UpperReadings = ReadingsOf(upper),
            WorkReadings = ReadingsOf(work),
            UserXattr = others.Contains("userxattr"),
            Options = others,
        };
    }

    /// <summary>
    /// Lists the readings of a path: without its escapes, and as it is. Kernel: ovl_unescape(), ovl_parse_layer().
    /// </summary>
    private static string[] ReadingsOf(string? value)
    {
        if (value is null) { return []; }
        if (!value.Contains('\\', StringComparison.Ordinal)) { return [value]; }
        var plain = new StringBuilder(value.Length);
        for (int i = 0; i < value.Length; i++)
        {
            if (value[i] == '\\' && i + 1 < value.Length) { i++; }
            plain.Append(value[i]);
        }
        return [plain.ToString(), value];
    }

    /// <summary>Splits the value of <c>lowerdir=</c>, which has its escapes. Kernel: ovl_parse_param_split_lowerdirs().</summary>
    private static void Split(string value, List<string> lowers, List<string> data)
    {
        var path = new StringBuilder();
        List<string> list = lowers;
        for (int i = 0; i <= value.Length; i++)
        {
            if (i == value.Length || value[i] == ':')
            {
                if (path.Length == 0) { list = data; } // the second of two colons
                else { list.Add(path.ToString()); }
                path.Clear();
                continue;
            }
            if (value[i] == '\\' && i + 1 < value.Length) { i++; }
            path.Append(value[i]);
        }
    }
}
