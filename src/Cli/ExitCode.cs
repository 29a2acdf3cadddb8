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
    /// <summary>What is named is a mount, but not an overlay, or none that the command can look at.</summary>
    public const int NotAnOverlay = 3;
    /// <summary>The caller may not do this.</summary>
    public const int Denied = 4;
    /// <summary>The answer is whole, but something changed while it was read, and was named.</summary>
    public const int Unsettled = 5;
    /// <summary>The answer lacks something, which was named.</summary>
    public const int Incomplete = 6;
    /// <summary>A record is damaged, or is something else.</summary>
    public const int Corrupt = 7;
    /// <summary>What was recorded is not there, or has become something else.</summary>
    public const int NotSame = 8;
    /// <summary>Something is not on the disk, or may be lost; what, was named.</summary>
    public const int Unsynced = 9;
    /// <summary>Something holds what was asked about.</summary>
    public const int Held = 10;
    /// <summary>What is named is not there, or is no mount.</summary>
    public const int NotAMount = 11;
    /// <summary>A path does not lead into the mount, or nothing is and was there.</summary>
    public const int Outside = 12;
    /// <summary>A record is of a version that is not known.</summary>
    public const int OtherVersion = 13;
    /// <summary>It could not be mounted or unmounted.</summary>
    public const int Failure = 32;
}
