using System.Globalization;
using System.Text;
using Veneer.Linux;

namespace Veneer.Cli;

/// <summary>What a mount says about its server, in the attribute <c>user.veneer.server</c> of its root.</summary>
/// <param name="Pid">Its process, in its own pid namespace.</param>
/// <param name="Started">When that started, so that the number cannot come to mean another.</param>
/// <param name="HasUpper">Whether the overlay can be written at all.</param>
internal sealed record ServerIdentity(int Pid, ulong Started, bool HasUpper)
{
    private const string Mark = "VENEER_ASK";
    private const int AnswerTime = 5_000;
    private const int MaxLength = 64;

    /// <summary>Whether this process only asks, for its parent.</summary>
    public static bool IsAsking => Self.IsStartedAs(Mark);

    /// <summary>In the child: passes the answer on.</summary>
    public static int PassOn(string path)
    {
        Self.Begin();
        Span<byte> value = stackalloc byte[MaxLength];
        Errno error = Libc.GetXattrAt(Libc.AtCwd, PathText.Encode(path), "user.veneer.server\0"u8, value, out int size);
        if (!error.IsError) { error = Libc.Write(2, value[..size], out _); }
        return error.IsError ? ExitCode.Failure : ExitCode.Success;
    }

    /// <summary>Asks the server.</summary>
    /// <returns>Null when there is none, or when it does not answer.</returns>
    public static ServerIdentity? Ask(string path, out bool hangs)
    {
        Errno error = Self.Ask(Mark, ["veneer"u8.ToArray(), PathText.Encode(path)[..^1]], AnswerTime, out byte[] value, out int silence);
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
