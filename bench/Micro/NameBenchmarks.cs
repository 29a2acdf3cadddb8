using BenchmarkDotNet.Attributes;
using Veneer.Linux;

namespace Veneer.Micro;

/// <summary>The ways from a layer to the attributes of one of its files, which ADR 2 chooses among.</summary>
/// <remarks>
/// Runs on the filesystem of the temporary directory, and as root, since file handles need that. All names are in the kernel's
/// caches.
/// </remarks>
public class NameBenchmarks
{
    private readonly DirectoryInfo scratch = Directory.CreateTempSubdirectory("veneer-micro-");
    private int root = -1, directory = -1;
    private byte[] path = [], directoryPath = [];
    private FileHandle handle;

    /// <summary>Directories between the layer's root and the file.</summary>
    [Params(1, 5, 20)]
    public int Depth { get; set; }

    [GlobalSetup]
    public void Make()
    {
        string below = string.Join('/', Enumerable.Range(0, Depth).Select(i => $"directory{i}"));
        string full = scratch.CreateSubdirectory(below).FullName;
        File.WriteAllText($"{full}/file", "");
        (path, directoryPath) = (PathText.Encode($"{below}/file"), PathText.Encode(below));
        Demand(
            Libc.OpenAt(Libc.AtCwd, PathText.Encode(scratch.FullName), OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None,
                out root));
        Demand(Libc.OpenAt(root, directoryPath, OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None, out directory));
        Demand(FileHandle.Of(root, directoryPath, out handle));
        foreach (Func<Errno> each in (Func<Errno>[])[By_a_cached_descriptor_of_the_directory, By_path_from_the_root,
            By_confined_path_from_the_root, By_file_handle_of_the_directory])
        {
            Demand(each());
        }
    }

    private static void Demand(Errno error)
    {
        if (error.IsError) { throw new InvalidOperationException(error.ToString()); }
    }

    [GlobalCleanup]
    public void Remove()
    {
        Libc.Close(directory);
        Libc.Close(root);
        scratch.Delete(recursive: true);
    }

    [Benchmark(Baseline = true)]
    public Errno By_a_cached_descriptor_of_the_directory() => Libc.StatAt(directory, "file\0"u8, StatxMask.Basic, out _);

    /// <summary>Trusts that no directory on the way has become a symbolic link.</summary>
    [Benchmark]
    public Errno By_path_from_the_root() => Libc.StatAt(root, path, StatxMask.Basic, out _);

    /// <summary>As a directory whose descriptor is not open is reached, each time.</summary>
    [Benchmark]
    public Errno By_confined_path_from_the_root()
    {
        Errno error = Libc.OpenAt(root, directoryPath, OpenFlags.Path | OpenFlags.Directory | OpenFlags.NoFollow, 0, ResolveFlags.Confined,
            out int opened);
        if (error.IsError) { return error; }
        error = Libc.StatAt(opened, "file\0"u8, StatxMask.Basic, out _);
        Libc.Close(opened);
        return error;
    }

    [Benchmark]
    public Errno By_file_handle_of_the_directory()
    {
        Errno error = Libc.OpenByHandle(root, ref handle, OpenFlags.Path | OpenFlags.Directory, out int opened);
        if (error.IsError) { return error; }
        error = Libc.StatAt(opened, "file\0"u8, StatxMask.Basic, out _);
        Libc.Close(opened);
        return error;
    }
}
