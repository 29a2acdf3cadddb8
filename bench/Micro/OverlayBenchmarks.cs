using BenchmarkDotNet.Attributes;
using Veneer.Fuse;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Lookup;
using Veneer.Overlay.Tree;

namespace Veneer.Micro;

/// <summary>An overlay of two directories that nobody has mounted: its requests, with the system calls on the layers.</summary>
[MemoryDiagnoser]
public class OverlayBenchmarks
{
    private const int Entries = 1_000;

    private readonly DirectoryInfo scratch = Directory.CreateTempSubdirectory("veneer-micro-");
    private readonly List<IDisposable> opened = [];
    private readonly Interruption interruption = new();
    private Volume volume = null!;
    private OverlayFileSystem fileSystem = null!;
    private DirectoryInode root = null!;
    private DirectoryCache tiny = null!;
    private RealDirectory one = null!, other = null!;
    private InHeader header;

    [GlobalSetup]
    public void Open()
    {
        string[] lowers = [.. Enumerable.Range(0, 2).Select(i => scratch.CreateSubdirectory($"lower{i}").FullName)];
        for (int i = 0; i < Entries; i++) { File.WriteAllText($"{lowers[i % 2]}/file{i}", ""); }
        foreach (string name in (string[])["one", "other"]) { Directory.CreateDirectory($"{lowers[0]}/{name}"); }
        volume = Volume.Open(new OverlayOptions { LowerDirectories = lowers, MountPoint = "/nowhere" }, static _ => { }, opened);
        fileSystem = new OverlayFileSystem(volume);
        volume.Tree.Inodes.FindDirectory(InodeTable.RootId, out root);
        one = new RealDirectory(root.Lowers[0], "one\0"u8.ToArray());
        other = new RealDirectory(root.Lowers[0], "other\0"u8.ToArray());
        tiny = new DirectoryCache(1);
    }

    [GlobalCleanup]
    public void Close()
    {
        tiny.Drop(one);
        tiny.Drop(other);
        foreach (IDisposable each in Enumerable.Reverse(opened)) { each.Dispose(); }
        scratch.Delete(recursive: true);
    }

    private Request Ask(ulong node)
    {
        header = new InHeader { NodeId = node };
        return new Request(header, interruption);
    }

    [Benchmark]
    public void Lookup_and_forget()
    {
        fileSystem.Lookup(Ask(InodeTable.RootId), "file1\0"u8, out EntryOut entry);
        fileSystem.Forget(entry.NodeId, 1);
    }

    [Benchmark]
    public bool Lookup_of_a_missing_name() => fileSystem.Lookup(Ask(InodeTable.RootId), "missing\0"u8, out _).IsError;

    [Benchmark]
    public bool GetAttr() => fileSystem.GetAttr(Ask(InodeTable.RootId), new GetAttrIn(), out _).IsError;

    [Benchmark]
    public void Pin_an_open_directory()
    {
        volume.Tree.Directories.Borrow(root.Lowers[0], out BorrowedDirectory borrowed);
        borrowed.Dispose();
    }

    /// <summary>Two directories, and room for the descriptor of one.</summary>
    [Benchmark(OperationsPerInvoke = 2)]
    public void Pin_a_closed_directory()
    {
        tiny.Borrow(one, out BorrowedDirectory borrowed);
        borrowed.Dispose();
        tiny.Borrow(other, out borrowed);
        borrowed.Dispose();
    }

    [Benchmark(OperationsPerInvoke = Entries)]
    public int Merge_per_entry() => volume.Tree.Listings.Read(root.Stack, 0, out MergedDirectory merged).IsError ? 0 : merged.Count;
}
