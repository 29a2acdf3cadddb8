using System.Text;
using Veneer.Linux;

namespace Veneer.Rig;

/// <summary>
/// Whether an upper directory is well-formed, as docs/on-disk-format.md says. It is read without the server's own code.
/// </summary>
public static class UpperFormat
{
    private const string Prefix = "trusted.overlay.";

    /// <summary>What is wrong, one line each.</summary>
    public static List<string> ProblemsOf(FilePath upper)
    {
        var problems = new List<string>();
        Check(upper, "", problems);
        return problems;
    }

    private static void Check(FilePath directory, string prefix, List<string> problems)
    {
        bool isImpure = Sys.HasXattr(directory, Prefix + "impure");
        foreach (string name in directory.Entries())
        {
            FilePath path = directory / name;
            Statx stat = Sys.Stat(path);
            if (name[0] == '#') { Say("a temporary of work"); }
            foreach (string attribute in Sys.ListXattr(path).Where(a => a.StartsWith(Prefix, StringComparison.Ordinal)))
            {
                string kind = attribute[Prefix.Length..];
                if (!IsWellFormed(kind, stat, Sys.GetXattr(path, attribute)))
                {
                    Say($"{attribute} = {Convert.ToHexString(Sys.GetXattr(path, attribute))}");
                }
                if (kind == "origin" && !isImpure) { Say("has an origin, in a directory that is not impure"); }
            }
            if (stat.IsWhiteoutDevice && Sys.ListXattr(path).Length > 0) { Say("a whiteout with attributes"); }
            if (stat.IsDirectory) { Check(path, $"{prefix}{name}/", problems); }

            void Say(string what) => problems.Add($"{prefix}{name}: {what}");
        }
    }

    private static bool IsWellFormed(string kind, in Statx stat, ReadOnlySpan<byte> value) => kind switch
    {
        "opaque" => stat.IsDirectory && value is [(byte)'y'] or [(byte)'x'],
        "whiteout" => stat.IsRegular && stat.Size == 0 && value is [(byte)'y'],
        "metacopy" => stat.IsRegular && value.Length == 0,
        "impure" => stat.IsDirectory && value is [(byte)'y'],
        "redirect" => (stat.IsDirectory || stat.IsRegular) && IsRedirect(Encoding.Latin1.GetString(value)),
        // struct ovl_fb: version, magic, length, flags, type, UUID, handle.
        "origin" => value.Length == 0 || (value.Length > 21 && value[0] == 0 && value[1] == 0xFB && value[2] == value.Length),
        "protattr" => value.Length > 0 && !value.ContainsAnyExcept("ai"u8),
        _ => kind.StartsWith("overlay.", StringComparison.Ordinal), // a user's own, escaped
    };

    private static bool IsRedirect(string value) =>
        value.Length is > 0 and <= 256 && (value[0] == '/' ? value[1..] : value).Split('/') is var names
        && (value[0] == '/' || names.Length == 1)
            && names.All(name => name is not ("" or "." or "..") && !name.Contains('\0', StringComparison.Ordinal));
}
