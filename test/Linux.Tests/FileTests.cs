namespace Veneer.Linux.Tests;

/// <summary>Content of files.</summary>
public sealed class FileTests : IDisposable
{
    private const int Block = 4096;

    private readonly TemporaryDirectory directory = new();

    public void Dispose() => directory.Dispose();

    [Fact]
    public void Bytes_are_written_and_read_at_offsets()
    {
        using Fd file = directory.Open("file", OpenFlags.Create | OpenFlags.ReadWrite, 0x180);

        Assert.Equal(Errno.None, Libc.Write(file.Value, "hello "u8, out int count));
        Assert.Equal(6, count);
        Assert.Equal(Errno.None, Libc.Write(file.Value, "world"u8, out _));
        Assert.Equal(Errno.None, Libc.WriteAt(file.Value, "H"u8, 0, out count));
        Assert.Equal(1, count);

        byte[] buffer = new byte[32];
        Assert.Equal(Errno.None, Libc.ReadAt(file.Value, buffer, 6, out count));
        Assert.Equal("world"u8, buffer.AsSpan(0, count));
        Assert.Equal(Errno.None, Libc.ReadAt(file.Value, buffer, 100, out count));
        Assert.Equal(0, count);
        Assert.Equal("Hello world", directory.Read("file"));
    }

    [Fact]
    public void A_file_is_cut_and_grown()
    {
        directory.Write("file", "content");
        using Fd file = directory.Open("file", OpenFlags.WriteOnly);

        Assert.Equal(Errno.None, Libc.Truncate(file.Value, 3));
        Assert.Equal("con", directory.Read("file"));
        Assert.Equal(Errno.None, Libc.Truncate(file.Value, 5));
        Assert.Equal("con\0\0", directory.Read("file"));
        Assert.Equal(Errno.EINVAL, Libc.Truncate(file.Value, -1));
    }

    [Fact]
    public void Space_is_allocated_and_given_back()
    {
        using Fd file = directory.Open("file", OpenFlags.Create | OpenFlags.ReadWrite, 0x180);

        Assert.Equal(Errno.None, Libc.Allocate(file.Value, AllocateMode.Default, 0, 2 * Block));
        Assert.Equal(2u * Block, directory.Stat("file").Size);
        Assert.Equal(Errno.None, Libc.Allocate(file.Value, AllocateMode.KeepSize, 0, 4 * Block));
        Assert.Equal(2u * Block, directory.Stat("file").Size);
        Assert.Equal(4u * Block / 512, directory.Stat("file").Blocks);

        Assert.Equal(Errno.None, Libc.WriteAt(file.Value, "xxxx"u8, 0, out _));
        Assert.Equal(Errno.None, Libc.Allocate(file.Value, AllocateMode.PunchHole | AllocateMode.KeepSize, 0, Block));
        Assert.Equal(3u * Block / 512, directory.Stat("file").Blocks);
        byte[] buffer = new byte[4];
        Assert.Equal(Errno.None, Libc.ReadAt(file.Value, buffer, 0, out _));
        Assert.Equal(new byte[4], buffer);
        Assert.Equal(Errno.EOPNOTSUPP, Libc.Allocate(file.Value, AllocateMode.PunchHole, 0, Block)); // only with KeepSize
    }

    [Fact]
    public void Data_and_holes_are_found()
    {
        using Fd file = directory.Open("file", OpenFlags.Create | OpenFlags.ReadWrite, 0x180);
        Assert.Equal(Errno.None, Libc.WriteAt(file.Value, "x"u8, 4 * Block, out _));
        Assert.Equal(Errno.None, Libc.Truncate(file.Value, 8 * Block));

        Assert.Equal(Errno.None, Libc.Seek(file.Value, 0, SeekWhence.Data, out long position));
        Assert.Equal(4 * Block, position);
        Assert.Equal(Errno.None, Libc.Seek(file.Value, 4 * Block, SeekWhence.Hole, out position));
        Assert.Equal(5 * Block, position);
        Assert.Equal(Errno.ENXIO, Libc.Seek(file.Value, 5 * Block, SeekWhence.Data, out _));
        Assert.Equal(Errno.None, Libc.Seek(file.Value, 7, SeekWhence.Set, out position));
        Assert.Equal(7, position);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Files_and_directories_are_synced(bool dataOnly)
    {
        using Fd file = directory.Open("file", OpenFlags.Create | OpenFlags.ReadWrite, 0x180);

        Assert.Equal(Errno.None, Libc.Sync(file.Value, dataOnly));
        Assert.Equal(Errno.None, Libc.Sync(directory.Descriptor, dataOnly));
    }

    [Fact]
    public void A_range_is_copied_and_both_offsets_move()
    {
        directory.Write("source", "0123456789");
        using Fd source = directory.Open("source", OpenFlags.ReadOnly);
        using Fd target = directory.Open("target", OpenFlags.Create | OpenFlags.ReadWrite, 0x180);
        long from = 2, to = 1;

        Assert.Equal(Errno.None, Libc.CopyFileRange(source.Value, ref from, target.Value, ref to, 5, out long copied));

        Assert.Equal((5, 7, 6), (copied, from, to));
        Assert.Equal("\0" + "23456", directory.Read("target"));
        Assert.Equal(Errno.None, Libc.CopyFileRange(source.Value, ref from, target.Value, ref to, 100, out copied));
        Assert.Equal((3, 10), (copied, from));
        Assert.Equal(Errno.None, Libc.CopyFileRange(source.Value, ref from, target.Value, ref to, 100, out copied));
        Assert.Equal(0, copied);
        Assert.Equal(Errno.EBADF, Libc.CopyFileRange(source.Value, ref from, source.Value, ref to, 1, out _));
    }

    [Fact]
    public void A_clone_shares_all_blocks_where_the_filesystem_can()
    {
        string? makeBtrfs = Command.Find("mkfs.btrfs");
        Needs.That(File.Exists("/dev/loop-control") && makeBtrfs is not null, "loop devices and mkfs.btrfs");
        OwnThread.RunWithPrivateMounts(() =>
        {
            using (FileStream image = File.Create(directory.Path + "/image")) { image.SetLength(300 << 20); }
            Directory.CreateDirectory(directory.Path + "/mount");
            Command.Run(makeBtrfs!, "-q", directory.Path + "/image");
            Command.Run("mount", "-o", "loop", directory.Path + "/image", directory.Path + "/mount");
            try
            {
                // Opened by path: the directory's descriptor belongs to the mounts outside.
                directory.Write("mount/source", new string('x', 100_000));
                using (Fd source = Open("/mount/source", OpenFlags.ReadOnly, 0),
                    target = Open("/mount/target", OpenFlags.Create | OpenFlags.ReadWrite, 0x180))
                {
                    Assert.Equal(Errno.None, Libc.Clone(target.Value, source.Value));
                }
                Assert.Equal(new string('x', 100_000), directory.Read("mount/target"));
            }
            finally
            {
                Assert.Equal(Errno.None, Libc.Unmount(TemporaryDirectory.Name(directory.Path + "/mount"), lazy: false));
            }
        });

        Fd Open(string name, OpenFlags flags, uint mode)
        {
            byte[] path = TemporaryDirectory.Name(directory.Path + name);
            Assert.Equal(Errno.None, Libc.OpenAt(Libc.AtCwd, path, flags, mode, ResolveFlags.None, out int descriptor));
            return new Fd(descriptor);
        }
    }

    [Fact]
    public void A_clone_of_a_directory_is_refused()
    {
        using Fd target = directory.Open("target", OpenFlags.Create | OpenFlags.ReadWrite, 0x180);

        Assert.True(Libc.Clone(target.Value, directory.Descriptor).IsError);
        Assert.Equal(Errno.EBADF, Libc.Clone(target.Value, -1));
    }

    [Fact]
    public void An_exclusive_lock_is_not_given_twice()
    {
        using Fd first = directory.Open("file", OpenFlags.Create | OpenFlags.ReadWrite, 0x180);
        using Fd second = directory.Open("file", OpenFlags.ReadWrite);

        Assert.Equal(Errno.None, Libc.TryLockExclusive(first.Value));
        Assert.Equal(Errno.EAGAIN, Libc.TryLockExclusive(second.Value));
        first.Dispose();
        Assert.Equal(Errno.None, Libc.TryLockExclusive(second.Value));
    }

    [Fact]
    public void What_goes_into_a_pipe_comes_out_of_it()
    {
        Assert.Equal(Errno.None, Libc.Pipe(out int readEnd, out int writeEnd));
        using Fd reader = new(readEnd), writer = new(writeEnd);

        Assert.Equal(Errno.None, Libc.Write(writer.Value, "through"u8, out _));
        writer.Dispose();

        byte[] buffer = new byte[16];
        Assert.Equal(Errno.None, Libc.Read(reader.Value, buffer, out int count));
        Assert.Equal("through"u8, buffer.AsSpan(0, count));
        Assert.Equal(Errno.None, Libc.Read(reader.Value, buffer, out count));
        Assert.Equal(0, count);
    }

    [Fact]
    public void An_ioctl_takes_a_structure_or_a_number()
    {
        const ulong getFlags = 0x80086601, pipeBytes = 0x541B; // FS_IOC_GETFLAGS, FIONREAD
        directory.Write("file", "content");
        using Fd file = directory.Open("file", OpenFlags.ReadOnly);
        long flags = -1;
        Assert.Contains(Libc.Ioctl(file.Value, getFlags, ref flags, out int result), new[] { Errno.None, Errno.ENOTTY });
        Assert.True(result is 0 or -1);

        uint available = 0;
        Assert.Equal(Errno.None, Libc.Ioctl(file.Value, pipeBytes, ref available, out _));
        Assert.Equal(7u, available);
        Assert.Equal(Errno.ENOTTY, Libc.Ioctl(file.Value, 0x40049409 + 0x100, 0, out result)); // no such request
        Assert.Equal(-1, result);
    }

    [Fact]
    public void The_filesystem_of_a_descriptor_is_described()
    {
        Assert.Equal(Errno.None, Libc.StatFileSystem(directory.Descriptor, out StatFs stat));

        Assert.Equal(255, stat.NameLength);
        Assert.InRange(stat.BlocksAvailable, 1u, stat.Blocks);
        Assert.InRange(stat.BlocksFree, stat.BlocksAvailable, stat.Blocks);
        var drive = new DriveInfo(directory.Path);
        Assert.Equal(drive.TotalSize, (long)stat.Blocks * stat.FragmentSize);
        Assert.Equal(Errno.EBADF, Libc.StatFileSystem(-1, out _));
    }
}
