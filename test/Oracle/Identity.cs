using System.Runtime.InteropServices;

namespace Veneer.Oracle;

/// <summary>Makes the calling thread, for a while, a user's: effective ids only, so that the way back stays open.</summary>
internal readonly partial struct Identity : IDisposable
{
    private const long SysSetResUid = 117, SysSetResGid = 119, SysSetGroups = 116;

    private readonly bool changed;

    private Identity(bool changed) => this.changed = changed;

    /// <summary>Gives up the calling thread's groups, and gives it a umask of its own.</summary>
    public static void PrepareThread()
    {
        _ = Libc.UnshareFileSystemAttributes(); // best effort: another thread does nothing with its umask
        _ = syscall(SysSetGroups, 0, 0, 0); // best effort: root has none in most places
    }

    public static Identity Assume(uint uid, uint gid)
    {
        if (uid == 0) { return new Identity(changed: false); }
        Set(uid, gid);
        return new Identity(changed: true);
    }

    public void Dispose()
    {
        if (changed) { Set(0, 0); }
    }

    /// <summary>The group first while we still may; back to root the user first, for the same reason.</summary>
    private static void Set(uint uid, uint gid)
    {
        if (uid == 0) { _ = syscall(SysSetResUid, -1, 0, -1); } // cannot fail: the real user is root
        _ = syscall(SysSetResGid, -1, (nint)gid, -1);
        if (uid != 0) { _ = syscall(SysSetResUid, -1, (nint)uid, -1); }
    }

    [LibraryImport("libc", SetLastError = true)]
    private static partial long syscall(long number, nint a, nint b, nint c);
}
