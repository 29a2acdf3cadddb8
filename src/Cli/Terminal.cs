using Veneer.Linux;

namespace Veneer.Cli;

/// <summary>What people read. Paths come out as the bytes that they are; the console of .NET is not started for it.</summary>
internal static class Terminal
{
    /// <summary>Writes text to standard output.</summary>
    public static void Write(string text) => WriteTo(1, text);

    /// <summary>Writes one sentence to standard error.</summary>
    public static void Complain(string sentence) => WriteTo(2, $"veneer: {sentence}\n");

    /// <summary>Writes one line to standard error, as it is.</summary>
    public static void Trace(string line) => WriteTo(2, line + "\n");

    private static void WriteTo(int descriptor, string text)
    {
        ReadOnlySpan<byte> rest = PathText.Encode(text).AsSpan()[..^1];
        while (rest.Length > 0)
        {
            Errno error = Libc.Write(descriptor, rest, out int count);
            if (error == Errno.EINTR) { continue; }
            if (error.IsError) { return; } // nobody listens
            rest = rest[count..];
        }
    }
}
