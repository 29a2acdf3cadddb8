using Veneer.Linux;

namespace Veneer.Overlay.Upper;

/// <summary>
/// Lets the thread create files as the caller of a request: upper's filesystem then sets the owner and the group, and applies
/// the umask.
/// </summary>
/// <remarks>
/// So a file has its owner from its first moment. Only the filesystem ids and the umask of the thread change. Its capabilities
/// stay, so that access is checked for the mounter, as in kernel overlayfs: see ovl_override_creator_creds().
/// </remarks>
internal static class CallerIdentity
{
    [ThreadStatic]
    private static State? state;

    /// <summary>The identity of a thread.</summary>
    private sealed class State
    {
        public uint Uid = Libc.FileSystemUid;
        public uint Gid = Libc.FileSystemGid;
        public uint Umask;
        public readonly uint OwnUid;
        public readonly uint OwnGid;
        public readonly bool MayChange;

        public State()
        {
            OwnUid = Uid;
            OwnGid = Gid;
            // A thread that shares its umask with others must not change it: the caller of Assume then applies the umask itself.
            HasOwnUmask = !Libc.UnshareFileSystemAttributes().IsError;
            if (HasOwnUmask) { Libc.SetUmask(0); }
            MayChange = !Libc.KeepCapabilitiesOnSetUid().IsError;
        }

        public readonly bool HasOwnUmask;
    }

    /// <summary>Gives the thread another identity until the scope is disposed of.</summary>
    /// <param name="uid">The owner of new files.</param>
    /// <param name="gid">The group of new files.</param>
    /// <param name="umask">The umask for new files.</param>
    /// <param name="scope">Ends the identity when it is disposed of.</param>
    /// <returns><see cref="Errno.EPERM"/> when the server may not create files of that owner.</returns>
    public static Errno Assume(uint uid, uint gid, uint umask, out Scope scope)
    {
        State current = state ??= new State();
        scope = default;
        if (uid != current.OwnUid || gid != current.OwnGid)
        {
            if (!current.MayChange && (uid != current.OwnUid || gid != current.OwnGid)) { return Errno.EPERM; }
            Libc.SetFileSystemGid(gid);
            Libc.SetFileSystemUid(uid);
            if (Libc.FileSystemUid != uid || Libc.FileSystemGid != gid)
            {
                Libc.SetFileSystemUid(current.OwnUid);
                Libc.SetFileSystemGid(current.OwnGid);
                return Errno.EPERM;
            }
            current.Uid = uid;
            current.Gid = gid;
        }
        if (current.HasOwnUmask && current.Umask != umask)
        {
            Libc.SetUmask(umask);
            current.Umask = umask;
        }
        scope = new Scope(current.HasOwnUmask ? 0 : umask);
        return Errno.None;
    }

    /// <summary>Gives the thread its own identity again, and a umask of zero.</summary>
    private static void Revert()
    {
        State current = state!;
        if (current.Uid != current.OwnUid || current.Gid != current.OwnGid)
        {
            Libc.SetFileSystemUid(current.OwnUid);
            Libc.SetFileSystemGid(current.OwnGid);
            current.Uid = current.OwnUid;
            current.Gid = current.OwnGid;
        }
        if (current.HasOwnUmask && current.Umask != 0)
        {
            Libc.SetUmask(0);
            current.Umask = 0;
        }
    }

    /// <summary>The time during which a thread has another identity.</summary>
    /// <param name="maskByHand">The bits that must be cleared from a mode, since the umask of the thread does not do it.</param>
    public readonly ref struct Scope(uint maskByHand)
    {
        /// <summary>The mode to pass to a system call that makes a file.</summary>
        public uint Apply(uint mode) => mode & ~maskByHand;

        /// <summary>Ends the identity.</summary>
        public void Dispose() => Revert();
    }
}
