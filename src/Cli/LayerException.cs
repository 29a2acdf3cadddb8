using Veneer.Fuse;
using Veneer.Overlay;

namespace Veneer.Cli;

/// <summary>An overlay or its layers cannot be looked at: one sentence, and what the process ends with.</summary>
internal sealed class LayerException(string message, int exitCode) : MountException(message)
{
    /// <summary>One of <see cref="Cli.ExitCode"/>.</summary>
    public int ExitCode { get; } = exitCode;

    /// <summary>The exit status for what the library says of a mount.</summary>
    public static int CodeOf(OverlayQueryException problem) => problem.Problem switch
    {
        QueryProblem.NotAMount => Cli.ExitCode.NotAMount,
        QueryProblem.NotAnOverlay => Cli.ExitCode.NotAnOverlay,
        QueryProblem.Denied => Cli.ExitCode.Denied,
        _ => Cli.ExitCode.Failure,
    };
}
