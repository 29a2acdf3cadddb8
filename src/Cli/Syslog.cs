using System.Globalization;
using System.Text;
using Veneer.Linux;

namespace Veneer.Cli;

/// <summary>Where a server in the background says what goes on: the datagrams of RFC 3164 to /dev/log, if anybody listens there.</summary>
internal static class Syslog
{
    private const int Daemon = 3 << 3, Error = 3;

    /// <summary>Sends one line about something that went wrong, whatever names are in it. It is lost where there is no syslog.</summary>
    public static void Complain(string line)
    {
        if (Libc.ConnectDatagram("/dev/log\0"u8, out int descriptor).IsError) { return; }
        using var socket = new Fd(descriptor);
        DateTime now = DateTime.Now;
        string day = now.Day.ToString(CultureInfo.InvariantCulture).PadLeft(2);
        string stamp = string.Create(CultureInfo.InvariantCulture, $"{now:MMM} {day} {now:HH:mm:ss}");
        string text = PathText.OnOneLine(line.StartsWith("veneer: ", StringComparison.Ordinal) ? line["veneer: ".Length..] : line);
        _ = Libc.Send(descriptor, Encoding.UTF8.GetBytes($"<{Daemon | Error}>{stamp} veneer[{Libc.ProcessId}]: {text}")); // best effort: a full log loses lines
    }
}
