using System.Globalization;
using System.Runtime.InteropServices;
using Veneer.Linux;
using Veneer.Overlay.Host;

namespace Veneer.Overlay.Usage;

/// <summary>Finds the files that the kernel itself uses: those of loop devices, and swap files.</summary>
/// <param name="mounts">The mounts of the machine.</param>
/// <param name="gaps">Receives a sentence about what could not be examined.</param>
internal sealed class KernelFiles(HostMounts mounts, List<string> gaps)
{
    /// <summary>Finds the loop devices whose file lies in a held object.</summary>
    public List<FileHolder> LoopDevices(HeldObject target)
    {
        var found = new List<FileHolder>();
        if (Libc.OpenAt(Libc.AtCwd, "/sys/block\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None,
            out int blocks).IsError)
        {
            gaps.Add("Loop devices are not looked at, since there is no /sys: mount it.");
            return found;
        }
        using var directory = new Fd(blocks);
        using var reader = new DirectoryReader(blocks);
        while (reader.MoveNext())
        {
            if (!reader.Name.StartsWith("loop"u8)) { continue; }
            string name = PathText.Decode(reader.Name);
            Errno error = Libc.ReadWhole(blocks, PathText.Encode($"{name}/loop/backing_file"), out byte[] content);
            if (error == Errno.ENOENT) { continue; } // the loop device has no file
            string path = content is [.., (byte)'\n'] ? PathText.Decode(content.AsSpan()[..^1]) : "";
            string? device = DeviceOf(name);
            if (device is not null && !mounts.All.Any(entry => entry.Device == device)) { device = null; } // the device of a subvolume
            List<(MountEntry Mount, string? Inside)> ways = WaysTo(path, size: null);
            bool isIn = device is null
                ? ways.Count > 0 && target.Has(ways[0].Mount.Device, ways[0].Inside)
                : target.Has(device, ways.Find(way => way.Mount.Device == device).Inside);
            if (isIn) { found.Add(new FileHolder(path, $"/dev/{name}")); }
        }
        return found;
    }

    /// <summary>The number of the device that holds a loop device's file; null when it cannot be determined.</summary>
    private static string? DeviceOf(string loop)
    {
        const uint getStatus = 0x4C05; // LOOP_GET_STATUS64
        const int patience = 2000;
        if (Libc.OpenAt(Libc.AtCwd, PathText.Encode($"/dev/{loop}"), OpenFlags.ReadOnly | OpenFlags.NonBlock, 0, ResolveFlags.None,
            out int opened).IsError)
        {
            return null;
        }
        string? number = null;
        // The kernel asks the file's filesystem, whose server may hang: then the thread is left behind.
        var thread = new Thread(() =>
        {
            using var device = new Fd(opened);
            var status = default(LoopStatus);
            if (!Libc.Ioctl(opened, getStatus, ref status, out _).IsError)
            {
                Volatile.Write(ref number, string.Create(CultureInfo.InvariantCulture,
                    $"{DeviceNumber.Major((uint)status.Device)}:{DeviceNumber.Minor((uint)status.Device)}"));
            }
        }) { IsBackground = true };
        thread.Start();
        return thread.Join(patience) ? Volatile.Read(ref number) : null;
    }

    /// <summary><c>struct loop_info64</c>: only its first member is used, the device that holds the file.</summary>
    [StructLayout(LayoutKind.Sequential, Size = 232)]
    private struct LoopStatus
    {
        public ulong Device;
    }

    /// <summary>Finds the swap files in a held object.</summary>
    public List<FileHolder> SwapFiles(HeldObject target)
    {
        var found = new List<FileHolder>();
        if (Libc.ReadWhole("/proc/swaps\0"u8, out byte[] content).IsError) { return found; }
        ReadOnlySpan<byte> rest = content;
        _ = MountTable.NextLine(ref rest); // the column headers
        while (rest.Length > 0)
        {
            // /path with\040blank    file    2044    0    -2
            string[] fields = PathText.Decode(MountTable.NextLine(ref rest)).Split([' ', '\t'], StringSplitOptions.RemoveEmptyEntries);
            if (fields is not [var name, "file", var size, ..]
                || !ulong.TryParse(size, NumberStyles.None, CultureInfo.InvariantCulture, out ulong kibibytes))
            {
                continue;
            }
            string path = MountTable.Unescape(PathText.Encode(name).AsSpan()[..^1]);
            List<(MountEntry Mount, string? Inside)> ways = WaysTo(path, kibibytes);
            if (ways.Count > 0 && target.Has(ways[0].Mount.Device, ways[0].Inside)) { found.Add(new FileHolder(path)); }
        }
        return found;
    }

    /// <summary>
    /// Finds where a path may lead. The kernel tells such a path without its mount namespace. The likeliest place comes
    /// first.
    /// </summary>
    /// <param name="path">The path of a regular file.</param>
    /// <param name="size">The file's size in units of 1024 bytes, without its first page; null when unknown.</param>
    /// <returns>The places where the file exists, and then those where it cannot be seen, since it may be unlinked.</returns>
    private List<(MountEntry Mount, string? Inside)> WaysTo(string path, ulong? size)
    {
        var ways = new List<(MountEntry, string?)>();
        var others = new List<(MountEntry, string?)>();
        if (!path.StartsWith('/')) { return ways; }
        foreach (MountNamespace space in mounts.Spaces)
        {
            if (space.Covering(path) is not { } covering) { continue; }
            (HostMounts.MayHang(covering) || IsThere(space, path, size) ? ways : others).Add((covering, Place.InsideOf(covering, path)));
        }
        ways.AddRange(others);
        return ways;

        static bool IsThere(MountNamespace space, string path, ulong? size)
        {
            const ulong largestPage = 64;
            return space.Process.Length > 0
                && !Libc.StatAt(Libc.AtCwd, PathText.Encode($"/proc/{space.Process}/root{path}"), StatxMask.Basic, out Statx stat).IsError
                && stat.IsRegular
                && (size is not { } expected || (stat.Size / 1024 >= expected && stat.Size / 1024 <= expected + largestPage));
        }
    }
}
