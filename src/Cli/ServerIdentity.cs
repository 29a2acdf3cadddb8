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
    private const int AnswerTime = 5_000;

    /// <summary>Asks the server.</summary>
    /// <returns>Null when there is none, or when it does not answer.</returns>
    public static ServerIdentity? Ask(string path, out bool hangs)
    {
        byte[] value = new byte[64];
        int size = 0;
        Errno error = Errno.EAGAIN;
        // A server that hangs would keep us waiting for ever; a thread that waits for it does not keep us from ending.
        var question = new Thread(() => error = Libc.GetXattrAt(Libc.AtCwd, PathText.Encode(path), "user.veneer.server\0"u8, value, out size), 128 * 1024) { IsBackground = true };
        question.Start();
        hangs = !question.Join(AnswerTime);
        if (hangs || error.IsError) { return null; }

        string[] parts = Encoding.ASCII.GetString(value, 0, size).Split(' ');
        return parts.Length is 2 or 3
            && int.TryParse(parts[0], NumberStyles.None, CultureInfo.InvariantCulture, out int pid)
            && ulong.TryParse(parts[1], NumberStyles.None, CultureInfo.InvariantCulture, out ulong started)
            ? new ServerIdentity(pid, started, HasUpper: parts.Length == 2)
            : null;
    }
}
