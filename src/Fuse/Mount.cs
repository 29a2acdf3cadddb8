using System.Globalization;
using System.Text;
using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>A filesystem cannot be mounted or unmounted. The message is one sentence for the user.</summary>
public class MountException : Exception
{
    /// <summary>Makes an exception without a message.</summary>
    public MountException() { }

    /// <summary>Makes an exception with its sentence.</summary>
    public MountException(string message) : base(message) { }

    /// <summary>Makes an exception with its sentence and its cause.</summary>
    public MountException(string message, Exception innerException) : base(message, innerException) { }
}

/// <summary>The options for mounting a filesystem.</summary>
public sealed record MountOptions
{
    /// <summary>The source that mount tables show.</summary>
    public required string Source { get; init; }

    /// <summary>The type that mount tables show after <c>fuse.</c>.</summary>
    public string Subtype { get; init; } = "veneer";

    /// <summary>The flags of the mount.</summary>
    public MountFlags Flags { get; init; }

    /// <summary>Whether users other than the mounter may use the mount. Null: yes for root, no for other users.</summary>
    public bool? AllowOther { get; init; }
}

/// <summary>A mount: the place of one connection in the tree of mounts.</summary>
/// <remarks>
/// With the right to mount, mount(2) is called; otherwise fusermount3 mounts for us. The kernel always checks permissions
/// (default_permissions). No descriptor of the mount itself is ever held: a server that waits for itself waits for ever.
/// </remarks>
public sealed class Mount
{
    private Mount(Device device, string mountPoint, MountEntry? entry)
    {
        Device = device;
        MountPoint = mountPoint;
        Id = entry?.Id ?? -1;
        DeviceNumber = entry?.Device ?? "";
    }

    /// <summary>The device of the connection, from which INIT can be read. The caller owns it.</summary>
    public Device Device { get; }

    /// <summary>The mount point: an absolute path without symbolic links.</summary>
    public string MountPoint { get; }

    /// <summary>The mount id in mountinfo; -1 when that cannot be read.</summary>
    public int Id { get; }

    /// <summary>
    /// The device number in mountinfo, <c>MAJOR:MINOR</c>, which bind mounts share; empty when that cannot be read.
    /// </summary>
    public string DeviceNumber { get; }

    /// <summary>Mounts. From now on, any access to the mount point waits until the connection is served.</summary>
    /// <exception cref="MountException">The filesystem cannot be mounted; nothing has changed.</exception>
    public static Mount Attach(string mountPoint, MountOptions options)
    {
        int opened = OpenMountPoint(mountPoint, out uint type);
        using var target = new Fd(opened);
        string path = Resolve(target.Value, mountPoint);

        Device? device = AttachDirectly(target.Value, path, type, options) ?? AttachThroughHelper(path, options);
        return new Mount(device, path, Find(path));
    }

    /// <summary>
    /// The descriptor in a mount point of libfuse's form <c>/dev/fd/N</c>: a connection that another process has mounted.
    /// </summary>
    /// <returns>-1 when the mount point has another form, or the descriptor is not of /dev/fuse.</returns>
    public static int DescriptorOf(string mountPoint) =>
        mountPoint.StartsWith(DescriptorPrefix, StringComparison.Ordinal)
        && int.TryParse(mountPoint.AsSpan(DescriptorPrefix.Length), NumberStyles.None, CultureInfo.InvariantCulture, out int descriptor)
        && IsFuse(descriptor)
            ? descriptor
            : -1;

    private const string DescriptorPrefix = "/dev/fd/";

    /// <summary>
    /// Takes over a connection that another process has mounted. Its mount point is found where the kernel tells the
    /// connection's number (Linux 6.15).
    /// </summary>
    /// <param name="descriptor">A descriptor of /dev/fuse, owned by the mount from now on.</param>
    /// <param name="name">The mount point to show where it cannot be found.</param>
    public static Mount Adopt(int descriptor, string name)
    {
        MountEntry? entry = null;
        if (!Libc.ReadWhole(PathText.Encode($"/proc/self/fdinfo/{descriptor}"), out byte[] text).IsError
            && MountTable.Read(out List<MountEntry> table) == Errno.None)
        {
            const string field = "fuse_connection:";
            string? line = PathText.Decode(text).Split('\n').FirstOrDefault(line => line.StartsWith(field, StringComparison.Ordinal));
            if (line is not null) { entry = table.Find(entry => entry.Device == $"0:{line[field.Length..].Trim()}"); }
        }
        return new Mount(new Device(new Fd(descriptor)), entry?.MountPoint ?? name, entry);
    }

    /// <summary>Unmounts, lazily when the mount is busy. The connection ends when the mount's last user has gone.</summary>
    /// <returns>
    /// <see cref="Errno.ENOENT"/> when it is not mounted any more, <see cref="Errno.EBUSY"/> when another mount covers it.
    /// </returns>
    public Errno Detach()
    {
        Errno error = MountTable.Read(out List<MountEntry> table);
        if (error.IsError) { return error; }
        string? path = null;
        MountEntry? top = null;
        foreach (MountEntry entry in table)
        {
            // The original mount point if it is still there, otherwise wherever the mount was moved to.
            if (entry.Device == DeviceNumber && path != MountPoint) { path = entry.MountPoint; }
        }
        if (path is null || !(IsConnected || isAborted)) { return Errno.ENOENT; }
        foreach (MountEntry entry in table)
        {
            if (entry.MountPoint == path) { top = entry; }
        }
        if (top!.Device != DeviceNumber) { return Errno.EBUSY; }
        error = Unmount(path, lazy: false);
        return error == Errno.EBUSY ? Unmount(path, lazy: true) : error;
    }

    /// <summary>
    /// Ends the connection while the mount stays. Callers that wait for an answer get ECONNABORTED, later ones ENOTCONN.
    /// </summary>
    /// <returns>An error when only the end of this process can end the connection. None also when it had ended before.</returns>
    public Errno Abort()
    {
        string number = DeviceNumber[(DeviceNumber.IndexOf(':', StringComparison.Ordinal) + 1)..];
        if (number.Length == 0) { return Errno.ENOENT; }
        // A detached mount of our own. A process that may not make one uses the system's mount.
        Errno error = Libc.OpenFileSystem("fusectl\0"u8, out int context);
        int connections = -1;
        if (!error.IsError)
        {
            using var setUp = new Fd(context);
            error = Libc.MountFileSystem(context, out connections);
        }
        using var mounted = new Fd(error.IsError ? -1 : connections);
        error = error.IsError
            ? Libc.OpenAt(Libc.AtCwd, PathText.Encode($"/sys/fs/fuse/connections/{number}/abort"), OpenFlags.WriteOnly, 0,
                ResolveFlags.None, out int abort)
            : Libc.OpenAt(connections, PathText.Encode($"{number}/abort"), OpenFlags.WriteOnly, 0, ResolveFlags.None, out abort);
        using var opened = new Fd(abort);
        if (!IsConnected) { return Errno.None; } // the number may be another connection's by now
        if (!error.IsError) { error = Libc.Write(abort, "1"u8, out _); }
        isAborted |= !error.IsError;
        return error;
    }

    /// <summary>Whether this process has aborted the connection, while the mount stays.</summary>
    private volatile bool isAborted;

    /// <summary>Whether the connection lives. Once it has ended, the kernel may recycle its device number.</summary>
    /// <remarks>
    /// Code that has found a mount by the device number asks this afterwards: if true, that mount was this one. Kernel:
    /// fuse_dev_poll().
    /// </remarks>
    private bool IsConnected => Device.Descriptor >= 0 && !Libc.Poll(Device.Descriptor, default, 0, out bool hasEnded).IsError && !hasEnded;

    /// <summary>Unmounts a path, with fusermount3 when this process lacks the right.</summary>
    /// <param name="path">An absolute path without symbolic links.</param>
    /// <param name="lazy">Whether to detach the mount now and end it when its last user has gone.</param>
    public static Errno Unmount(string path, bool lazy)
    {
        Errno error = Libc.Unmount(PathText.Encode(path), lazy);
        if (error != Errno.EPERM) { return error; }
        error = RunHelper(lazy ? ["-u", "-q", "-z", "--", path] : ["-u", "-q", "--", path], -1, out int exitCode, out string complaint);
        if (error.IsError) { return Errno.EPERM; }
        if (exitCode == 0) { return Errno.None; }
        return complaint.Contains("busy", StringComparison.Ordinal) ? Errno.EBUSY : Errno.EPERM;
    }

    private static int OpenMountPoint(string mountPoint, out uint type)
    {
        Errno error = Libc.OpenAt(Libc.AtCwd, PathText.Encode(mountPoint), OpenFlags.Path | OpenFlags.Directory, 0,
            ResolveFlags.None, out int descriptor);
        type = FileType.Directory;
        if (!error.IsError)
        {
            error = Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic, out Statx status);
            type = status.Type;
            if (!error.IsError) { return descriptor; }
            Libc.Close(descriptor);
        }
        throw new MountException(error switch
        {
            Errno.ENOENT => $"The mount point {mountPoint} does not exist: create it with mkdir.",
            Errno.ENOTDIR => $"The mount point {mountPoint} is not a directory: choose one that is.",
            Errno.ENOTCONN or Errno.ECONNREFUSED =>
                $"The mount point {mountPoint} is still a mount whose server is gone: unmount that first, with umount.",
            Errno.EACCES => $"The mount point {mountPoint} cannot be reached: choose one that this user may use.",
            _ => error.Explain($"The mount point {mountPoint} cannot be used ({error}): choose another one."),
        });
    }

    private static string Resolve(int descriptor, string mountPoint)
    {
        Span<byte> buffer = stackalloc byte[4096];
        Errno error = Libc.ReadLinkAt(Libc.AtCwd, PathText.Encode($"/proc/self/fd/{descriptor}"), buffer, out int length);
        if (error == Errno.ENAMETOOLONG)
        {
            throw new MountException(
                $"The full name of the mount point {mountPoint} is too long for the kernel: choose one that is not so deep.");
        }
        if (error.IsError)
        {
            throw new MountException($"The mount point {mountPoint} cannot be resolved, since /proc is not mounted: mount it.");
        }
        return PathText.Decode(buffer[..length]);
    }

    /// <summary>Mounts with mount(2). Null when we lack the right.</summary>
    private static Device? AttachDirectly(int target, string path, uint type, MountOptions options)
    {
        Errno error = Device.Open(out Device? device);
        switch (error)
        {
            case Errno.None:
                break;
            case Errno.EACCES:
                return null; // fusermount3 may open it
            case Errno.ENOENT:
                throw new MountException("There is no /dev/fuse: load the module with modprobe fuse, or give the container the device.");
            case Errno.ENODEV or Errno.ENXIO:
                throw new MountException("The kernel has no FUSE: load the module with modprobe fuse.");
            case Errno.EPERM:
                throw new MountException("This container may not use /dev/fuse: start it with --device /dev/fuse.");
            default:
                throw new MountException(error.Explain($"/dev/fuse cannot be opened ({error}): see its permissions."));
        }

        bool allowOther = options.AllowOther ?? Libc.EffectiveUid == 0;
        string data = $"fd={device!.Descriptor},rootmode={Convert.ToString(type, 8)},user_id={Libc.EffectiveUid},"
            + $"group_id={Libc.EffectiveGid},default_permissions{(allowOther ? ",allow_other" : "")}";
        error = Libc.Mount(
            PathText.Encode(options.Source), PathText.Encode($"/proc/self/fd/{target}"), PathText.Encode("fuse." + options.Subtype),
            options.Flags, PathText.Encode(data));
        if (!error.IsError) { return device; }

        bool isFuse = IsFuse(device.Descriptor);
        device.Dispose();
        return error switch
        {
            Errno.EPERM or Errno.EACCES => null,
            Errno.ENODEV => throw new MountException("The kernel has no FUSE: load the module with modprobe fuse."),
            Errno.EINVAL when !isFuse =>
                throw new MountException(
                    "/dev/fuse is not the device of FUSE: remove what is there and make it with mknod -m 666 /dev/fuse c 10 229, "
                    + "or give the container the device."),
            Errno.EBUSY => throw new MountException($"The mount point {path} is busy: unmount what is there, or choose another one."),
            _ => throw new MountException($"The kernel refuses to mount on {path} ({error}): choose another mount point, or see dmesg."),
        };
    }

    private static bool IsFuse(int device) =>
        !Libc.StatAt(device, Libc.Self, StatxMask.Basic, out Statx stat).IsError
        && stat.Type == FileType.CharacterDevice && stat is { RdevMajor: 10, RdevMinor: 229 };

    /// <summary>Mounts with fusermount3, which is set-uid root. See fusermount3(1).</summary>
    private static Device AttachThroughHelper(string path, MountOptions options)
    {
        var words = new StringBuilder("default_permissions");
        // Only options that fusermount3 knows. It adds nosuid and nodev for everyone but root. The newest version refuses
        // relatime and its like.
        foreach ((MountFlags flag, string word) in (ReadOnlySpan<(MountFlags, string)>)[
            (MountFlags.ReadOnly, "ro"), (MountFlags.NoSetUid, "nosuid"), (MountFlags.NoDevices, "nodev"),
            (MountFlags.NoExecute, "noexec"), (MountFlags.Synchronous, "sync"), (MountFlags.DirectorySynchronous, "dirsync"),
            (MountFlags.NoAccessTime, "noatime")])
        {
            if ((options.Flags & flag) != 0) { words.Append(',').Append(word); }
        }
        if (options.AllowOther == true) { words.Append(",allow_other"); }
        words.Append(",subtype=").Append(Escape(options.Subtype)).Append(",fsname=").Append(Escape(options.Source));

        Errno error = Libc.SocketPair(out int ours, out int theirs);
        if (error.IsError)
        {
            throw new MountException(error.Explain($"A socket for fusermount3 cannot be made ({error}): see the limits of this process."));
        }
        using var socket = new Fd(ours);
        int exitCode;
        string complaint;
        using (new Fd(theirs))
        {
            error = RunHelper(["-o", words.ToString(), "--", path], theirs, out exitCode, out complaint);
        }
        if (error == Errno.ENOENT)
        {
            throw new MountException(
                "Only root may mount without fusermount3, and there is none: install it (on Debian, the package fuse3), or "
                + "become root.");
        }
        if (error.IsError)
        {
            throw new MountException(error.Explain($"fusermount3 cannot be started ({error}): see whether it can be run by hand."));
        }
        if (exitCode != 0)
        {
            if (complaint == "failed to open /dev/fuse: Permission denied")
            {
                throw new MountException(
                    "This user may not open /dev/fuse, and fusermount3 opens it for nobody who may not: let root chmod 666 "
                    + "/dev/fuse.");
            }
            throw new MountException(complaint.Length > 0
                ? $"fusermount3 refuses to mount on {path}: {complaint}."
                : $"fusermount3 refuses to mount on {path} (it ended with {exitCode}): see whether it can be run by hand.");
        }
        error = Libc.ReceiveDescriptor(socket.Value, out int descriptor);
        if (error.IsError)
        {
            throw new MountException(error.Explain(
                $"fusermount3 mounted {path} but did not hand over the connection ({error}): unmount it, and install "
                + "libfuse's own fusermount3."));
        }
        return new Device(new Fd(descriptor));
    }

    /// <summary>Escapes a value of an option: fusermount3 splits its options at commas.</summary>
    private static string Escape(string value) =>
        value.Replace("\\", "\\\\", StringComparison.Ordinal).Replace(",", "\\,", StringComparison.Ordinal);

    /// <summary>Runs fusermount3 and waits for it.</summary>
    /// <param name="arguments">The arguments, without the program's name.</param>
    /// <param name="socket">The socket through which fusermount3 hands over the connection, or -1.</param>
    /// <param name="exitCode">The exit status.</param>
    /// <param name="complaint">The last line that it wrote to standard error, without the program's name.</param>
    private static Errno RunHelper(string[] arguments, int socket, out int exitCode, out string complaint)
    {
        const string helper = "fusermount3";
        exitCode = -1;
        complaint = "";
        _ = Libc.ReadWhole("/proc/self/environ\0"u8, out byte[] environment); // best effort: fusermount3 itself searches no PATH
        var variables = new List<byte[]>();
        foreach (Range range in environment.AsSpan().Split((byte)0))
        {
            byte[] variable = environment[range];
            if (variable.Length > 0 && !variable.AsSpan().StartsWith("_FUSE_COMMFD="u8)) { variables.Add(variable); }
        }
        if (socket >= 0) { variables.Add([.. "_FUSE_COMMFD=3"u8]); }

        Errno error = Libc.Pipe(out int readEnd, out int writeEnd);
        if (error.IsError) { return error; }
        using var output = new Fd(readEnd);
        int pid;
        using (new Fd(writeEnd))
        {
            var words = new List<byte[]> { PathText.Encode(helper)[..^1] };
            foreach (string argument in arguments) { words.Add(PathText.Encode(argument)[..^1]); }
            error = Libc.Spawn(
                new SpawnOptions { Program = helper, Arguments = words, Environment = variables, StandardError = writeEnd, Kept = socket },
                out pid);
        }
        if (error.IsError) { return error; }

        byte[] text = new byte[4096];
        int length = 0;
        while (true)
        {
            error = Libc.Read(output.Value, text.AsSpan(length), out int count);
            if (error == Errno.EINTR) { continue; }
            if (error.IsError || count == 0) { break; }
            length += count;
        }
        complaint = PathText.Decode(text.AsSpan(0, length)).TrimEnd();
        complaint = complaint[(complaint.LastIndexOf('\n') + 1)..];
        if (complaint.StartsWith(helper + ": ", StringComparison.Ordinal)) { complaint = complaint[(helper.Length + 2)..]; }
        return Libc.Wait(pid, out exitCode);
    }

    /// <summary>Finds the topmost mount at a path, or null.</summary>
    private static MountEntry? Find(string path)
    {
        _ = MountTable.Read(out List<MountEntry> table); // best effort: without the table we cannot unmount ourselves
        return table.FindLast(entry => entry.MountPoint == path);
    }
}
