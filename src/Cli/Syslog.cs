using System.Globalization;
using System.Text;
using Veneer.Linux;

namespace Veneer.Cli;

/// <summary>
/// Sends the messages of a background server to syslog: datagrams as in RFC 3164 to /dev/log, if anybody listens there.
/// </summary>
internal static class Syslog
{
    private const int Daemon = 3 << 3, Error = 3;

    /// <summary>Sends one line about a failure, whatever names are in it. The line is lost where there is no syslog.</summary>
    public static void Complain(string line)
    {
        if (Libc.ConnectDatagram("/dev/log\0"u8, out int descriptor).IsError) { return; }
        using var socket = new Fd(descriptor);
        DateTime now = DateTime.Now;
        string day = now.Day.ToString(CultureInfo.InvariantCulture).PadLeft(2);
        string stamp = string.Create(CultureInfo.InvariantCulture, $"{now:MMM} {day} {now:HH:mm:ss}");
        string text = PathText.OnOneLine(line.StartsWith("veneer: ", StringComparison.Ordinal) ? line["veneer: ".Length..] : line);
        // best effort: a full log loses lines
        _ = Libc.Send(descriptor, Encoding.UTF8.GetBytes($"<{Daemon | Error}>{stamp} veneer[{Libc.ProcessId}]: {text}"));
    }
}
