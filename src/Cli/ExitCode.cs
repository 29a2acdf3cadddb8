namespace Veneer.Cli;

/// <summary>The exit statuses of the program, compatible with mount(8).</summary>
internal static class ExitCode
{
    /// <summary>The command succeeded.</summary>
    public const int Success = 0;
    /// <summary>The command line is wrong.</summary>
    public const int Usage = 1;
    /// <summary>The system failed: no process, no memory, or the output cannot be written.</summary>
    public const int System = 2;
    /// <summary>The argument is a mount, but not an overlay, or not one that the command works on.</summary>
    public const int NotAnOverlay = 3;
    /// <summary>The caller lacks the permission.</summary>
    public const int Denied = 4;
    /// <summary>The answer is whole, but something changed while it was read; it was named.</summary>
    public const int Unsettled = 5;
    /// <summary>The answer lacks something; it was named.</summary>
    public const int Incomplete = 6;
    /// <summary>A record is damaged, or is not a record.</summary>
    public const int Corrupt = 7;
    /// <summary>A recorded object is missing, or has become another.</summary>
    public const int NotSame = 8;
    /// <summary>Something is not on the disk, or may be lost; it was named.</summary>
    public const int Unsynced = 9;
    /// <summary>The argument is held by something.</summary>
    public const int Held = 10;
    /// <summary>The argument does not exist, or is not a mount.</summary>
    public const int NotAMount = 11;
    /// <summary>The path is not in the mount, or no layer has or had it.</summary>
    public const int Outside = 12;
    /// <summary>A record is of an unknown version.</summary>
    public const int OtherVersion = 13;
    /// <summary>Mounting or unmounting failed.</summary>
    public const int Failure = 32;
}
