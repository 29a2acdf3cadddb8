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

    /// <summary>Writes bytes to standard output.</summary>
    /// <returns>False when nobody listens, or when there is no room.</returns>
    public static bool TryWrite(ReadOnlySpan<byte> content) => TryWriteTo(1, content);

    private static void WriteTo(int descriptor, string text) => _ = TryWriteTo(descriptor, PathText.Encode(text).AsSpan()[..^1]); // best effort: nobody listens

    private static bool TryWriteTo(int descriptor, ReadOnlySpan<byte> rest)
    {
        while (rest.Length > 0)
        {
            Errno error = Libc.Write(descriptor, rest, out int count);
            if (error == Errno.EINTR) { continue; }
            if (error.IsError) { return false; }
            rest = rest[count..];
        }
        return true;
    }
}
