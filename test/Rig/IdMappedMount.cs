using System.Diagnostics;
using Veneer.Linux;

namespace Veneer.Rig;

/// <summary>Bind mounts with an id mapping. See mount_setattr(2).</summary>
public static unsafe class IdMappedMount
{
    /// <summary>Mounts a directory elsewhere, where its owners have other numbers.</summary>
    /// <param name="directory">What to mount.</param>
    /// <param name="at">Where to; it must exist.</param>
    /// <param name="map">As in <c>/proc/PID/uid_map</c>: numbers on disk, numbers that are seen, how many.</param>
    public static void Make(FilePath directory, FilePath at, string map)
    {
        const long openTree = 428, moveMount = 429, mountSetAttributes = 442;
        const int clone = 1, emptyPath = 0x1000, fromEmptyPath = 4, atCwd = -100;
        const ulong idMap = 0x100000;
        using Process holder = Programs.Start("unshare", "--user", "sleep", "60");
        try
        {
            FilePath process = $"/proc/{holder.Id}";
            string own = Sys.ReadLink("/proc/self/ns/user");
            while (Sys.ReadLink(process / "ns/user") == own) { Thread.Sleep(1); }
            foreach (string file in (string[])["uid_map", "gid_map"]) { File.WriteAllText((process / file).Text, map + "\n"); }
            SysException.ThrowIf(
                Libc.OpenAt(Libc.AtCwd, (process / "ns/user").Bytes, OpenFlags.ReadOnly, 0, ResolveFlags.None, out int space),
                "open(ns/user)");
            using var opened = new Fd(space);
            ulong* attributes = stackalloc ulong[4] { idMap, 0, 0, (ulong)space };
            fixed (byte* from = directory.Bytes, to = at.Bytes, none = "\0"u8)
            {
                long tree = Native.syscall(openTree, atCwd, (nint)from, clone, 0, 0, 0);
                SysException.ThrowIf(Native.Check(tree), $"open_tree({directory})");
                SysException.ThrowIf(
                    Native.Check(
                        Native.syscall(mountSetAttributes, (nint)tree, (nint)none, emptyPath, (nint)attributes, 4 * sizeof(ulong), 0)),
                    $"mount_setattr({directory})");
                SysException.ThrowIf(Native.Check(Native.syscall(moveMount, (nint)tree, (nint)none, atCwd, (nint)to, fromEmptyPath, 0)),
                    $"move_mount({at})");
                Libc.Close((int)tree);
            }
        }
        finally
        {
            holder.Kill();
            holder.WaitForExit();
        }
    }
}
