namespace Veneer.Cli;

/// <summary>The layers of an overlay cannot be found or read: one sentence, and what the process ends with.</summary>
internal sealed class LayerException(string message, int exitCode) : Exception(message)
{
    /// <summary>One of <see cref="Cli.ExitCode"/>.</summary>
    public int ExitCode { get; } = exitCode;
}
