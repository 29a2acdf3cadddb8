using BenchmarkDotNet.Attributes;
using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Lookup;
using Veneer.Overlay.Tree;

namespace Veneer.Micro;

/// <summary>What every request and every lookup asks the table.</summary>
[MemoryDiagnoser]
public class InodeTableBenchmarks
{
    private readonly DirectoryInode root = new(new DirectoryStack(null, [])) { Type = FileType.Directory };
    private InodeTable table = null!;
    private Inode[] inodes = [];
    private int next;

    [Params(1_000, 100_000)]
    public int Inodes { get; set; }

    [GlobalSetup]
    public void Fill()
    {
        table = new InodeTable(new DirectoryCache(16), static _ => { });
        table.AddRoot(root);
        inodes = [.. Enumerable.Range(0, Inodes).Select(i => NewFile((ulong)i + 10))];
        foreach (Inode inode in inodes) { table.AddAndLendLocked(inode); }
        new Random(1).Shuffle(inodes);
    }

    private Inode NewFile(ulong ino) => new() { Type = FileType.Regular, Parent = root, Key = new RealKey(0, ino), Ino = ino };

    private Inode Next() => inodes[next = (next + 1) % inodes.Length];

    [Benchmark]
    public bool Find() => table.Find(Next().NodeId, out _).IsError;

    [Benchmark]
    public void Lend_a_known_inode_and_forget_it()
    {
        table.TryLend(Next().Key, root, table.VersionOf(root), out Inode inode, out _);
        table.Forget(inode.NodeId, 1);
    }

    [Benchmark]
    public void Add_an_inode_and_forget_it()
    {
        Inode inode = NewFile(1UL << 40);
        table.TryAddAndLend(inode, InoChoice.OfReal(inode.Ino), table.VersionOf(root), out _, out _);
        table.Forget(inode.NodeId, 1);
    }
}
