namespace Veneer.Cli;

/// <summary>What the process ends with, as mount(8) has it.</summary>
internal static class ExitCode
{
    /// <summary>Done.</summary>
    public const int Success = 0;
    /// <summary>The command line is wrong.</summary>
    public const int Usage = 1;
    /// <summary>The system failed us: no process, no memory.</summary>
    public const int System = 2;
    /// <summary>It could not be mounted or unmounted.</summary>
    public const int Failure = 32;
}
