using Veneer.Linux;

namespace Veneer.Cli;

/// <summary>What people read. Paths come out as the bytes that they are; the console of .NET is not started for it.</summary>
internal static class Terminal
{
    /// <summary>Writes text to standard output.</summary>
    /// <returns><see cref="Errno.EPIPE"/> when nobody reads it any more.</returns>
    public static Errno Write(string text) => WriteTo(1, text);

    /// <summary>Writes one sentence to standard error, on one line whatever names are in it.</summary>
    public static void Complain(string sentence) => WriteTo(2, $"veneer: {PathText.OnOneLine(sentence)}\n");

    /// <summary>Writes one line to standard error, as it is.</summary>
    public static void Trace(string line) => WriteTo(2, line + "\n");

    /// <summary>Writes bytes to standard output.</summary>
    /// <returns>False when nobody listens, or when there is no room.</returns>
    public static bool TryWrite(ReadOnlySpan<byte> content) => !WriteTo(1, content).IsError;

    private static Errno WriteTo(int descriptor, string text) => WriteTo(descriptor, PathText.Encode(text).AsSpan()[..^1]);

    private static Errno WriteTo(int descriptor, ReadOnlySpan<byte> rest)
    {
        while (rest.Length > 0)
        {
            Errno error = Libc.Write(descriptor, rest, out int count);
            if (error == Errno.EINTR) { continue; }
            if (error.IsError) { return error; }
            rest = rest[count..];
        }
        return Errno.None;
    }
}
