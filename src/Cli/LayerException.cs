using Veneer.Fuse;
using Veneer.Overlay;

namespace Veneer.Cli;

/// <summary>What keeps a server from telling something.</summary>
internal enum LayerProblem
{
    /// <summary>None of the others.</summary>
    Other,
    /// <summary>It has not answered in time.</summary>
    Hangs,
    /// <summary>Its mount gives EIO.</summary>
    IsShutDown,
}

/// <summary>An overlay or its layers cannot be looked at: one sentence, and what the process ends with.</summary>
internal sealed class LayerException(string message, int exitCode, LayerProblem problem = LayerProblem.Other) : MountException(message)
{
    /// <summary>What it is about.</summary>
    public LayerProblem Problem { get; } = problem;

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
