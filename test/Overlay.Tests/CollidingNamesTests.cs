using System.Buffers.Binary;
using System.Text;
using Veneer.Fuse;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Lookup;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Tests;

/// <summary>Names with one hash: nobody can choose them, and where they are all the same, listings are whole.</summary>
public sealed class CollidingNamesTests : IDisposable
{
    private const int Names = 60;

    private readonly DirectoryInfo scratch = Directory.CreateTempSubdirectory("veneer-colliding-");
    private readonly Interruption interruption = new();
    private InHeader header;

    public void Dispose() => scratch.Delete(recursive: true);

    /// <summary>From a program that gives the published vectors of SipHash-2-4 with two and four rounds.</summary>
    [Theory]
    [InlineData("", 0xABAC0158050FC4DC)]
    [InlineData("a", 0x1C2697AB786A6237)]
    [InlineData("a name that is longer", 0x42F17272805A8B6E)]
    public void The_hash_is_SipHash(string name, ulong expected)
    {
        var hash = new NameHash(BinaryPrimitives.ReadUInt64LittleEndian([0, 1, 2, 3, 4, 5, 6, 7]),
            BinaryPrimitives.ReadUInt64LittleEndian([8, 9, 10, 11, 12, 13, 14, 15]));
        Assert.Equal(expected, hash.Of(Encoding.ASCII.GetBytes(name)));
    }

    /// <summary>One after the other, with a listing of somebody else after each, while what was read is removed.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_reader_who_goes_on_while_names_go_misses_none_and_gets_none_twice(bool isMerged)
    {
        OverlayFileSystem fileSystem = Serve(isMerged, out Volume volume, out List<IDisposable> opened);
        var read = new List<string>();
        ulong offset = 0;
        for (string? name; (name = Next(fileSystem, ref offset)) is not null;)
        {
            read.Add(name);
            if (read.Count % 3 == 0 || name is "." or "..") { continue; }
            Assert.Equal(Errno.None, fileSystem.Lookup(Ask(1), Encoding.ASCII.GetBytes(name + "\0"), out EntryOut entry));
            Assert.Equal(Errno.None, fileSystem.Unlink(Ask(1), Encoding.ASCII.GetBytes(name + "\0")));
            fileSystem.Forget(entry.NodeId, 1);
            ulong other = 0;
            _ = Next(fileSystem, ref other); // reads the directory anew
        }

        Assert.Equal([".", "..", .. Enumerable.Range(0, Names).Select(i => $"name{i:00}")], read.Order(StringComparer.Ordinal));
        fileSystem.Stop();
        opened.ForEach(one => one.Dispose());
        volume.Tree.RenameLock.Dispose();
    }

    [Fact]
    public void Each_place_of_a_listing_is_found_again_by_its_offset()
    {
        OverlayFileSystem fileSystem = Serve(isMerged: true, out Volume volume, out List<IDisposable> opened);
        var places = new List<(string Name, ulong Before)>();
        ulong offset = 0;
        while (true)
        {
            ulong before = offset;
            if (Next(fileSystem, ref offset) is not { } name) { break; }
            places.Add((name, before));
        }

        foreach ((string name, ulong before) in Enumerable.Reverse(places))
        {
            offset = before;
            Assert.Equal(name, Next(fileSystem, ref offset));
        }
        Assert.Equal(Names + 2, places.Count);
        fileSystem.Stop();
        opened.ForEach(one => one.Dispose());
        volume.Tree.RenameLock.Dispose();
    }

    /// <summary>Numbers that differ in their upper bits only, as a filesystem may choose them.</summary>
    [Fact]
    public void Inode_numbers_spread_whatever_they_are()
    {
        var buckets = new HashSet<uint>();
        for (ulong i = 0; i < 4096; i++) { buckets.Add(new RealKey(0, i << 50).Hash & 0xFFFF); }
        Assert.InRange(buckets.Count, 3500, 4096);
    }

    private OverlayFileSystem Serve(bool isMerged, out Volume volume, out List<IDisposable> opened)
    {
        string lower = scratch.CreateSubdirectory("lower").FullName, upper = scratch.CreateSubdirectory("upper").FullName;
        for (int i = 0; i < Names; i++) { File.WriteAllText(Path.Combine(isMerged && i % 2 == 0 ? lower : upper, $"name{i:00}"), ""); }
        opened = [];
        volume = Volume.Open(
            Unmounted.Over(lower, upper, scratch.CreateSubdirectory("work").FullName),
            static _ => { },
            opened,
            new NameHash(1, 2, mask: 0xF8));
        return new OverlayFileSystem(volume);
    }

    /// <summary>The next entry, as one who has room for one reads it.</summary>
    private string? Next(OverlayFileSystem fileSystem, ref ulong offset)
    {
        byte[] buffer = new byte[40];
        var writer = new DirectoryWriter(buffer, false);
        Assert.Equal(Errno.None, fileSystem.ReadDir(Ask(1), new ReadIn { Size = (uint)buffer.Length, Offset = offset }, ref writer));
        if (writer.Used == 0) { return null; }
        offset = BinaryPrimitives.ReadUInt64LittleEndian(buffer.AsSpan(8));
        return Encoding.ASCII.GetString(buffer, 24, BinaryPrimitives.ReadInt32LittleEndian(buffer.AsSpan(16)));
    }

    private Request Ask(ulong node)
    {
        header = new InHeader { NodeId = node };
        return new Request(header, interruption);
    }
}
