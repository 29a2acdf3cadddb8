using System.Globalization;
using System.Text;
using Veneer.Linux;

namespace Veneer.Cli;

/// <summary>The identity of a mount's server, from the attribute <c>user.veneer.server</c> of the mount's root.</summary>
/// <param name="Pid">The server's pid, in its own pid namespace.</param>
/// <param name="Started">The start time of the process in clock ticks, which tells it from a process with a recycled pid.</param>
/// <param name="HasUpper">Whether the overlay has an upper, and so can be written.</param>
internal sealed record ServerIdentity(int Pid, ulong Started, bool HasUpper)
{
    private const string Variable = "VENEER_ASK";
    private const int AnswerTime = 5_000;
    private const int MaxLength = 64;

    /// <summary>Whether this process is a child that asks for its parent.</summary>
    public static bool IsAsking => Self.IsStartedAs(Variable);

    /// <summary>In the child: passes the server's answer on to the parent.</summary>
    public static int RunChild(string path)
    {
        Self.SignalStarted();
        Span<byte> value = stackalloc byte[MaxLength];
        Errno error = Libc.GetXattrAt(Libc.AtCwd, PathText.Encode(path), "user.veneer.server\0"u8, value, out int size);
        if (!error.IsError) { error = Libc.Write(2, value[..size], out _); }
        return error.IsError ? ExitCode.Failure : ExitCode.Success;
    }

    /// <summary>Asks the server.</summary>
    /// <returns>Null when the mount has no server, or the server does not answer.</returns>
    public static ServerIdentity? Ask(string path, out bool hangs)
    {
        Errno error = Self.RunChild(Variable, ["veneer"u8.ToArray(), PathText.Encode(path)[..^1]], AnswerTime, out byte[] value,
            out int silence);
        hangs = silence > 0;
        if (error.IsError || value.Length == 0) { return null; }

        string[] parts = Encoding.ASCII.GetString(value).Split(' ');
        return parts.Length is 2 or 3
            && int.TryParse(parts[0], NumberStyles.None, CultureInfo.InvariantCulture, out int server)
            && ulong.TryParse(parts[1], NumberStyles.None, CultureInfo.InvariantCulture, out ulong started)
            ? new ServerIdentity(server, started, HasUpper: parts.Length == 2)
            : null;
    }
}
