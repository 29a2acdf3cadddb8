using System.Buffers;
using System.Buffers.Binary;
using System.Buffers.Text;
using System.Diagnostics;
using System.Globalization;
using System.Runtime.InteropServices;

namespace Veneer.Compare;

/// <summary>The operations that are timed, as system calls without anything around them.</summary>
/// <remarks>
/// Each runs in a process of its own, started as <c>Veneer.Compare work OPERATION PATH COUNT THREADS SCRATCH</c>. It is
/// done once in the scratch directory, so that the code is compiled, and then on the path, where it is timed.
/// A tree is <c>PATH/d{i/100}/f{i%100}</c>; a flat directory, <c>PATH/entry-{i}</c>.
/// </remarks>
internal static unsafe partial class Work
{
    private const int FileSize = 1024, Block = 4096, Chunk = 1 << 20, PerDirectory = 100;

    /// <summary>Done to each file of a tree; <paramref name="buffer"/> has a block.</summary>
    private delegate Errno FileOperation(Names names, long index, byte[] buffer);

    /// <summary>The child's side: prints nanoseconds per operation.</summary>
    public static int Run(ReadOnlySpan<string> words)
    {
        try
        {
            (string operation, FilePath path, long count, int threads, FilePath scratch) =
                (words[0], words[1], long.Parse(words[2]), int.Parse(words[3]), words[4]);
            WarmUp(operation, threads, scratch / $"warm-{Environment.ProcessId}");
            Func<long> work = Prepare(operation, path, count, threads);
            long start = Stopwatch.GetTimestamp();
            long done = work();
            double nanoseconds = Stopwatch.GetElapsedTime(start).TotalNanoseconds;
            Console.WriteLine((nanoseconds / Math.Max(done, 1)).ToString(CultureInfo.InvariantCulture));
            return 0;
        }
        catch (SysException problem)
        {
            Console.Error.WriteLine(problem.Message);
            return 1;
        }
    }

    /// <summary>Does an operation in this process, untimed: how layers are made.</summary>
    public static void Do(string operation, FilePath path, long count) => Prepare(operation, path, count, 1)();

    private static void WarmUp(string operation, int threads, FilePath home)
    {
        Sys.MakeDirectory(home);
        bool isFlat = operation.Contains("flat", StringComparison.Ordinal),
            makes = operation.StartsWith("create", StringComparison.Ordinal);
        if (!makes) { Do(isFlat ? "create-flat" : "create", home / "t", PerDirectory); }
        Sys.Write(home / "big", new byte[16 * Block]);
        bool isOfOneFile = operation is "seqread" or "seqwrite" or "randread" or "randwrite" or "mmapread";
        Prepare(operation, home / (isOfOneFile ? "big" : "t"), isOfOneFile ? 1 : operation == "churn" ? 0 : PerDirectory, threads)();
        Sys.RemoveTree(home);
    }

    private static Func<long> Prepare(string operation, FilePath path, long count, int threads)
    {
        switch (operation)
        {
            case "walk": return () => Walk(path, null);
            case "readdir": return () => ReadDirectory(path, count);
            case "list":
                return () =>
                {
                    _ = ReadDirectory(path, 1);
                    return count;
                };
            case "churn": return () => Churn(path, count);
            case "seqread": return () => Sequential(path, count, isWrite: false);
            case "seqwrite": return () => Sequential(path, count, isWrite: true);
            case "randread": return () => Random(path, count, isWrite: false);
            case "randwrite": return () => Random(path, count, isWrite: true);
            case "mmapread": return () => ReadMap(path);
            case "append-each":
                var files = new List<byte[]>();
                Walk(path, files);
                return () => AppendEach(files);
            case "create" or "create-flat": Sys.MakeDirectory(path); break;
        }
        (FileOperation each, int calls) = Find(operation);
        bool isFlat = operation.EndsWith("-flat", StringComparison.Ordinal);
        return () => ForEach(each, path, isFlat, count, threads) * calls;
    }

    private static (FileOperation Each, int Calls) Find(string operation) => operation switch
    {
        "stat" or "stat-flat" => ((names, i, _) => Stat(names.Of(i)), 1),
        "missing" => ((names, i, _) => Missing(names, i), 1),
        "open" => ((names, i, _) => Open(names.Of(i), null), 1),
        "read" => ((names, i, buffer) => Open(names.Of(i), buffer), 1),
        "getxattr" => ((names, i, buffer) => GetXattr(names.Of(i), buffer), 1),
        "create" => (Create, 1),
        "create-flat" => ((names, i, _) => Make(names.Of(i), default), 1),
        "unlink" => ((names, i, _) => Libc.UnlinkAt(Libc.AtCwd, names.Of(i)), 1),
        "append" => ((names, i, _) => Append(names.Of(i)), 1),
        "chmod" => ((names, i, _) => Chmod(names.Of(i)), 1),
        "rename" => ((names, i, _) => Libc.RenameAt(Libc.AtCwd, names.Of(i), Libc.AtCwd, names.With(".renamed"u8), RenameFlags.None), 1),
        "mixed" => (Mixed, 6),
        _ => throw new ArgumentException($"There is no operation {operation}."),
    };

    private static long ForEach(FileOperation each, FilePath path, bool isFlat, long count, int threads)
    {
        SysException? failure = null;
        if (threads == 1) { Part(0); }
        else
        {
            Thread[] all = [.. Enumerable.Range(0, threads).Select(first => new Thread(() => Part(first)))];
            foreach (Thread thread in all) { thread.Start(); }
            foreach (Thread thread in all) { thread.Join(); }
        }
        return failure is null ? count : throw failure;

        void Part(int first)
        {
            var names = new Names(path, isFlat);
            byte[] buffer = new byte[Block];
            for (long i = first; i < count; i += threads)
            {
                Errno error = each(names, i, buffer);
                if (!error.IsError) { continue; }
                failure = new SysException(error, PathText.Decode(names.Of(i)));
                return;
            }
        }
    }

    /// <summary>The paths of a tree's files, made without allocating.</summary>
    private sealed class Names
    {
        private readonly byte[] path = new byte[4096], other = new byte[4096];
        private readonly int prefix;
        private readonly bool isFlat;
        private int end;

        public Names(FilePath directory, bool isFlat)
        {
            this.isFlat = isFlat;
            byte[] start = PathText.Encode(directory + (isFlat ? "/entry-" : "/d"));
            start.CopyTo(path, 0);
            prefix = start.Length - 1;
        }

        /// <summary>The path of a file, with its NUL.</summary>
        public ReadOnlySpan<byte> Of(long index)
        {
            end = prefix;
            if (isFlat) { Add(index); }
            else
            {
                Add(index / PerDirectory);
                path[end++] = (byte)'/';
                path[end++] = (byte)'f';
                Add(index % PerDirectory);
            }
            path[end++] = 0;
            return path.AsSpan(0, end);
        }

        /// <summary>The path of a file's directory.</summary>
        public ReadOnlySpan<byte> DirectoryOf(long index)
        {
            end = prefix;
            Add(index / PerDirectory);
            path[end++] = 0;
            return path.AsSpan(0, end);
        }

        /// <summary>The last path with something behind it; both can be used together.</summary>
        public ReadOnlySpan<byte> With(ReadOnlySpan<byte> suffix)
        {
            path.AsSpan(0, end - 1).CopyTo(other);
            suffix.CopyTo(other.AsSpan(end - 1));
            other[end - 1 + suffix.Length] = 0;
            return other.AsSpan(0, end + suffix.Length);
        }

        private void Add(long number)
        {
            _ = Utf8Formatter.TryFormat(number, path.AsSpan(end), out int digits); // cannot fail: there is room
            end += digits;
        }
    }

    private static Errno Stat(ReadOnlySpan<byte> path) => Libc.StatAt(Libc.AtCwd, path, StatxMask.Basic, out _);

    private static Errno Missing(Names names, long index)
    {
        names.Of(index);
        Errno error = Stat(names.With(".missing"u8));
        return error switch { Errno.ENOENT => Errno.None, Errno.None => Errno.EEXIST, _ => error };
    }

    private static Errno Open(ReadOnlySpan<byte> path, byte[]? readInto)
    {
        Errno error = Libc.OpenAt(Libc.AtCwd, path, OpenFlags.ReadOnly, 0, ResolveFlags.None, out int file);
        if (error.IsError) { return error; }
        if (readInto is not null) { error = Libc.Read(file, readInto, out _); }
        Libc.Close(file);
        return error;
    }

    private static Errno Make(ReadOnlySpan<byte> path, ReadOnlySpan<byte> content)
    {
        Errno error = Libc.OpenAt(Libc.AtCwd, path, OpenFlags.WriteOnly | OpenFlags.Create | OpenFlags.Exclusive, Octal.Oct(644),
            ResolveFlags.None, out int file);
        if (error.IsError) { return error; }
        if (!content.IsEmpty) { error = Libc.Write(file, content, out _); }
        Libc.Close(file);
        return error;
    }

    private static Errno Create(Names names, long index, byte[] buffer)
    {
        if (index % PerDirectory == 0)
        {
            Errno error = Libc.MakeDirectoryAt(Libc.AtCwd, names.DirectoryOf(index), Octal.Oct(755));
            if (error.IsError) { return error; }
        }
        buffer.AsSpan(0, FileSize).Fill((byte)('a' + (index % 26)));
        return Make(names.Of(index), buffer.AsSpan(0, FileSize));
    }

    /// <summary>Makes a thousand files, with names that were never there before, and removes them; again until the time is over.</summary>
    private static long Churn(FilePath path, long seconds)
    {
        const int many = 1000;
        if (!path.Exists) { Sys.MakeDirectory(path); }
        var names = new Names(path, isFlat: true);
        byte[] content = new byte[FileSize];
        long start = Stopwatch.GetTimestamp(), made = 0;
        do
        {
            for (long i = made; i < made + many; i++) { SysException.ThrowIf(Make(names.Of(i), content), path); }
            for (long i = made; i < made + many; i++) { SysException.ThrowIf(Libc.UnlinkAt(Libc.AtCwd, names.Of(i)), path); }
            made += many;
        }
        while (Stopwatch.GetElapsedTime(start).TotalSeconds < seconds);
        return made * 2;
    }

    private static Errno Append(ReadOnlySpan<byte> path)
    {
        Errno error = Libc.OpenAt(Libc.AtCwd, path, OpenFlags.WriteOnly | OpenFlags.Append, 0, ResolveFlags.None, out int file);
        if (error.IsError) { return error; }
        error = Libc.Write(file, "x"u8, out _);
        Libc.Close(file);
        return error;
    }

    private static Errno Chmod(ReadOnlySpan<byte> path)
    {
        fixed (byte* p = path) { return chmod(p, Octal.Oct(640)) == 0 ? Errno.None : (Errno)Marshal.GetLastPInvokeError(); }
    }

    private static Errno GetXattr(ReadOnlySpan<byte> path, byte[] buffer)
    {
        fixed (byte* p = path, name = "user.none\0"u8, value = buffer)
        {
            if (lgetxattr(p, name, value, 100) >= 0) { return Errno.None; }
        }
        var error = (Errno)Marshal.GetLastPInvokeError();
        return error.IsNoXattr ? Errno.None : error;
    }

    /// <summary>
    /// Looks a file up, then a name that is missing; reads the file; then creates another file beside it, renames that and
    /// removes it.
    /// </summary>
    private static Errno Mixed(Names names, long index, byte[] buffer)
    {
        Errno error = Stat(names.Of(index));
        if (!error.IsError) { error = Missing(names, index); }
        if (!error.IsError) { error = Open(names.Of(index), buffer); }
        if (!error.IsError) { error = Make(names.With(".new"u8), buffer.AsSpan(0, FileSize)); }
        if (error.IsError) { return error; }
        names.With(".new"u8).CopyTo(buffer);
        error = Libc.RenameAt(Libc.AtCwd, buffer, Libc.AtCwd, names.With(".moved"u8), RenameFlags.None);
        return error.IsError ? error : Libc.UnlinkAt(Libc.AtCwd, names.With(".moved"u8));
    }

    /// <summary>Lists a tree and stats all in it; the regular files are added to a list, if there is one.</summary>
    private static long Walk(FilePath path, List<byte[]>? files)
    {
        byte[] full = new byte[8192];
        path.Bytes.CopyTo(full, 0);
        return Walk(full, path.Bytes.Length - 1, files);
    }

    private static long Walk(byte[] path, int length, List<byte[]>? files)
    {
        using Descriptor directory = OpenDirectory(path);
        byte[] buffer = ArrayPool<byte>.Shared.Rent(32 * 1024);
        long seen = 0;
        path[length] = (byte)'/';
        while (true)
        {
            SysException.ThrowIf(Libc.ReadDirectory(directory.Value, buffer, out int count), "getdents64");
            if (count == 0) { break; }
            for (int at = 0; at < count; at += EntrySize(buffer, at))
            {
                ReadOnlySpan<byte> name = buffer.AsSpan(at + 19, EntrySize(buffer, at) - 19);
                name = name[..name.IndexOf((byte)0)];
                if (name.SequenceEqual("."u8) || name.SequenceEqual(".."u8)) { continue; }
                name.CopyTo(path.AsSpan(length + 1));
                int end = length + 1 + name.Length;
                path[end] = 0;
                SysException.ThrowIf(Libc.StatAt(Libc.AtCwd, path.AsSpan(0, end + 1), StatxMask.Basic, out Statx stat), "lstat");
                seen++;
                if (stat.IsDirectory) { seen += Walk(path, end, files); }
                else { files?.Add(path.AsSpan(0, end + 1).ToArray()); }
            }
        }
        path[length] = 0;
        ArrayPool<byte>.Shared.Return(buffer);
        return seen;
    }

    private static int EntrySize(byte[] entries, int at) => BinaryPrimitives.ReadUInt16LittleEndian(entries.AsSpan(at + 16));

    private static Descriptor OpenDirectory(ReadOnlySpan<byte> path)
    {
        SysException.ThrowIf(Libc.OpenAt(Libc.AtCwd, path, OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None, out int opened),
            "opendir");
        return new Descriptor(opened);
    }

    private static long ReadDirectory(FilePath path, long times)
    {
        byte[] buffer = new byte[32 * 1024];
        long entries = 0;
        for (; times > 0; times--)
        {
            using Descriptor directory = OpenDirectory(path.Bytes);
            while (true)
            {
                SysException.ThrowIf(Libc.ReadDirectory(directory.Value, buffer, out int count), "getdents64");
                if (count == 0) { break; }
                for (int at = 0; at < count; at += EntrySize(buffer, at)) { entries++; }
            }
        }
        return entries;
    }

    private static long AppendEach(List<byte[]> files)
    {
        foreach (byte[] file in files) { SysException.ThrowIf(Append(file), PathText.Decode(file)); }
        return files.Count;
    }

    /// <summary>Mebibytes from the beginning.</summary>
    private static long Sequential(FilePath path, long count, bool isWrite)
    {
        using Descriptor file = isWrite
            ? Sys.Open(path, OpenFlags.WriteOnly | OpenFlags.Create | OpenFlags.Truncate, Octal.Oct(644))
            : Sys.Open(path, OpenFlags.ReadOnly);
        byte[] buffer = GC.AllocateArray<byte>(Chunk, pinned: true);
        buffer.AsSpan().Fill(7);
        for (long i = 0; i < count; i++)
        {
            int done;
            SysException.ThrowIf(isWrite ? Libc.Write(file.Value, buffer, out done) : Libc.Read(file.Value, buffer, out done), path);
            if (done == 0) { return i; }
        }
        return count;
    }

    /// <summary>Blocks here and there, always the same ones.</summary>
    private static long Random(FilePath path, long count, bool isWrite)
    {
        using Descriptor file = Sys.Open(path, isWrite ? OpenFlags.WriteOnly : OpenFlags.ReadOnly);
        byte[] buffer = new byte[Block];
        ulong blocks = file.Stat().Size / Block, seed = 1;
        for (long i = 0; i < count; i++)
        {
            seed = (seed * 6364136223846793005) + 1442695040888963407;
            long offset = (long)((seed >> 33) % blocks) * Block;
            int done;
            SysException.ThrowIf(
                isWrite ? Libc.WriteAt(file.Value, buffer, offset, out done) : Libc.ReadAt(file.Value, buffer, offset, out done), path);
        }
        return count;
    }

    /// <summary>Touches each page of a file in memory.</summary>
    private static long ReadMap(FilePath path)
    {
        using Descriptor file = Sys.Open(path, OpenFlags.ReadOnly);
        using Map map = file.Map((long)file.Stat().Size);
        int sum = 0;
        for (int at = 0; at < map.Memory.Length; at += Block) { sum += map.Memory[at]; }
        GC.KeepAlive(sum);
        return map.Memory.Length / Block;
    }

    [LibraryImport("libc", SetLastError = true)]
    private static partial int chmod(byte* path, uint mode);

    [LibraryImport("libc", SetLastError = true)]
    private static partial nint lgetxattr(byte* path, byte* name, void* value, nuint size);
}
