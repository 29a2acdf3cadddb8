using Veneer.Linux;
using Veneer.Overlay.Control;

namespace Veneer.Cli;

/// <summary>Asks a mount for the process that serves it, in a child, since the server may hang.</summary>
internal static class ServerIdentity
{
    private const string Variable = "VENEER_ASK";
    private const int AnswerTime = 5_000;

    /// <summary>Whether this process is a child that asks for its parent.</summary>
    public static bool IsAsking => Self.IsStartedAs(Variable);

    /// <summary>In the child: passes the server's answer on to the parent.</summary>
    public static int RunChild(string path)
    {
        Self.SignalStarted();
        Span<byte> value = stackalloc byte[ServerProcess.MaxSize];
        Errno error = Libc.GetXattrAt(Libc.AtCwd, PathText.Encode(path), ServerProcess.Attribute, value, out int size);
        if (!error.IsError) { error = Libc.Write(2, value[..size], out _); }
        return error.IsError ? ExitCode.Failure : ExitCode.Success;
    }

    /// <summary>Asks the server.</summary>
    /// <returns>Null when the mount has no server, or the server does not answer.</returns>
    public static ServerProcess? Ask(string path, out bool hangs)
    {
        Errno error = Self.RunChild(Variable, ["veneer"u8.ToArray(), PathText.Encode(path)[..^1]], AnswerTime, out byte[] value,
            out int silence);
        hangs = silence > 0;
        return error.IsError ? null : ServerProcess.Parse(value);
    }
}
