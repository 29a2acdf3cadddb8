using Veneer.Linux;

namespace Veneer.Overlay.Layers;

/// <summary>Makes a private copy of the mount that holds upper and work, rooted where both can be reached.</summary>
/// <remarks>A rename between two copies of a mount gives EXDEV, so upper and work must be reached through one copy.</remarks>
internal static class CommonMount
{
    private const int MaxPath = 4096;

    /// <summary>Copies the mount.</summary>
    /// <param name="upper">A descriptor of upper.</param>
    /// <param name="work">A descriptor of work, in the same mount.</param>
    /// <param name="mount">A descriptor of the copy, which the caller closes; -1 after a failure.</param>
    /// <param name="upperPath">The path of upper from the copy's root, without a NUL.</param>
    /// <param name="workPath">The path of work from the copy's root, without a NUL.</param>
    /// <returns>False when a private copy is refused, or the directories cannot be found in it.</returns>
    public static bool TryClone(int upper, int work, out int mount, out byte[] upperPath, out byte[] workPath)
    {
        mount = -1;
        upperPath = workPath = [];
        if (!TryPath(upper, out byte[] fromUpper) || !TryPath(work, out byte[] fromWork)) { return false; }
        int common = CommonLength(fromUpper, fromWork);
        byte[] ancestor = common == 0 ? [(byte)'/', 0] : [.. fromUpper[..common], 0];
        if (Libc.OpenAt(Libc.AtCwd, ancestor, OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None, out int directory).IsError)
        {
            return false;
        }
        Errno error = SameMount(directory, upper) ? Libc.CloneMount(directory, out mount) : Errno.EXDEV;
        Libc.Close(directory);
        if (error.IsError) { return false; }
        upperPath = fromUpper[(common + 1)..];
        workPath = fromWork[(common + 1)..];
        if (IsSame(mount, upperPath, upper) && IsSame(mount, workPath, work))
        {
            _ = Libc.SetMountAttributes(mount, MountAttributes.NoDevices, MountAttributes.None); // best effort: nothing opens a device
            return true;
        }
        Libc.Close(mount);
        mount = -1;
        return false;
    }

    /// <summary>The way in which a mount with these flags keeps access times, as attributes for mount_setattr(2).</summary>
    public static MountAttributes TimesOf(MountFlags flags) =>
        ((flags & (MountFlags.NoAccessTime | MountFlags.ReadOnly)) != 0 ? MountAttributes.NoAccessTime
        : (flags & MountFlags.StrictAccessTime) != 0 ? MountAttributes.StrictAccessTime
        : MountAttributes.None)
        | ((flags & MountFlags.NoDirectoryAccessTime) != 0 ? MountAttributes.NoDirectoryAccessTime : MountAttributes.None);

    /// <summary>The relative path from one directory to another, without a NUL; empty when it cannot be determined.</summary>
    public static byte[] PathFrom(int from, int to)
    {
        if (!TryPath(from, out byte[] start) || !TryPath(to, out byte[] end)) { return []; }
        int common = CommonLength([.. start, (byte)'/'], [.. end, (byte)'/']);
        var path = new List<byte>();
        for (int i = common; i < start.Length; i++)
        {
            if (start[i] == '/') { path.AddRange("../"u8); }
        }
        return [.. path, .. end[Math.Min(common + 1, end.Length)..]];
    }

    private static bool TryPath(int descriptor, out byte[] path)
    {
        Span<byte> link = stackalloc byte[32];
        "/proc/self/fd/"u8.CopyTo(link);
        _ = System.Buffers.Text.Utf8Formatter.TryFormat(descriptor, link[14..], out int digits); // cannot fail: 11 digits fit
        link[14 + digits] = 0;
        Span<byte> target = stackalloc byte[MaxPath];
        Errno error = Libc.ReadLinkAt(Libc.AtCwd, link[..(15 + digits)], target, out int length);
        path = error.IsError || length == MaxPath ? [] : target[..length].ToArray();
        return path.Length > 1 && path[0] == '/';
    }

    /// <summary>The length of the longest directory that both paths start with, without its slash.</summary>
    private static int CommonLength(ReadOnlySpan<byte> a, ReadOnlySpan<byte> b)
    {
        int same = a.CommonPrefixLength(b);
        while (same > 0 && !(a[same - 1] == '/')) { same--; }
        return Math.Max(0, same - 1);
    }

    private static bool SameMount(int a, int b) =>
        !Libc.StatAt(a, Libc.Self, StatxMask.Basic | StatxMask.MountId, out Statx first).IsError
        && !Libc.StatAt(b, Libc.Self, StatxMask.Basic | StatxMask.MountId, out Statx second).IsError
        && first.MountId == second.MountId;

    private static bool IsSame(int mount, ReadOnlySpan<byte> path, int expected) =>
        !Libc.StatAt(mount, [.. path, 0], StatxMask.Basic, out Statx found).IsError
        && !Libc.StatAt(expected, Libc.Self, StatxMask.Basic, out Statx wanted).IsError
        && found.Ino == wanted.Ino && found.Dev == wanted.Dev;
}
