using Veneer.Linux;

namespace Veneer.Rig;

/// <summary>A system call failed in a place where the test does not expect it.</summary>
public sealed class SysException : Exception
{
    public SysException(Errno errno, string call)
        : base($"{call}: {errno}") => Errno = errno;

    public Errno Errno { get; }

    public static void ThrowIf(Errno errno, string call)
    {
        if (errno.IsError) { throw new SysException(errno, call); }
    }
}
