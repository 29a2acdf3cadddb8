using Veneer.Fuse;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Overlay.Tests;

/// <summary>Requests whose answer is a matter of system calls make no garbage.</summary>
public sealed class AllocationTests : IDisposable
{
    private const int Rounds = 2000;

    private readonly DirectoryInfo scratch = Directory.CreateTempSubdirectory("veneer-allocation-");
    private readonly OverlayMount overlay;
    private readonly IFileSystem fileSystem;
    private readonly Interruption interruption = new();
    private readonly ulong file;
    private readonly ulong handle;
    private readonly ulong written;
    private readonly ulong writer;

    public AllocationTests()
    {
        string lower = scratch.CreateSubdirectory("lower").FullName;
        File.WriteAllText(Path.Combine(lower, "file"), new string('x', 4096));
        File.WriteAllText(Path.Combine(scratch.CreateSubdirectory("lower/directory").FullName, "one"), "");
        overlay = OverlayMount.Open(new OverlayOptions { LowerDirectories = [lower], UpperDirectory = scratch.CreateSubdirectory("upper").FullName, WorkDirectory = scratch.CreateSubdirectory("work").FullName, UserXattr = true, Sync = Sync.Volatile, MountPoint = "/nowhere", Passthrough = KernelFeature.Off, IoUring = KernelFeature.Off }, static _ => { });
        fileSystem = overlay.FileSystem;

        Assert.Equal(Errno.None, fileSystem.Lookup(Ask(1), "file\0"u8, out EntryOut entry));
        file = entry.NodeId;
        Assert.Equal(Errno.None, fileSystem.Open(Ask(file), new OpenIn(), out OpenOut open));
        handle = open.Fh;
        Assert.Equal(Errno.None, fileSystem.Create(Ask(1), "written\0"u8, new CreateIn { Flags = OpenFlags.ReadWrite, Mode = 0x1A4 }, out CreateOut created));
        written = created.Entry.NodeId;
        writer = created.Open.Fh;
    }

    public void Dispose()
    {
        fileSystem.Stop();
        overlay.Dispose();
        scratch.Delete(recursive: true);
    }

    private InHeader header;

    private Request Ask(ulong node)
    {
        header = new InHeader { NodeId = node };
        return new Request(header, interruption);
    }

    [Fact]
    public void Looking_up_a_known_name_allocates_nothing() => AssertNoGarbage(() =>
    {
        Errno error = fileSystem.Lookup(Ask(1), "file\0"u8, out EntryOut entry);
        fileSystem.Forget(entry.NodeId, 1);
        return error;
    });

    [Fact]
    public void Looking_up_a_missing_name_allocates_nothing() => AssertNoGarbage(() => fileSystem.Lookup(Ask(1), "missing\0"u8, out _));

    [Fact]
    public void Asking_for_attributes_allocates_nothing() => AssertNoGarbage(() => fileSystem.GetAttr(Ask(file), new GetAttrIn(), out _));

    [Fact]
    public void Asking_for_an_extended_attribute_allocates_nothing()
    {
        byte[] value = new byte[64];
        AssertNoGarbage(() =>
        {
            Errno error = fileSystem.GetXattr(Ask(file), "user.none\0"u8, value, out _);
            return error is Errno.ENODATA or Errno.EOPNOTSUPP ? Errno.None : error;
        });
    }

    [Fact]
    public void Reading_allocates_nothing()
    {
        byte[] buffer = new byte[4096];
        AssertNoGarbage(() => fileSystem.Read(Ask(file), new ReadIn { Fh = handle, Size = 4096 }, buffer, out _));
        Assert.Equal((byte)'x', buffer[4095]);
    }

    [Fact]
    public void Writing_allocates_nothing()
    {
        byte[] buffer = new byte[4096];
        AssertNoGarbage(() => fileSystem.Write(Ask(written), new WriteIn { Fh = writer, Size = 4096 }, buffer, out _));
    }

    [Fact]
    public void Opening_allocates_nothing() => AssertNoGarbage(() =>
    {
        Errno error = fileSystem.Open(Ask(file), new OpenIn(), out OpenOut open);
        fileSystem.Release(file, open.Fh);
        return error;
    });

    [Fact]
    public void Opening_to_write_allocates_nothing() => AssertNoGarbage(() =>
    {
        Errno error = fileSystem.Open(Ask(written), new OpenIn { Flags = OpenFlags.ReadWrite }, out OpenOut open);
        fileSystem.Release(written, open.Fh);
        return error;
    });

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Reading_on_in_a_directory_allocates_nothing(bool isPlus)
    {
        byte[] buffer = new byte[4096];
        Assert.Equal(Errno.None, fileSystem.Lookup(Ask(1), "directory\0"u8, out EntryOut directory));
        Assert.Equal(Errno.None, fileSystem.Lookup(Ask(directory.NodeId), "one\0"u8, out EntryOut one));
        AssertNoGarbage(() =>
        {
            var reader = new DirectoryWriter(buffer, isPlus);
            Errno error = fileSystem.ReadDir(Ask(directory.NodeId), new ReadIn { Size = 4096 }, ref reader);
            Assert.True(reader.Used > 0);
            if (isPlus) { fileSystem.Forget(one.NodeId, 1); }
            return error;
        });
    }

    /// <remarks>An inode is no garbage while the kernel knows it. It is not used for another file afterwards: somebody may still be looking at it.</remarks>
    [Fact]
    public void Creating_and_removing_allocates_nothing_but_the_inode()
    {
        long perFile = BytesPerRequest(() =>
        {
            Errno error = fileSystem.Create(Ask(1), "new\0"u8, new CreateIn { Flags = OpenFlags.WriteOnly, Mode = 0x1A4 }, out CreateOut made);
            if (error.IsError) { return error; }
            fileSystem.Release(made.Entry.NodeId, made.Open.Fh);
            error = fileSystem.Unlink(Ask(1), "new\0"u8);
            fileSystem.Forget(made.Entry.NodeId, 1);
            return error;
        });

        Assert.InRange(perFile, 1, 384); // the Inode, its BackingFile with a lock, and its name
    }

    [Fact]
    public void Statfs_allocates_nothing() => AssertNoGarbage(() => fileSystem.StatFs(Ask(1), out _));

    private static void AssertNoGarbage(Func<Errno> request) => Assert.Equal(0, BytesPerRequest(request));

    private static long BytesPerRequest(Func<Errno> request)
    {
        Assert.Equal(Errno.None, request());
        for (int i = 0; i < 200; i++) { request(); } // compiled, caches filled
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < Rounds; i++) { request(); }
        return (GC.GetAllocatedBytesForCurrentThread() - before + Rounds - 1) / Rounds;
    }
}
