using System.Globalization;
using Veneer.Linux;

namespace Veneer.Overlay.Host;

/// <summary>A mount namespace, with its mounts as a process in it sees them.</summary>
/// <param name="Id">The namespace's inode number; 0 when it may not be known.</param>
/// <param name="Process">The process through which it is seen: a number, <c>PID/task/TID</c>, or <c>self</c>; empty when no process is in it.</param>
/// <param name="Table">The mounts, as the kernel writes them.</param>
internal sealed record MountNamespace(ulong Id, string Process, byte[] Table) : IDisposable
{
    private List<MountEntry>? mounts;
    private Fd? root;

    /// <summary>The root directory at which the mount points start, O_PATH, held until this is disposed of; -1 when it cannot be reached.</summary>
    public int Root()
    {
        if (root is null)
        {
            Errno error = Libc.OpenAt(Libc.AtCwd, PathText.Encode($"/proc/{Process}/root"), OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None, out int opened);
            root = new Fd(error.IsError ? -1 : opened);
        }
        return root.Value;
    }

    /// <summary>Lets go of its root directory, which keeps it busy.</summary>
    public void Dispose()
    {
        root?.Dispose();
        if (Process.Length > 0) { root = null; } // it can be opened again
    }

    /// <summary>Every namespace whose mounts this process may read, those among them in which there are threads or nobody at all; its own first, each once.</summary>
    /// <remarks>Lazily, and each only until the next is asked for.</remarks>
    public static IEnumerable<MountNamespace> All()
    {
        var seen = new HashSet<ulong>();
        bool isListed = !Libc.OpenAt(Libc.AtCwd, "/proc/self/ns/mnt\0"u8, OpenFlags.ReadOnly | OpenFlags.NonBlock, 0, ResolveFlags.None, out int opened).IsError;
        using var own = new Fd(isListed ? opened : -1);
        if (isListed)
        {
            Errno error = Libc.NeighborOfMountNamespace(own.Value, isNext: true, out opened);
            if (opened >= 0) { Libc.Close(opened); }
            isListed = error is Errno.None or Errno.ENOENT;
        }
        var kept = new List<(ulong Id, string Path)>();
        foreach (MountNamespace space in Visible(withThreads: !isListed))
        {
            seen.Add(space.Id);
            // Where they are not listed, as in a pid namespace, those that a mount keeps are found by that.
            if (!isListed && space.Table.AsSpan().IndexOf(" - nsfs "u8) >= 0)
            {
                kept.AddRange(space.Mounts.Where(entry => entry.Type == "nsfs").Select(entry => (Processes.MountNamespaceOf(entry.Root), $"/proc/{space.Process}/root{entry.MountPoint}")));
            }
            using (space) { yield return space; }
        }
        foreach ((ulong id, string path) in kept)
        {
            if (id == 0 || !seen.Add(id) || EnterAndHold(id, [path]) is not { } space) { continue; }
            using (space) { yield return space; }
        }
        foreach (bool isNext in isListed ? (bool[])[true, false] : [])
        {
            Fd at = own;
            while (!Libc.NeighborOfMountNamespace(at.Value, isNext, out opened).IsError)
            {
                if (at != own) { at.Dispose(); }
                at = new Fd(opened);
                if (Libc.StatAt(opened, Libc.Self, StatxMask.Basic, out Statx stat).IsError || !seen.Add(stat.Ino)) { continue; }
                if (EnterAndHold(stat.Ino, [string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{opened}")]) is not { } space) { continue; }
                using (space) { yield return space; }
            }
            if (at != own) { at.Dispose(); }
        }
    }

    /// <summary>Its mounts, parents before what is mounted on them; mount points are seen from the process's root directory.</summary>
    public IReadOnlyList<MountEntry> Mounts => mounts ??= MountTable.ParseAll(Table);

    /// <summary>Every namespace whose mounts this process may read, its own first, each once.</summary>
    /// <remarks>Lazily: whoever has seen enough stops. Without the right to know which namespace a process is in, its mounts are not read.</remarks>
    /// <param name="withThreads">Whether to look at each thread of each process, and not at its first alone.</param>
    public static IEnumerable<MountNamespace> Visible(bool withThreads = false)
    {
        var seen = new HashSet<ulong> { 0 };
        ulong own = Processes.NamespaceOf("self", "mnt");
        if (TryRead(own, "self", out MountNamespace? first))
        {
            seen.Add(own);
            yield return first;
        }
        foreach (int pid in Processes.All())
        {
            string process = pid.ToString(CultureInfo.InvariantCulture);
            foreach (string one in withThreads ? [process, .. Processes.NumbersIn($"/proc/{process}/task").Where(thread => thread != pid).Select(thread => $"{process}/task/{thread}")] : (IEnumerable<string>)[process])
            {
                ulong id = Processes.NamespaceOf(one, "mnt");
                // One that has no root directory any more, since it ends, shows no mounts: the next one of the namespace may.
                if (seen.Contains(id) || !TryRead(id, one, out MountNamespace? space)) { continue; }
                seen.Add(id);
                yield return space;
            }
        }
    }

    /// <summary>A namespace in which no process is, by going there.</summary>
    /// <param name="id">Its inode number.</param>
    /// <param name="ways">Paths that lead to it, to bind mounts of files of namespaces or descriptors of them: the first from here, and each to where the next is to be found.</param>
    /// <returns>Null when it may not be entered.</returns>
    public static MountNamespace? Enter(ulong id, IReadOnlyList<string> ways)
    {
        using MountNamespace? entered = EnterAndHold(id, ways);
        return entered;
    }

    /// <summary>As <see cref="Enter"/>, with its root directory held.</summary>
    private static MountNamespace? EnterAndHold(ulong id, IReadOnlyList<string> ways)
    {
        if (Libc.OpenAt(Libc.AtCwd, "/proc\0"u8, OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None, out int proc).IsError) { return null; }
        using var processes = new Fd(proc);
        byte[] table = [];
        int top = -1;
        // A thread of its own, which does not come back: where it is, there may be no /proc.
        var thread = new Thread(() =>
        {
            if (Libc.UnshareFileSystemAttributes().IsError) { return; }
            foreach (string way in ways)
            {
                if (Libc.OpenAt(Libc.AtCwd, PathText.Encode(way), OpenFlags.ReadOnly | OpenFlags.NonBlock, 0, ResolveFlags.None, out int opened).IsError) { return; }
                using var space = new Fd(opened);
                if (Libc.EnterMountNamespace(opened).IsError) { return; }
            }
            _ = Libc.ReadWhole(proc, "thread-self/mountinfo\0"u8, out table); // best effort: without it the namespace is not told of
            _ = Libc.OpenAt(Libc.AtCwd, "/\0"u8, OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None, out top); // best effort: without it nobody goes there
        });
        thread.Start();
        thread.Join();
        var held = new Fd(top);
        if (table.Length > 0) { return new MountNamespace(id, "", table) { root = held }; }
        held.Dispose();
        return null;
    }

    private static bool TryRead(ulong id, string process, [System.Diagnostics.CodeAnalysis.NotNullWhen(true)] out MountNamespace? space)
    {
        Errno error = Libc.ReadWhole(PathText.Encode($"/proc/{process}/mountinfo"), out byte[] table);
        space = error.IsError || table.Length == 0 ? null : new MountNamespace(id, process, table);
        return space is not null;
    }

    /// <summary>The mount that is seen at a path of the namespace, or null.</summary>
    public MountEntry? Covering(string path) => MountTable.Covering(Table, path);
}
