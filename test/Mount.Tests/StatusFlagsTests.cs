namespace Veneer.Mount.Tests;

/// <summary>
/// Flags that fcntl(2) sets or clears after the open, and flags of a single write. The backing file that the kernel holds must
/// not keep the old ones.
/// </summary>
public sealed class StatusFlagsTests
{
    private const int AppendThis = 0x10, DoNotAppendThis = 0x20, SyncThis = 0x2;

    private const int Block = 4096;

    /// <summary>Where the file is that is opened; a large one of lower may be treated in its own way.</summary>
    public static TheoryData<string> Places => ["new", "upper", "small", "large"];

    [MountTheory]
    [MemberData(nameof(Places))]
    public void Without_O_APPEND_what_is_written_is_where_it_belongs(string name)
    {
        using Overlay overlay = WithFiles();
        using Descriptor file = Open(overlay, name, OpenFlags.Append);
        file.Write("tail");
        ulong size = file.Stat().Size;

        file.SetStatus(0);

        file.WriteAt("@@", 0);
        file.WriteAt("##"u8, 2, SyncThis);
        Assert.Equal(("@@##", size), (file.TextAt(0, 4), file.Stat().Size));
        file.WriteAt("end"u8, 0, AppendThis);
        Assert.Equal(("end", size + 3), (file.TextAt((long)size, 3), file.Stat().Size));
        file.SetStatus(OpenFlags.Append);
        file.WriteAt("again", 0);
        Assert.Equal(("@@##", size + 8), (file.TextAt(0, 4), file.Stat().Size));
        Assert.Equal(file.ReadAll(), Sys.Read(overlay.Upper / name));
    }

    [MountTheory]
    [MemberData(nameof(Places))]
    public void With_O_APPEND_set_later_what_is_written_is_at_the_end(string name)
    {
        using Overlay overlay = WithFiles();
        using Descriptor file = Open(overlay, name, 0);
        file.WriteAt("01234567", 0);
        ulong size = file.Stat().Size;

        file.SetStatus(OpenFlags.Append | OpenFlags.NonBlock | OpenFlags.NoAccessTime);

        file.WriteAt("tail", 0);
        Assert.Equal(("01234567", "tail", size + 4), (file.TextAt(0, 8), file.TextAt((long)size, 4), file.Stat().Size));
    }

    [MountTheory(NotOfKernel = "There the real file has O_APPEND, and RWF_NOAPPEND is not passed on.")]
    [MemberData(nameof(Places))]
    public void A_write_that_is_not_to_append_does_not(string name)
    {
        using Overlay overlay = WithFiles();
        using Descriptor file = Open(overlay, name, OpenFlags.Append);
        ulong size = file.Stat().Size;

        file.Write("tail");
        file.WriteAt("@@"u8, 1, DoNotAppendThis);

        Assert.Equal(("@@", size + 4), (file.TextAt(1, 2), file.Stat().Size));
    }

    [MountTheory]
    [MemberData(nameof(Places))]
    public void Without_O_DIRECT_any_length_can_be_read_and_written(string name)
    {
        using Overlay overlay = WithFiles();
        using Map block = Map.Anonymous(Block);
        block.Write(0, "block");
        using Descriptor file = Open(overlay, name, OpenFlags.Direct);
        Assert.Equal(Block, file.WriteFrom(block, 0));
        Assert.Equal(Errno.EINVAL, Sys.ErrorOf(() => file.WriteAt("five!", 7)));
        Assert.Equal(Errno.EINVAL, Sys.ErrorOf(() => file.ReadAt(7, 5)));

        file.SetStatus(0);

        file.WriteAt("five!", 7);
        Assert.Equal("five!", file.TextAt(7, 5));
        Assert.Equal("block", file.TextAt(0, 5));
        file.SetStatus(OpenFlags.Direct);
        Assert.Equal(Errno.EINVAL, Sys.ErrorOf(() => file.WriteAt("five!", 7)));
        Assert.Equal(Block, file.ReadInto(block, 0));
        Assert.Equal("five!", block.Text(7, 5));
    }

    /// <summary>The kernel writes the real file by itself, and does not hear of the flag: docs/differences.md.</summary>
    [MountFact(OnlyVeneer = "The kernel gives EINVAL.", PassesThrough = true)]
    public void O_DIRECT_that_is_set_later_does_no_harm_to_what_is_passed_through()
    {
        using Overlay overlay = WithFiles();
        using Descriptor file = Open(overlay, "upper", 0);
        file.SetStatus(OpenFlags.Direct);
        file.WriteAt("five!", 7);
        Assert.Equal("five!", file.TextAt(7, 5));
    }

    [MountTheory]
    [MemberData(nameof(Places))]
    public void What_goes_past_the_pages_is_what_the_pages_show(string name)
    {
        using Overlay overlay = WithFiles();
        using Descriptor other = Open(overlay, name, 0), direct = Open(overlay, name, OpenFlags.Direct);
        using Map block = Map.Anonymous(3 * Block), read = Map.Anonymous(4 * Block);
        block.Write(0, "A");
        block.Write((3 * Block) - 1, "Z");
        direct.WriteFrom(block, Block);
        Assert.Equal(block.Read(0, 3 * Block), other.ReadAt(Block, 3 * Block));

        other.WriteAt("other", 2 * Block);
        other.Truncate((3 * Block) + 100);

        Assert.Equal((2 * Block) + 100, direct.ReadInto(read, Block)); // up to the end of the file
        Assert.Equal("other", read.Text(Block, 5));
    }

    /// <summary>Writers that the server hears of beside those that it does not: no appended line is lost or torn.</summary>
    [MountTheory]
    [InlineData("")]
    [InlineData("passthrough=off")]
    public void Lines_that_many_append_are_all_there(string options)
    {
        const int lines = 200;
        using var overlay = Overlay.With(lower: Tree.Of(("log", "")), options: Mounter.UnderTest.IsVeneer ? options : "");
        using var together = new Barrier(4);
        void Append(int writer, OpenFlags opened, OpenFlags later)
        {
            using Descriptor file = Sys.Open(overlay.Merged / "log", OpenFlags.WriteOnly | opened);
            file.SetStatus(later);
            together.SignalAndWait();
            for (int i = 0; i < lines; i++) { file.Write($"{writer} {i}\n"); }
        }
        Parallel.Invoke(
            new ParallelOptions { MaxDegreeOfParallelism = 4 },
            () => Append(1, OpenFlags.Append, OpenFlags.Append),
            () => Append(2, OpenFlags.Append, OpenFlags.Append),
            () => Append(3, 0, OpenFlags.Append),
            () => Append(4, 0, OpenFlags.Append));

        Assert.Equal(
            Enumerable.Range(1, 4)
                .SelectMany(writer => Enumerable.Range(0, lines).Select(i => $"{writer} {i}"))
                .Order(StringComparer.Ordinal),
            Sys.ReadText(overlay.Merged / "log").Split('\n', StringSplitOptions.RemoveEmptyEntries).Order(StringComparer.Ordinal));
    }

    private static Overlay WithFiles()
    {
        var overlay = Overlay.With(on: Filesystem.Ext4,
            lower: Tree.Of(("small", new string('s', 5 * Block)), ("large", new string('l', 2 << 20))));
        Sys.Write(overlay.Merged / "upper", new string('u', 5 * Block));
        return overlay;
    }

    private static Descriptor Open(Overlay overlay, string name, OpenFlags flags)
    {
        Descriptor file = Sys.Open(overlay.Merged / name, OpenFlags.ReadWrite | OpenFlags.Create | flags, Oct(644));
        if (file.Stat().Size == 0)
        {
            using Map blocks = Map.Anonymous(5 * Block);
            file.WriteFrom(blocks, 0);
        }
        return file;
    }
}
