using Veneer.Linux;
using Veneer.Overlay.Layers;

namespace Veneer.Cli;

/// <summary>A process that takes away the pins of a server when that has ended, in whatever way. Until then it sleeps.</summary>
internal static class PinWatch
{
    private const string Mark = "VENEER_PIN";

    /// <summary>Whether this process is one.</summary>
    public static bool IsWatching { get; } = Self.IsStartedAs(Mark);

    /// <summary>In the server: starts it.</summary>
    public static Errno Start(string pins) => Self.Start(Mark, ["veneer"u8.ToArray(), PathText.Encode(pins)[..^1]], -1, out _);

    /// <summary>In the process: waits for the server's end.</summary>
    public static int Run(string pins)
    {
        _ = Libc.ChangeDirectory("/\0"u8); // cannot fail
        // If it has ended meanwhile, this is not its process: then there is nothing to wait for.
        bool isThere = !Libc.OpenProcess(Libc.ParentProcessId, out int server).IsError && Self.IsStartedAs(Mark);
        while (isThere && Libc.Poll(server, PollEvents.In, -1, out bool ended) is var error && (error == Errno.EINTR || (!error.IsError && !ended))) { }
        Pin.Release(pins);
        return ExitCode.Success;
    }
}
