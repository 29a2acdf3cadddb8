using System.Collections.Concurrent;
using System.Diagnostics;
using System.Runtime.ExceptionServices;
using Veneer.Linux;

namespace Veneer.Rig;

/// <summary>Somebody else: a thread with its own user, groups, umask and table of descriptors.</summary>
/// <remarks>
/// To the kernel, locks of fcntl(2) belong to a table of descriptors, so that two actors lock against each other as two
/// processes do. Descriptors opened by an actor mean nothing outside of it.
/// </remarks>
public sealed unsafe class Actor : IDisposable
{
    private readonly BlockingCollection<Action> todo = [];
    private readonly Thread thread;
    private readonly TaskCompletionSource<long> threadId = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <param name="uid">The user; also of what is created.</param>
    /// <param name="gid">The group.</param>
    /// <param name="groups">Further groups.</param>
    /// <param name="umask">The umask.</param>
    public Actor(uint uid = 0, uint gid = 0, uint[]? groups = null, uint umask = 0x12)
    {
        thread = new Thread(() => Live(uid, gid, groups ?? [], umask)) { IsBackground = true, Name = $"user {uid}" };
        thread.Start();
    }

    /// <summary>An ordinary user.</summary>
    public static Actor User(uint uid = 1000, uint gid = 1000) => new(uid, gid);

    /// <summary>Numbers of system calls that an actor may wait in, on x86-64.</summary>
    public const int SysFcntl = 72, SysStatx = 332, SysOpenAt2 = 437;

    /// <summary>Root, in a process of its own.</summary>
    public static Actor Process() => new();

    public void Do(Action action) => Do(() => { action(); return 0; });

    public T Do<T>(Func<T> function) => Begin(function).GetAwaiter().GetResult();

    /// <summary>Starts something that may have to wait.</summary>
    public Task<T> Begin<T>(Func<T> function)
    {
        var done = new TaskCompletionSource<T>(TaskCreationOptions.RunContinuationsAsynchronously);
        todo.Add(() =>
        {
            try { done.SetResult(function()); }
#pragma warning disable CA1031 // handed to whoever waits for the result
            catch (Exception problem) { done.SetException(problem); }
#pragma warning restore CA1031
        });
        return done.Task;
    }

    /// <summary>Returns when the actor waits in a system call, such as one for a lock that somebody else has.</summary>
    /// <param name="systemCall">Its number; see proc_pid_syscall(5).</param>
    public void AwaitInKernel(int systemCall)
    {
        var waited = Stopwatch.StartNew();
        string expected = $"{systemCall} ";
        while (!Sys.ReadText($"/proc/self/task/{threadId.Task.Result}/syscall").StartsWith(expected, StringComparison.Ordinal))
        {
            if (waited.Elapsed > TimeSpan.FromSeconds(30)) { throw new TimeoutException($"It does not wait in system call {systemCall}."); }
            Thread.Sleep(1);
        }
    }

    /// <summary>What the action fails with, or <see cref="Errno.None"/>.</summary>
    public Errno ErrorOf(Action action) => Do(() => Sys.ErrorOf(action));

    /// <summary>Ends, and returns when the kernel has closed its descriptors and released its locks.</summary>
    public void Dispose()
    {
        todo.CompleteAdding();
        thread.Join();
        todo.Dispose();
        FilePath task = $"/proc/self/task/{threadId.Task.Result}";
        while (task.Exists) { Thread.Sleep(1); }
    }

    private void Live(uint uid, uint gid, uint[] groups, uint umask)
    {
        threadId.SetResult(Native.syscall(Native.SysGetTid, 0, 0, 0, 0, 0, 0));
        Exception? failure = null;
        try { Become(uid, gid, groups, umask); }
        catch (SysException problem) { failure = problem; }
        foreach (Action action in todo.GetConsumingEnumerable())
        {
            if (failure is not null) { ExceptionDispatchInfo.Throw(failure); }
            action();
        }
    }

    private static void Become(uint uid, uint gid, uint[] groups, uint umask)
    {
        const int cloneFs = 0x200, cloneFiles = 0x400;
        Programs.Without(static () => SysException.ThrowIf(Native.Check(Native.unshare(cloneFs | cloneFiles)), "unshare"));
        CloseInherited();
        _ = Libc.SetUmask(umask);
        if (uid == 0 && gid == 0 && groups.Length == 0) { return; }
        fixed (uint* p = groups)
        {
            SysException.ThrowIf(Native.Check(Native.syscall(Native.SysSetGroups, groups.Length, (nint)p, 0, 0, 0, 0)), "setgroups");
        }
        SysException.ThrowIf(Native.Check(Native.syscall(Native.SysSetResGid, (nint)gid, (nint)gid, (nint)gid, 0, 0, 0)), "setresgid");
        SysException.ThrowIf(Native.Check(Native.syscall(Native.SysSetResUid, (nint)uid, (nint)uid, (nint)uid, 0, 0, 0)), "setresuid");
    }

    /// <summary>
    /// Closes this process's copies of descriptors in an overlay, which would keep the overlay from being unmounted. The
    /// runtime's own descriptors stay open.
    /// </summary>
    private static void CloseInherited()
    {
        byte[] target = new byte[4096];
        foreach (DirectoryEntry entry in Sys.ReadDirectory("/proc/thread-self/fd"))
        {
            FilePath link = (FilePath)"/proc/thread-self/fd" / entry.Name;
            if (Libc.ReadLinkAt(Libc.AtCwd, link.Bytes, target, out int length).IsError) { continue; }
            if (PathText.Decode(target.AsSpan(0, length)).Contains(Scratch.Name, StringComparison.Ordinal))
            {
                Libc.Close(int.Parse(entry.Name));
            }
        }
    }
}
