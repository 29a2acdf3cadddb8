using Veneer.Fuse;
using Veneer.Overlay;

namespace Veneer.Cli;

/// <summary>Why a server did not answer.</summary>
internal enum LayerProblem
{
    /// <summary>Another reason.</summary>
    Other,
    /// <summary>The server has not answered in time.</summary>
    Hangs,
    /// <summary>The mount was shut down: it gives EIO.</summary>
    IsShutDown,
}

/// <summary>An overlay or its layers cannot be examined. Has a sentence for the user and an exit status.</summary>
internal sealed class LayerException(string message, int exitCode, LayerProblem problem = LayerProblem.Other) : MountException(message)
{
    /// <summary>The reason, if it is one that callers distinguish.</summary>
    public LayerProblem Problem { get; } = problem;

    /// <summary>The exit status, one of <see cref="Cli.ExitCode"/>.</summary>
    public int ExitCode { get; } = exitCode;

    /// <summary>Gives the exit status for an exception of the library.</summary>
    public static int CodeOf(OverlayQueryException problem) => problem.Problem switch
    {
        QueryProblem.NotAMount => Cli.ExitCode.NotAMount,
        QueryProblem.NotAnOverlay => Cli.ExitCode.NotAnOverlay,
        QueryProblem.Denied => Cli.ExitCode.Denied,
        _ => Cli.ExitCode.Failure,
    };
}
