using System.Globalization;
using Veneer.Linux;

namespace Veneer.Overlay.Host;

/// <summary>A mount namespace and its mounts, as a process in it sees them.</summary>
/// <param name="Id">The namespace's inode number; 0 when it may not be known.</param>
/// <param name="Process">
/// The process through which the namespace is seen: a pid, <c>PID/task/TID</c>, or <c>self</c>; empty when no process is in
/// it.
/// </param>
/// <param name="Table">The mount table, as the kernel writes it.</param>
internal sealed record MountNamespace(ulong Id, string Process, byte[] Table) : IDisposable
{
    private List<MountEntry>? mounts;
    private Fd? root;

    /// <summary>
    /// The root directory at which the mount points begin, opened with O_PATH; -1 when it cannot be reached. Held until
    /// this is disposed of.
    /// </summary>
    public int Root()
    {
        if (root is null)
        {
            Errno error = Libc.OpenAt(Libc.AtCwd, PathText.Encode($"/proc/{Process}/root"), OpenFlags.Path | OpenFlags.Directory, 0,
                ResolveFlags.None, out int opened);
            root = new Fd(error.IsError ? -1 : opened);
        }
        return root.Value;
    }

    /// <summary>Closes the root directory, which keeps the namespace busy.</summary>
    public void Dispose()
    {
        root?.Dispose();
        if (Process.Length > 0) { root = null; } // Root() can open it again
    }

    /// <summary>
    /// Enumerates every namespace whose mounts this process may read, those of single threads and those without processes
    /// among them; its own first, each once.
    /// </summary>
    /// <remarks>A returned namespace is valid until the next one is asked for.</remarks>
    public static IEnumerable<MountNamespace> All()
    {
        var seen = new HashSet<ulong>();
        bool isListed = !Libc.OpenAt(Libc.AtCwd, "/proc/self/ns/mnt\0"u8, OpenFlags.ReadOnly | OpenFlags.NonBlock, 0,
            ResolveFlags.None, out int opened).IsError;
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
            // Where the kernel does not list namespaces, as in a pid namespace, those that a mount keeps are found by that
            // mount.
            if (!isListed && space.Table.AsSpan().IndexOf(" - nsfs "u8) >= 0)
            {
                kept.AddRange(space.Mounts
                    .Where(entry => entry.Type == "nsfs")
                    .Select(entry => (Processes.MountNamespaceOf(entry.Root), $"/proc/{space.Process}/root{entry.MountPoint}")));
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
                if (EnterAndHold(stat.Ino, [string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{opened}")]) is not { } space)
                {
                    continue;
                }
                using (space) { yield return space; }
            }
            if (at != own) { at.Dispose(); }
        }
    }

    /// <summary>
    /// The mounts of the namespace. A mount precedes the mounts on top of it. Mount points are seen from the process's root
    /// directory.
    /// </summary>
    public IReadOnlyList<MountEntry> Mounts => mounts ??= MountTable.ParseAll(Table);

    /// <summary>
    /// Enumerates every namespace in which this process sees processes and whose mounts it may read, its own first, each
    /// once.
    /// </summary>
    /// <remarks>
    /// The namespaces are read one by one, as they are asked for. If the namespace of a process may not be known, its
    /// mounts are not read.
    /// </remarks>
    /// <param name="withThreads">Whether to examine each thread of each process, and not only its first.</param>
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
            List<int> others = withThreads ? Processes.NumbersIn($"/proc/{process}/task") : [];
            foreach (string one in (IEnumerable<string>)
                [process, .. others.Where(thread => thread != pid).Select(thread => $"{process}/task/{thread}")])
            {
                ulong id = Processes.NamespaceOf(one, "mnt");
                // A process that is ending has no root directory, and shows no mounts: the next process of the namespace
                // may.
                if (seen.Contains(id) || !TryRead(id, one, out MountNamespace? space)) { continue; }
                seen.Add(id);
                yield return space;
            }
        }
    }

    /// <summary>Reads a namespace without processes, by entering it.</summary>
    /// <param name="id">The namespace's inode number.</param>
    /// <param name="ways">
    /// The paths that lead to it: bind mounts of namespace files, or descriptors of them. The first is a path from here;
    /// each further one is a path in the namespace that the path before it leads to.
    /// </param>
    /// <returns>Null when the namespace may not be entered.</returns>
    public static MountNamespace? Enter(ulong id, IReadOnlyList<string> ways)
    {
        using MountNamespace? entered = EnterAndHold(id, ways);
        return entered;
    }

    /// <summary>Reads a namespace as <see cref="Enter"/> does, and holds its root directory.</summary>
    private static MountNamespace? EnterAndHold(ulong id, IReadOnlyList<string> ways)
    {
        if (Libc.OpenAt(Libc.AtCwd, "/proc\0"u8, OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None, out int proc).IsError)
        {
            return null;
        }
        using var processes = new Fd(proc);
        byte[] table = [];
        int top = -1;
        // A separate thread enters and ends there. In the namespace there may be no /proc.
        var thread = new Thread(() =>
        {
            if (Libc.UnshareFileSystemAttributes().IsError) { return; }
            foreach (string way in ways)
            {
                if (Libc.OpenAt(Libc.AtCwd, PathText.Encode(way), OpenFlags.ReadOnly | OpenFlags.NonBlock, 0, ResolveFlags.None,
                    out int opened).IsError)
                {
                    return;
                }
                using var space = new Fd(opened);
                if (Libc.EnterMountNamespace(opened).IsError) { return; }
            }
            // best effort: without the table, the namespace is left out
            _ = Libc.ReadWhole(proc, "thread-self/mountinfo\0"u8, out table);
            // best effort: without its root, no path in it is followed
            _ = Libc.OpenAt(Libc.AtCwd, "/\0"u8, OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None, out top);
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

    /// <summary>Finds the topmost mount at a path of the namespace, or null.</summary>
    public MountEntry? Covering(string path) => MountTable.Covering(Table, path);
}
