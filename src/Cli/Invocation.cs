using Veneer.Linux;

namespace Veneer.Cli;

/// <summary>The command line of this process, byte by byte.</summary>
/// <remarks>
/// .NET decodes arguments as UTF-8, which loses bytes that a path may contain, and does not always keep the name that the
/// program was called by. /proc/self/cmdline has both.
/// </remarks>
internal sealed class Invocation
{
    private Invocation(IReadOnlyList<byte[]> raw, string[] arguments)
    {
        Raw = raw;
        Arguments = arguments;
    }

    /// <summary>The whole command line, for starting the program again.</summary>
    public IReadOnlyList<byte[]> Raw { get; }

    /// <summary>
    /// The arguments without the program's name, as text that <see cref="PathText"/> turns back into the same bytes.
    /// </summary>
    public string[] Arguments { get; }

    /// <summary>The last component of the name that the program was called by, such as <c>mount.fuse.veneer</c>.</summary>
    public string Name => Raw.Count == 0 ? "" : PathText.Decode(Raw[0])[(PathText.Decode(Raw[0]).LastIndexOf('/') + 1)..];

    /// <summary>Makes the command line that has these words.</summary>
    public static Invocation Of(string[] before, string[] arguments) =>
        new([.. ((string[])["veneer", .. before, .. arguments]).Select(word => PathText.Encode(word)[..^1])], [.. before, .. arguments]);

    /// <param name="arguments">
    /// The arguments of Main. Their number tells which words at the end of the command line are arguments.
    /// </param>
    public static Invocation Of(string[] arguments)
    {
        var raw = new List<byte[]>();
        if (Libc.ReadWhole("/proc/self/cmdline\0"u8, out byte[] line).IsError || line.Length == 0)
        {
            return new Invocation(raw, arguments);
        }
        ReadOnlySpan<byte> rest = line;
        while (rest.Length > 0)
        {
            int end = rest.IndexOf((byte)0);
            if (end < 0) { end = rest.Length; }
            raw.Add(rest[..end].ToArray());
            rest = rest[Math.Min(end + 1, rest.Length)..];
        }
        if (raw.Count < arguments.Length) { return new Invocation(raw, arguments); }
        string[] exact = new string[arguments.Length];
        for (int i = 0; i < exact.Length; i++) { exact[i] = PathText.Decode(raw[raw.Count - exact.Length + i]); }
        return new Invocation(raw, exact);
    }
}
