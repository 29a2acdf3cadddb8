using System.Globalization;
using Veneer.Linux;

namespace Veneer.Overlay.Host;

/// <summary>A mount namespace that a process lives in, with its mounts as that process sees them.</summary>
/// <param name="Id">The namespace's inode number; 0 when it may not be known.</param>
/// <param name="Process">The process through which it is seen: a number, or <c>self</c>.</param>
/// <param name="Table">The mounts, as the kernel writes them.</param>
internal sealed record MountNamespace(ulong Id, string Process, byte[] Table)
{
    private List<MountEntry>? mounts;

    /// <summary>Its mounts, parents before what is mounted on them; mount points are seen from the process's root directory.</summary>
    public IReadOnlyList<MountEntry> Mounts => mounts ??= MountTable.ParseAll(Table);

    /// <summary>Every namespace whose mounts this process may read, its own first, each once.</summary>
    /// <remarks>Lazily: whoever has seen enough stops. Without the right to know which namespace a process is in, its mounts are not read.</remarks>
    public static IEnumerable<MountNamespace> Visible()
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
            ulong id = Processes.NamespaceOf(process, "mnt");
            // One that has no root directory any more, since it ends, shows no mounts: the next one of the namespace may.
            if (seen.Contains(id) || !TryRead(id, process, out MountNamespace? space)) { continue; }
            seen.Add(id);
            yield return space;
        }
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
