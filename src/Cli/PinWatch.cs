using Veneer.Linux;
using Veneer.Overlay.Layers;

namespace Veneer.Cli;

/// <summary>A process that sleeps until the server has ended, in whatever way, and then removes the server's pins.</summary>
internal static class PinWatch
{
    private const string Variable = "VENEER_PIN";

    /// <summary>Whether this process is such a watch.</summary>
    public static bool IsWatching { get; } = Self.IsStartedAs(Variable);

    /// <summary>In the server: starts the watch.</summary>
    public static Errno Start(string pins) => Self.Start(Variable, ["veneer"u8.ToArray(), PathText.Encode(pins)[..^1]], -1, out _);

    /// <summary>In the watch: waits for the server's end, and removes the pins.</summary>
    public static int Run(string pins)
    {
        _ = Libc.ChangeDirectory("/\0"u8); // cannot fail
        // If the server has ended meanwhile, this descriptor is of another process, and there is nothing to wait for.
        bool isThere = !Libc.OpenProcess(Libc.ParentProcessId, out int server).IsError && Self.IsStartedAs(Variable);
        while (isThere && Libc.Poll(server, PollEvents.In, -1, out bool ended) is var error
            && (error == Errno.EINTR || (!error.IsError && !ended)))
        {
        }
        Pin.Release(pins);
        return ExitCode.Success;
    }
}
