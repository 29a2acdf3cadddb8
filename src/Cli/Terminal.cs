using System.Buffers;
using System.Text.Json.Serialization.Metadata;
using Veneer.Linux;
using Veneer.Overlay.Documents;

namespace Veneer.Cli;

/// <summary>
/// Writes the output of the program. Paths are written as the bytes that they are, without starting the console of .NET.
/// </summary>
internal static class Terminal
{
    /// <summary>Writes text to standard output.</summary>
    /// <returns><see cref="Errno.EPIPE"/> when nobody reads it any more.</returns>
    public static Errno Write(string text) => WriteTo(1, text);

    /// <summary>Writes the output of a command to standard output.</summary>
    /// <returns>False when nobody reads it any more, which is no error.</returns>
    /// <exception cref="LayerException">The output cannot be written.</exception>
    public static bool Print(ReadOnlySpan<byte> content)
    {
        Errno error = WriteTo(1, content);
        if (error is not (Errno.None or Errno.EPIPE))
        {
            throw new LayerException($"The output cannot be written ({error}): see where it goes.", ExitCode.System);
        }
        return error == Errno.None;
    }

    /// <inheritdoc cref="Print(ReadOnlySpan{byte})"/>
    public static bool Print(string text) => Print(PathText.Encode(text).AsSpan()[..^1]);

    /// <summary>Writes one document of JSON, for people to read as well, to standard output.</summary>
    /// <exception cref="LayerException">There is no room for it.</exception>
    public static void WriteJson<T>(T document, JsonTypeInfo<T> type)
    {
        var output = new ArrayBufferWriter<byte>();
        Document.Write(output, document, type, isIndented: true);
        Print(output.WrittenSpan);
    }

    /// <summary>Formats a tree as text, without wrapping its lines.</summary>
    public static string Render(Spectre.Console.Tree tree)
    {
        using var text = new StringWriter(System.Globalization.CultureInfo.InvariantCulture);
        Spectre.Console.IAnsiConsole console = Spectre.Console.AnsiConsole.Create(new Spectre.Console.AnsiConsoleSettings
        {
            Ansi = Spectre.Console.AnsiSupport.No,
            ColorSystem = Spectre.Console.ColorSystemSupport.NoColors,
            Out = new Spectre.Console.AnsiConsoleOutput(text),
        });
        console.Profile.Width = int.MaxValue / 2;
        console.Write(tree);
        return string.Join('\n', text.ToString().Split('\n').Select(line => line.TrimEnd()));
    }

    /// <summary>Writes one sentence to standard error, on one line whatever names are in it.</summary>
    public static void Complain(string sentence) => WriteTo(2, $"veneer: {PathText.OnOneLine(sentence)}\n");

    /// <summary>Writes one line to standard error, whatever names are in it.</summary>
    public static void Trace(string line) => WriteTo(2, PathText.OnOneLine(line) + "\n");

    /// <summary>Writes text of this program's own to standard error, as it is.</summary>
    public static void WriteError(string text) => WriteTo(2, text);

    /// <summary>Writes bytes to standard output.</summary>
    /// <returns>False when the bytes could not be written, or nobody reads them.</returns>
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
