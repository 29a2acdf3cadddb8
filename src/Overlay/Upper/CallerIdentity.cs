using Veneer.Linux;

namespace Veneer.Overlay.Upper;

/// <summary>Makes the calling thread create files as somebody else: owner, group and umask are then the filesystem's own work.</summary>
/// <remarks>
/// Only the thread's filesystem ids and umask change; its capabilities stay, so that access is checked against the
/// mounter, as kernel overlayfs does (ovl_override_creator_creds()). The file so has its owner from its first moment.
/// </remarks>
internal static class CallerIdentity
{
    [ThreadStatic]
    private static State? state;

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
            // Without a umask of its own the thread would change the others': then the umask is applied by hand, see Assume.
            HasOwnUmask = !Libc.UnshareFileSystemAttributes().IsError;
            if (HasOwnUmask) { Libc.SetUmask(0); }
            MayChange = !Libc.KeepCapabilitiesOnSetUid().IsError;
        }

        public readonly bool HasOwnUmask;
    }

    /// <summary>Takes on the caller's identity until <see cref="Scope.Dispose"/>.</summary>
    /// <returns><see cref="Errno.EPERM"/> when we may not create files of that owner.</returns>
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

    /// <summary>The thread's own identity, with nothing masked.</summary>
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

    /// <summary>The time during which a thread is somebody else.</summary>
    /// <param name="maskByHand">Bits that the caller must clear from the mode itself.</param>
    public readonly ref struct Scope(uint maskByHand)
    {
        /// <summary>The mode to pass to the system call.</summary>
        public uint Apply(uint mode) => mode & ~maskByHand;

        public void Dispose() => Revert();
    }
}
