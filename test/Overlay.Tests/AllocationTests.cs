using System.Text;
using Veneer.Fuse;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Overlay.Tests;

/// <summary>Requests whose answer is a matter of system calls make no garbage.</summary>
public sealed class AllocationTests : IDisposable
{
    private const int Rounds = 300, Warm = 100, Tries = 3;

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
        string upper = scratch.CreateSubdirectory("upper").FullName, work = scratch.CreateSubdirectory("work").FullName;
        overlay = OverlayMount.Open(Unmounted.Over(lower, upper, work), static _ => { });
        fileSystem = overlay.FileSystem;

        Assert.Equal(Errno.None, fileSystem.Lookup(Ask(1), "file\0"u8, out EntryOut entry));
        file = entry.NodeId;
        Assert.Equal(Errno.None, fileSystem.Open(Ask(file), new OpenIn(), out OpenOut open));
        handle = open.Fh;
        var readWrite = new CreateIn { Flags = OpenFlags.ReadWrite, Mode = 0x1A4 };
        Assert.Equal(Errno.None, fileSystem.Create(Ask(1), "written\0"u8, readWrite, out CreateOut created));
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
        AssertNoGarbage(() => Read(file, handle, buffer));
        Assert.Equal((byte)'x', buffer[4095]);
    }

    private Errno Read(ulong nodeId, ulong fh, byte[] buffer)
    {
        var content = new ContentWriter(buffer);
        return fileSystem.Read(Ask(nodeId), new ReadIn { Fh = fh, Size = (uint)buffer.Length }, ref content);
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

    [Theory]
    [InlineData("directory", false)]
    [InlineData("directory", true)]
    [InlineData("merged", false)]
    [InlineData("merged", true)]
    public void Reading_a_directory_from_its_beginning_to_its_end_allocates_nothing(string name, bool isPlus)
    {
        foreach (string layer in (string[])["lower", "upper"])
        {
            string directory = scratch.CreateSubdirectory($"{layer}/merged").FullName;
            for (int i = 0; i < 150; i++) { File.WriteAllText(Path.Combine(directory, $"{layer}-{i}"), ""); }
        }
        byte[] buffer = new byte[128 * 1024];
        Assert.Equal(Errno.None, fileSystem.Lookup(Ask(1), Encoding.UTF8.GetBytes(name + "\0"), out EntryOut entry));
        AssertNoGarbage(() =>
        {
            var reader = new DirectoryWriter(buffer, isPlus);
            Errno error = fileSystem.ReadDir(Ask(entry.NodeId), new ReadIn { Size = (uint)buffer.Length }, ref reader);
            Assert.True(reader.Used > 0);
            reader = new DirectoryWriter(buffer, isPlus);
            if (!error.IsError)
            {
                var atEnd = new ReadIn { Size = (uint)buffer.Length, Offset = long.MaxValue };
                error = fileSystem.ReadDir(Ask(entry.NodeId), atEnd, ref reader);
            }
            Assert.True(reader.Used == 0);
            return error;
        });
    }

    [Fact]
    public void Creating_writing_and_removing_allocates_nothing()
    {
        byte[] buffer = new byte[64];
        AssertNoGarbageAnew(static i => $"new-{i % 977}", name =>
        {
            Errno error = fileSystem.Create(Ask(1), name, new CreateIn { Flags = OpenFlags.WriteOnly, Mode = 0x1A4 }, out CreateOut made);
            if (!error.IsError)
            {
                error = fileSystem.Write(Ask(made.Entry.NodeId), new WriteIn { Fh = made.Open.Fh, Size = 64 }, buffer, out _);
            }
            fileSystem.Release(made.Entry.NodeId, made.Open.Fh);
            if (!error.IsError) { error = fileSystem.Unlink(Ask(1), name); }
            fileSystem.Forget(made.Entry.NodeId, 1);
            return error;
        });
    }

    [Theory]
    [InlineData("directory/lower")]
    [InlineData("upper")]
    public void A_file_that_was_never_seen_allocates_nothing(string where)
    {
        string[] names = [.. Enumerable.Range(0, Warm + (Tries * Rounds)).Select(i => $"file-{i}")];
        bool isLower = where.StartsWith("directory", StringComparison.Ordinal);
        string layer = Path.Combine(scratch.FullName, isLower ? "lower/directory" : "upper");
        foreach (string name in names) { File.WriteAllText(Path.Combine(layer, name), "x"); }
        ulong directory = 1;
        if (where != "upper")
        {
            Assert.Equal(Errno.None, fileSystem.Lookup(Ask(1), "directory\0"u8, out EntryOut entry));
            directory = entry.NodeId;
        }
        byte[] buffer = new byte[1];
        AssertNoGarbageAnew(i => names[i], name =>
        {
            Errno error = fileSystem.Lookup(Ask(directory), name, out EntryOut entry);
            if (!error.IsError) { error = fileSystem.GetAttr(Ask(entry.NodeId), new GetAttrIn(), out _); }
            OpenOut open = default;
            if (!error.IsError) { error = fileSystem.Open(Ask(entry.NodeId), new OpenIn(), out open); }
            if (!error.IsError) { error = Read(entry.NodeId, open.Fh, buffer); }
            fileSystem.Release(entry.NodeId, open.Fh);
            fileSystem.Forget(entry.NodeId, 1);
            return error;
        });
    }

    /// <remarks>An inode of a directory is not used again: those of files and of other directories may still lead through it.</remarks>
    [Fact]
    public void A_directory_that_was_never_seen_allocates_its_inode()
    {
        for (int i = 0; i < Warm + (Tries * Rounds); i++) { scratch.CreateSubdirectory($"lower/directory/sub-{i}"); }
        Assert.Equal(Errno.None, fileSystem.Lookup(Ask(1), "directory\0"u8, out EntryOut parent));
        long least = LeastGarbage(static i => $"sub-{i}", name =>
        {
            Errno error = fileSystem.Lookup(Ask(parent.NodeId), name, out EntryOut entry);
            fileSystem.Forget(entry.NodeId, 1);
            return error;
        });

        Assert.InRange(least / Rounds, 1, 512);
    }

    [Fact]
    public void Removing_a_lower_file_allocates_nothing()
    {
        string[] names = [.. Enumerable.Range(0, Warm + (Tries * Rounds)).Select(i => $"file-{i}")];
        foreach (string name in names) { File.WriteAllText(Path.Combine(scratch.FullName, "lower", name), "x"); }
        AssertNoGarbageAnew(i => names[i], name =>
        {
            Errno error = fileSystem.Lookup(Ask(1), name, out EntryOut entry);
            if (!error.IsError) { error = fileSystem.Unlink(Ask(1), name); }
            fileSystem.Forget(entry.NodeId, 1);
            return error;
        });
    }

    [Fact]
    public void Statfs_allocates_nothing() => AssertNoGarbage(() => fileSystem.StatFs(Ask(1), out _));

    private delegate Errno NamedRequest(ReadOnlySpan<byte> name);

    private static void AssertNoGarbage(Func<Errno> request) => AssertNoGarbageAnew(static _ => "", _ => request());

    /// <summary>Every round with a name of its own.</summary>
    /// <remarks>
    /// What a request leaves behind is found each time. A table that grows, or the first object of a kind of which there
    /// are more than before, may fall into one of the tries, but not into all.
    /// </remarks>
    private static void AssertNoGarbageAnew(Func<int, string> nameOf, NamedRequest request) =>
        Assert.Equal(0, LeastGarbage(nameOf, request));

    /// <summary>The least that one of some tries leaves behind, in bytes.</summary>
    private static long LeastGarbage(Func<int, string> nameOf, NamedRequest request)
    {
        byte[][] names = [.. Enumerable.Range(0, Warm + (Tries * Rounds)).Select(i => Encoding.UTF8.GetBytes(nameOf(i) + "\0"))];
        for (int i = 0; i < Warm; i++) { Assert.Equal(Errno.None, request(names[i])); } // compiled, caches filled
        long least = long.MaxValue;
        for (int next = Warm; next < names.Length && least > 0;)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            Errno error = Errno.None;
            for (int end = next + Rounds; next < end && !error.IsError; next++) { error = request(names[next]); }
            least = Math.Min(least, GC.GetAllocatedBytesForCurrentThread() - before);
            Assert.Equal(Errno.None, error);
        }
        return least;
    }
}
