using System.Globalization;
using System.Text;

namespace Veneer.Compare;

/// <summary>Where everything lies: a filesystem in memory, and the lower layers on it, each made when a row first needs it.</summary>
/// <remarks>All of it is in a mount namespace of this process, and goes with it however it ends.</remarks>
internal sealed partial class Stand : IDisposable
{
    private const long ImageSize = 8L << 30;

    private readonly FilePath room = Path.Combine(Path.GetTempPath(), "veneer-bench");
    private readonly Dictionary<string, IReadOnlyList<FilePath>> made = new(StringComparer.Ordinal);
    private readonly Dictionary<string, string> unmakable = new(StringComparer.Ordinal);
    private readonly HashSet<string> cold = new(StringComparer.Ordinal);
    private readonly Sizes sizes;
    private int number;

    public Stand(Filesystem filesystem, Sizes sizes)
    {
        this.sizes = sizes;
        Directory.CreateDirectory(room);
        Scratch.MountTmpfs(room, "12g", MountFlags.None);
        Home = room / "fs";
        if (filesystem == Filesystem.Tmpfs) { Sys.MakeDirectory(Home); }
        else { Scratch.MountImage(filesystem, room / "image", Home, ImageSize, "loop"); }
        Sys.MakeDirectory(WarmUp);
    }

    /// <summary>The filesystem of all layers.</summary>
    public FilePath Home { get; }

    /// <summary>Where the worker compiles its code.</summary>
    public FilePath WarmUp => room / "warm";

    /// <summary>Archives and repositories, which are read while something else is measured.</summary>
    public FilePath Beside => room;

    /// <summary>A new empty directory.</summary>
    public FilePath New()
    {
        FilePath directory = Home / $"{++number}";
        Sys.MakeDirectory(directory, Octal.Oct(755));
        return directory;
    }

    /// <summary>Writes back what others have left, so that nobody pays for it.</summary>
    public void Settle() => Command.Require("sync", "-f", Home);

    /// <summary>Has the kernel forget the names and inodes that nobody uses, here and elsewhere.</summary>
    public void Forget()
    {
        Sys.DropCaches();
        cold.UnionWith(made.Keys);
    }

    /// <summary>
    /// The lower layers of a name, topmost first. A name is <c>main</c>, <c>source</c>, or what is varied and its value, as
    /// <c>entries-1000</c>.
    /// </summary>
    /// <exception cref="LeftOutException">They cannot be made here.</exception>
    public IReadOnlyList<FilePath> Layers(string kind)
    {
        if (unmakable.TryGetValue(kind, out string? reason)) { throw new LeftOutException(reason); }
        if (!made.TryGetValue(kind, out IReadOnlyList<FilePath>? layers))
        {
            try
            {
                made[kind] = layers = Make(kind);
            }
            catch (LeftOutException problem)
            {
                unmakable[kind] = problem.Message;
                throw;
            }
            Settle();
        }
        // So that who comes first pays no more than the others.
        if (cold.Remove(kind)) { foreach (FilePath layer in layers) { Work.Do("walk", layer, 1); } }
        return layers;
    }

    private FilePath[] Make(string kind)
    {
        FilePath place = New(); // a short name: the options of the kernel's overlayfs must fit a page
        string[] words = kind.Split('-');
        int value = words.Length > 1 ? int.Parse(words[1]) : 0;
        return words[0] switch
        {
            "main" => MakeMain(place),
            "source" => [MakeSource(place)],
            "entries" => [MakeEntries(place, value)],
            "layers" => MakeLayers(place, value),
            "depth" => [MakeDeep(place, value)],
            "files" => [MakeFiles(place, value)],
            "whiteouts" => [MakeWhiteouts(place, value)],
            "npm" => [MakePackages(place)],
            "dotnet" => [MakeApplication(place)],
            "debian" => [MakeDebian(place)],
            _ => throw new ArgumentException($"There are no layers {kind}."),
        };
    }

    /// <summary>The bottom has everything; the upper one of the two, ten files of every other directory once more.</summary>
    private FilePath[] MakeMain(FilePath place)
    {
        FilePath[] layers = MakeDirectories(place, 2);
        Work.Do("create", layers[1] / "t", sizes.Files);
        Work.Do("create-flat", layers[1] / "flat", sizes.Entries);
        byte[] content = new byte[1 << 20];
        new Random(1).NextBytes(content);
        using (Descriptor big = Sys.Open(layers[1] / "big", OpenFlags.WriteOnly | OpenFlags.Create, Octal.Oct(644)))
        {
            for (int i = 0; i < sizes.BigFile; i++) { big.Write(content); }
        }
        Sys.MakeDirectory(layers[0] / "t", Octal.Oct(755));
        for (int directory = 0; directory < sizes.Files / 100; directory += 2)
        {
            Sys.MakeDirectory(layers[0] / $"t/d{directory}", Octal.Oct(755));
            for (int file = 0; file < 10; file++) { Sys.Write(layers[0] / $"t/d{directory}/f{file}", content.AsSpan(0, 1024)); }
        }
        return layers;
    }

    /// <summary>A tree as of a large program, an archive of it, and a repository of a fifth of it, beside and in the layer.</summary>
    private FilePath MakeSource(FilePath place)
    {
        FilePath lower = place / "lower", tree = lower / "src";
        Sys.MakeDirectory(lower, Octal.Oct(755));
        var random = new Random(1);
        string[] words =
            ["static ", "int ", "return ", "struct ", "layer", "->", "name", "(", ") ", ";\n", "\t", "error", "if ", "{ ", "}\n"];
        for (int i = 0; i < sizes.SourceFiles; i++)
        {
            string directory = $"{tree}/part{i / 1000}/unit{i / 50 % 20}";
            if (i % 50 == 0) { Directory.CreateDirectory(directory); }
            var text = new StringBuilder(i % 1000 == 0 ? "needle\n" : "");
            for (int size = random.Next(200, 5000); text.Length < size;) { text.Append(words[random.Next(words.Length)]); }
            Sys.Write($"{directory}/file{i}.c", text.ToString(), Octal.Oct(644));
        }
        Command.Require("tar", "-cf", SourceArchive, "-C", lower, "src");
        if (Contender.IsThere("git"))
        {
            FilePath copy = Beside / "repository";
            Sys.MakeDirectory(copy);
            string parts = Math.Max(1, sizes.SourceFiles / 5000).ToString(CultureInfo.InvariantCulture);
            Shell($"""
                cd {copy}; git init -q .
                for part in {tree}/part*; do cp -a $part .; [ $(ls | wc -l) -lt {parts} ] || break; done
                git add . && git -c user.name=bench -c user.email=bench@localhost commit -qm first
                cp -a . {lower}/repository; git -C {lower}/repository status --porcelain
                """);
        }
        return lower;
    }

    public FilePath SourceArchive => Beside / "source.tar";

    private static FilePath MakeEntries(FilePath place, int count)
    {
        Work.Do("create-flat", place / "flat", count);
        return place;
    }

    /// <summary>
    /// What an upper holds over <c>entries-COUNT</c> once all entries are removed: whiteouts that, as the kernel makes them, are
    /// names of one inode.
    /// </summary>
    private static FilePath MakeWhiteouts(FilePath place, int count)
    {
        const int links = 32_000; // fewer than any filesystem permits
        Sys.MakeDirectory(place / "flat", Octal.Oct(755));
        FilePath first = default;
        for (int i = 0; i < count; i++)
        {
            FilePath name = place / $"flat/entry-{i}";
            if (i % links != 0) { Sys.Link(first, name); }
            else { Sys.MakeWhiteout(first = name); }
        }
        return place;
    }

    /// <summary>Each layer has all directories; the files are in the bottom, so that a lookup goes through all.</summary>
    private FilePath[] MakeLayers(FilePath place, int count)
    {
        FilePath[] layers = MakeDirectories(place, count);
        int files = Math.Min(sizes.Files, 2000);
        Work.Do("create", layers[^1] / "t", files);
        foreach (FilePath layer in layers[..^1])
        {
            Sys.MakeDirectory(layer / "t", Octal.Oct(755));
            for (int directory = 0; directory < files / 100; directory++) { Sys.MakeDirectory(layer / $"t/d{directory}", Octal.Oct(755)); }
        }
        return layers;
    }

    /// <summary>Some files, each below directories of its own.</summary>
    private static FilePath MakeDeep(FilePath place, int depth)
    {
        for (int i = 0; i < 20; i++)
        {
            FilePath directory = place / "t" / $"{i}" + string.Concat(Enumerable.Repeat("/d", depth - 1));
            Directory.CreateDirectory(directory);
            Sys.Write(directory / "file", "content", Octal.Oct(644));
        }
        return place;
    }

    private static FilePath MakeFiles(FilePath place, int count)
    {
        Sys.MakeDirectory(place / "t", Octal.Oct(755));
        for (int part = 0; part * 1000 < count; part++)
        {
            Work.Do("create-flat", place / $"t/part{part}", Math.Min(1000, count - (part * 1000)));
        }
        return place;
    }

    private static FilePath[] MakeDirectories(FilePath place, int count)
    {
        FilePath[] directories = [.. Enumerable.Range(0, count).Select(i => place / $"{i}")];
        foreach (FilePath directory in directories) { Sys.MakeDirectory(directory, Octal.Oct(755)); }
        return directories;
    }

    /// <summary>Runs a script that must succeed.</summary>
    public static void Shell(string script, int seconds = 300)
    {
        Command.Result result = Command.Run(["sh", "-ec", script], seconds);
        if (result.ExitCode != 0) { throw new InvalidOperationException($"exit code {result.ExitCode}: {result.Text}"); }
    }

    public void Dispose()
    {
        _ = Libc.Unmount(Home.Bytes, lazy: true); // best effort: gone with the namespace at the latest
        _ = Libc.Unmount(room.Bytes, lazy: true); // best effort: as above
        // The directory stays: to remove it would unmount what another run has there in its own namespace.
    }
}
