using Veneer.Fuse;

namespace Veneer.Cli;

/// <summary>An overlay or its layers cannot be looked at: one sentence, and what the process ends with.</summary>
internal sealed class LayerException(string message, int exitCode) : MountException(message)
{
    /// <summary>One of <see cref="Cli.ExitCode"/>.</summary>
    public int ExitCode { get; } = exitCode;
}
