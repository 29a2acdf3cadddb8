using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Veneer.Linux;

/// <summary>Which ids of a file an <see cref="OwnerWitness"/> has recognized.</summary>
[Flags]
public enum KnownIds
{
    /// <summary>None.</summary>
    None = 0,
    /// <summary>The owner.</summary>
    Owner = 1,
    /// <summary>The group.</summary>
    Group = 2,
}

/// <summary>
/// A child process in a user namespace of its own, which recognizes the owners of files that look alike from here.
/// </summary>
/// <remarks>
/// stat(2) shows an owner that is not mapped in the caller's user namespace as the overflow id, 65534. That may also be the
/// number of a user who is mapped there. Only a process in another namespace, in which that user has another number, can
/// tell the two apart, and a process with several threads cannot enter one. So a child maps nothing but the two ids in
/// question, to 0. The child is a copy of this process and returns from clone(2) into a loop of system calls and nothing
/// else: no part of the runtime works in it. It ends when the other end of its socket is closed.
/// </remarks>
public sealed unsafe class OwnerWitness : IDisposable
{
    // The numbers of x86-64, as everywhere in this project.
    private const long SysClose = 3, SysDup2 = 33, SysSendTo = 44, SysRecvMsg = 47, SysClone = 56, SysPrCtl = 157,
        SysExitGroup = 231, SysStatx = 332, SysCloseRange = 436;

    private readonly int socket;
    private readonly int process;

    private OwnerWitness(int socket, int process)
    {
        this.socket = socket;
        this.process = process;
    }

    /// <summary>Starts the child process.</summary>
    /// <param name="uid">The user id to recognize, as numbered in this process's namespace.</param>
    /// <param name="gid">The group id to recognize.</param>
    /// <param name="witness">The started witness, or null on an error.</param>
    /// <returns>
    /// <see cref="Errno.EPERM"/> without CAP_SETUID and CAP_SETGID, or when the child could not be made; the error of a
    /// write to its id maps.
    /// </returns>
    public static Errno Start(uint uid, uint gid, out OwnerWitness? witness)
    {
        witness = null;
        Errno error = Libc.SocketPair(out int ours, out int theirs);
        if (error.IsError) { return error; }
        ulong before = Libc.BlockAllSignals();
        int child = Split(theirs);
        Libc.RestoreSignals(before);
        Libc.Close(theirs);
        if (child < 0)
        {
            Libc.Close(ours);
            return Errno.EPERM;
        }
        var started = new OwnerWitness(ours, child);
        error = Map(child, "uid_map", uid);
        if (!error.IsError) { error = Map(child, "gid_map", gid); }
        if (!error.IsError) { error = Libc.SetReceiveTimeout(ours, seconds: 5); } // the child waits for nothing but a filesystem
        if (error.IsError) { started.Dispose(); }
        else { witness = started; }
        return error;
    }

    private static Errno Map(int child, string file, uint id)
    {
        Errno error = Libc.OpenAt(Libc.AtCwd, PathText.Encode($"/proc/{child}/{file}"), OpenFlags.WriteOnly, 0, ResolveFlags.None,
            out int descriptor);
        if (error.IsError) { return error; }
        error = Libc.Write(descriptor, PathText.Encode($"0 {id} 1\n").AsSpan()[..^1], out _);
        Libc.Close(descriptor);
        return error;
    }

    /// <summary>Asks which ids of a file are the ones to recognize. One thread at a time.</summary>
    /// <param name="descriptor">A descriptor of the file; O_PATH will do.</param>
    /// <param name="known">The ids of the file that were recognized.</param>
    /// <returns>An error when the child has ended or does not answer.</returns>
    public Errno Ask(int descriptor, out KnownIds known)
    {
        known = KnownIds.None;
        Errno error = Libc.SendDescriptor(socket, descriptor);
        if (error.IsError) { return error; }
        byte answer = 0;
        int count;
        do { error = Libc.Read(socket, new Span<byte>(ref answer), out count); } while (error == Errno.EINTR);
        if (error.IsError) { return error; }
        if (count == 0) { return Errno.ECONNABORTED; }
        known = (KnownIds)answer;
        return Errno.None;
    }

    /// <summary>
    /// Ends the child and waits for it. A child that has not answered needs <see cref="Abandon"/>: its filesystem may hang.
    /// </summary>
    public void Dispose()
    {
        Abandon();
        _ = Libc.Wait(process, out _); // best effort: the kernel reaps the child when this process ends
    }

    /// <summary>Kills the child without waiting for it. Its remains go with this process.</summary>
    public void Abandon()
    {
        Libc.Close(socket);
        _ = Libc.Kill(process); // best effort: the child may have ended by itself
    }

    /// <summary>A system call without the runtime's transition before and after it, which would not work in the child.</summary>
    [DllImport("libc", EntryPoint = "syscall"), SuppressGCTransition]
    private static extern long Call(long number, long a, long b, long c, long d, long e, long f);

    /// <summary>
    /// Makes the child, in which this method does not return. Caller has blocked all signals, so that no handler runs in
    /// the child.
    /// </summary>
    /// <remarks>
    /// All of the child's code is in this one method: nobody in the child could compile another. For each descriptor that
    /// the child receives, it sends one byte that says which ids are mapped here.
    /// </remarks>
    [MethodImpl(MethodImplOptions.NoInlining | MethodImplOptions.AggressiveOptimization)]
    private static int Split(int theirs)
    {
        const long newUser = 0x10000000, childSignal = 17;
        const int setName = 15, emptyPath = 0x1000, basic = 0x7FF, noSignal = 0x4000, headerWords = 7, controlWords = 3, statWords = 32;
        ulong* text = stackalloc ulong[2];
        ulong* header = stackalloc ulong[headerWords]; // struct msghdr
        ulong* control = stackalloc ulong[controlWords]; // struct cmsghdr with one descriptor
        ulong* vector = stackalloc ulong[2]; // struct iovec
        ulong* stat = stackalloc ulong[statWords];
        ulong* content = stackalloc ulong[1];
        text[0] = 0x772D7265656E6576; // "veneer-w"
        text[1] = 0x7373656E7469; // "itness"
        _ = Call(SysClose, -1, 0, 0, 0, 0, 0); // binds the import here: the child could not
        long child = Call(SysClone, newUser | childSignal, 0, 0, 0, 0, 0);
        if (child != 0) { return (int)child; }

        _ = Call(SysPrCtl, setName, (long)text, 0, 0, 0, 0);
        text[0] = 0; // an empty path from now on
        // Every descriptor of this process is copied. The copies must not outlive the originals.
        bool goesOn = Call(SysDup2, theirs, 0, 0, 0, 0, 0) == 0 && Call(SysCloseRange, 1, uint.MaxValue, 0, 0, 0, 0) == 0;
        while (goesOn)
        {
            vector[0] = (ulong)content;
            vector[1] = 1;
            header[0] = header[1] = header[6] = 0;
            header[2] = (ulong)vector;
            header[3] = 1;
            header[4] = (ulong)control;
            header[5] = controlWords * sizeof(ulong);
            if (Call(SysRecvMsg, 0, (long)header, 0, 0, 0, 0) <= 0) { break; }
            *content = 0;
            if (header[5] != 0) // a descriptor came
            {
                int descriptor = (int)control[2];
                if (Call(SysStatx, descriptor, (long)text, emptyPath, basic, (long)stat, 0) == 0)
                {
                    // stx_uid and stx_gid, behind stx_mask, stx_blksize, stx_attributes and stx_nlink.
                    if (((uint*)stat)[5] == 0) { *content |= (ulong)KnownIds.Owner; }
                    if (((uint*)stat)[6] == 0) { *content |= (ulong)KnownIds.Group; }
                }
                _ = Call(SysClose, descriptor, 0, 0, 0, 0, 0);
            }
            goesOn = Call(SysSendTo, 0, (long)content, 1, noSignal, 0, 0) == 1;
        }
        _ = Call(SysExitGroup, 0, 0, 0, 0, 0, 0);
        return -1; // not reached
    }
}
