using System.Text;

namespace Veneer.Mount.Tests;

/// <summary>A reader holds a lower file open when a writer comes: the lower never changes, and nothing that is written is lost.</summary>
/// <remarks>
/// An overlay that hands the kernel the lower file for the reader, and then serves the writer with the same handle, writes
/// into the lower layer. What each test does to the lower layer is looked at when its overlay is disposed.
/// </remarks>
public sealed class ReaderAndWriterTests
{
    private const int Small = 12_000, Large = 8 << 20;

    /// <summary>From this size on reads of a lower file pass the server by with passthrough=lower, as docs/differences.md says.</summary>
    private const int PassedThrough = 1 << 20;

    /// <summary>The kinds of file that are treated differently: small or large, an ELF image or not.</summary>
    public static TheoryData<int, bool> Files => new() { { Small, false }, { Small, true }, { Large, false }, { Large, true } };

    [MountTheory]
    [MemberData(nameof(Files))]
    public void A_reader_sees_what_is_appended_later(int size, bool program)
    {
        using Overlay overlay = WithFile(size, program);
        using Descriptor reader = Open(overlay);
        Assert.Equal(Content(size, program), reader.ReadAll());

        Sys.Append(overlay.Merged / "file", "appended");

        Assert.Equal([.. Content(size, program), .. "appended"u8], Sys.Read(overlay.Merged / "file"));
        Assert.Equal([.. Content(size, program), .. "appended"u8], Sys.Read(overlay.Upper / "file"));
        AssertCoherent(reader, [.. Content(size, program), .. "appended"u8], size, program);
    }

    [MountTheory]
    [MemberData(nameof(Files))]
    public void A_reader_sees_what_is_written_over_the_beginning(int size, bool program)
    {
        using Overlay overlay = WithFile(size, program);
        using Descriptor reader = Open(overlay);
        Assert.Equal(Content(size, program)[..10], reader.ReadAt(0, 10));

        using (Descriptor writer = Sys.Open(overlay.Merged / "file", OpenFlags.ReadWrite))
        {
            writer.WriteAt("WRITTEN", 3);
            Assert.Equal("WRITTEN", writer.TextAt(3, 7));
            AssertCoherent(reader, Changed(size, program, 3, "WRITTEN"), size, program);
        }
        Assert.Equal(Changed(size, program, 3, "WRITTEN"), Sys.Read(overlay.Merged / "file"));
    }

    [MountTheory]
    [MemberData(nameof(Files))]
    public void A_writer_through_a_shared_map_changes_only_the_upper(int size, bool program)
    {
        using Overlay overlay = WithFile(size, program);
        using Descriptor reader = Open(overlay);
        using Map seen = reader.Map(size);
        Assert.Equal(Text(size, program)[..5], seen.Text(0, 5));

        using (Descriptor writer = Sys.Open(overlay.Merged / "file", OpenFlags.ReadWrite))
        using (Map map = writer.Map(size, write: true))
        {
            map.Write(0, "MAPPED");
            map.Write(size - 3, "END");
            map.Sync();
            Assert.Equal("MAPPED", writer.TextAt(0, 6));
        }

        byte[] expected = Encoding.Latin1.GetBytes(string.Concat("MAPPED", Text(size, program).AsSpan(6, size - 9), "END"));
        Assert.Equal(expected, Sys.Read(overlay.Merged / "file"));
        Assert.Equal(expected, Sys.Read(overlay.Upper / "file"));
        AssertCoherent(reader, expected, size, program);
    }

    [MountTheory]
    [MemberData(nameof(Files))]
    public void A_private_map_is_written_nowhere(int size, bool program)
    {
        using Overlay overlay = WithFile(size, program);
        using Descriptor reader = Open(overlay);
        using Map map = reader.Map(size, write: true, shared: false);

        map.Write(0, "MINE");

        Assert.Equal("MINE", map.Text(0, 4));
        Assert.Equal(Text(size, program)[..4], reader.TextAt(0, 4));
        Assert.Empty(overlay.Upper.Entries());
    }

    [MountTheory]
    [MemberData(nameof(Files))]
    public void A_reader_survives_that_the_file_is_overwritten_from_nothing(int size, bool program)
    {
        using Overlay overlay = WithFile(size, program);
        using Descriptor reader = Open(overlay);
        Assert.Equal(Content(size, program)[..10], reader.ReadAt(0, 10));

        Sys.Write(overlay.Merged / "file", "all new");

        Assert.Equal("all new", Sys.ReadText(overlay.Merged / "file"));
        Assert.Equal("all new", Sys.ReadText(overlay.Upper / "file"));
        AssertCoherent(reader, "all new"u8.ToArray(), size, program);
    }

    [MountTheory]
    [MemberData(nameof(Files))]
    public void A_reader_that_is_reopened_through_proc_can_become_a_writer(int size, bool program)
    {
        using Overlay overlay = WithFile(size, program);
        using Descriptor reader = Open(overlay);
        using Descriptor place = Sys.Open(overlay.Merged / "file", OpenFlags.Path);
        Assert.Equal(Content(size, program)[..10], reader.ReadAt(0, 10));

        if (Mounter.UnderTest.PassesLower && (program || size >= PassedThrough))
        {
            // The kernel reads or maps the lower file itself, and there is no name to look up again: docs/differences.md.
            Assert.Equal(Errno.ESTALE, Sys.ErrorOf(() => reader.Reopen(OpenFlags.ReadWrite)));
            Assert.Equal(Errno.ESTALE, Sys.ErrorOf(() => reader.Reopen(OpenFlags.ReadOnly)));
            return;
        }
        using Descriptor writer = reader.Reopen(OpenFlags.ReadWrite);
        writer.WriteAt("ONE", 0);
        using Descriptor other = place.Reopen(OpenFlags.WriteOnly | OpenFlags.Append);
        other.Write("TWO");

        byte[] expected = [.. Changed(size, program, 0, "ONE"), .. "TWO"u8];
        Assert.Equal(expected, writer.ReadAll());
        Assert.Equal(expected, Sys.Read(overlay.Merged / "file"));
        Assert.Equal(expected, Sys.Read(overlay.Upper / "file"));
        AssertCoherent(reader, expected, size, program);
    }

    [MountTheory]
    [MemberData(nameof(Files))]
    public void A_map_is_written_in_its_place_though_its_descriptor_appends(int size, bool program)
    {
        using Overlay overlay = WithFile(size, program);
        using Descriptor reader = Open(overlay);
        using Descriptor writer = Sys.Open(overlay.Merged / "file", OpenFlags.ReadWrite | OpenFlags.Append);
        using (Map map = writer.Map(size, write: true))
        {
            map.Write(5, "MAP");
            map.Sync();
        }
        writer.Write("end");

        byte[] expected = [.. Changed(size, program, 5, "MAP"), .. "end"u8];
        Assert.Equal(expected, Sys.Read(overlay.Merged / "file"));
        Assert.Equal(expected, Sys.Read(overlay.Upper / "file"));
    }

    [MountTheory]
    [MemberData(nameof(Files))]
    public void A_file_can_be_truncated_while_it_is_mapped(int size, bool program)
    {
        using Overlay overlay = WithFile(size, program);
        using Descriptor reader = Open(overlay);
        using Map map = reader.Map(size);
        Assert.Equal(Text(size, program)[..5], map.Text(0, 5));

        Sys.Truncate(overlay.Merged / "file", 3);
        Sys.Append(overlay.Merged / "file", "after");

        Assert.Equal(Text(size, program)[..3], map.Text(0, 3));
        Assert.Equal(Text(size, program)[..3] + "after", Sys.ReadText(overlay.Merged / "file"));
        AssertCoherent(reader, [.. Content(size, program)[..3], .. "after"u8], size, program);
    }

    [MountTheory]
    [MemberData(nameof(Files))]
    public void Two_names_of_one_file_with_a_reader_each_never_change_the_lower(int size, bool program)
    {
        using var overlay = Overlay.With(lower: Tree.Of(("a", Node.File(Content(size, program)).Mode(program ? Oct(755) : Oct(644))),
            ("b", Node.HardLink("a"))));
        using Descriptor readerA = Sys.Open(overlay.Merged / "a", OpenFlags.ReadOnly),
            readerB = Sys.Open(overlay.Merged / "b", OpenFlags.ReadOnly);
        Assert.Equal(Content(size, program)[..10], readerA.ReadAt(0, 10));
        Assert.Equal(Content(size, program)[..10], readerB.ReadAt(0, 10));

        Sys.Append(overlay.Merged / "a", "A");
        Sys.Append(overlay.Merged / "b", "B");

        Assert.Equal(Text(size, program) + (Mounter.UnderTest.IsVeneer ? "AB" : "A"), Sys.ReadText(overlay.Merged / "a"));
        Assert.Equal(Text(size, program) + (Mounter.UnderTest.IsVeneer ? "AB" : "B"), Sys.ReadText(overlay.Merged / "b"));
        Assert.Equal(Content(size, program), readerA.ReadAt(0, size));
        Assert.Equal(Content(size, program), readerB.ReadAt(0, size));
    }

    [MountTheory]
    [MemberData(nameof(Files))]
    public void A_running_program_can_be_replaced_and_written(int size, bool program)
    {
        using Overlay overlay = WithFile(size, program);
        using Descriptor reader = Open(overlay), second = Open(overlay);
        using Map map = reader.Map(size, shared: false);
        Assert.Equal(Text(size, program)[..5], map.Text(0, 5));

        Sys.Write(overlay.Merged / "new", "replacement");
        Sys.Rename(overlay.Merged / "new", overlay.Merged / "file");

        Assert.Equal(Content(size, program), reader.ReadAll());
        Assert.Equal(Content(size, program), second.ReadAll());
        Assert.Equal(Text(size, program)[(size - 5)..], map.Text(size - 5, 5));
        Assert.Equal("replacement", Sys.ReadText(overlay.Merged / "file"));
    }

    [MountTheory]
    [MemberData(nameof(Files))]
    public void Readers_and_writers_that_come_and_go_never_meet_an_error(int size, bool program)
    {
        using Overlay overlay = WithFile(size, program);
        FilePath path = overlay.Merged / "file";
        using Descriptor first = Open(overlay);
        _ = first.ReadAt(0, 100);
        for (int round = 0; round < 10; round++)
        {
            using Descriptor reader = Sys.Open(path, OpenFlags.ReadOnly);
            using Map map = reader.Map(size);
            _ = map.Read(0, 100);
            using Descriptor writer = Sys.Open(path, round % 2 == 0 ? OpenFlags.ReadWrite : OpenFlags.WriteOnly | OpenFlags.Append);
            writer.WriteAt($"{round}", round);
            using Descriptor later = Sys.Open(path, OpenFlags.ReadOnly);
            if (round % 2 == 0) { Assert.Equal($"{round}", later.TextAt(round, 1)); }
            _ = first.ReadAt(0, 100);
        }
        Assert.Equal(size + 5, Sys.Read(path).Length);
    }

    [MountTheory]
    [MemberData(nameof(Files))]
    public void What_is_changed_through_a_descriptor_from_before_shows_under_the_name(int size, bool program)
    {
        using Overlay overlay = WithFile(size, program);
        using Descriptor before = Sys.Open(overlay.Merged / "file", OpenFlags.ReadOnly);
        using (Descriptor writer = Sys.Open(overlay.Merged / "file", OpenFlags.WriteOnly)) { writer.WriteAt("x", 10); }
        _ = Sys.Stat(overlay.Merged / "file");

        before.ChangeMode(Oct(604));
        Assert.Equal(Oct(604), Sys.Stat(overlay.Merged / "file").Mode & ModeBits.Mask);
        before.ChangeOwner(1, 2);
        Assert.Equal((1u, 2u), (Sys.Stat(overlay.Merged / "file").Uid, Sys.Stat(overlay.Merged / "file").Gid));
        before.ChangeTimes(new TimeSpec { Seconds = 5 }, new TimeSpec { Seconds = 6 });
        Assert.Equal(6, Sys.Stat(overlay.Merged / "file").ModifyTime.Seconds);
        Sys.ChangeMode(overlay.Merged / "file", Oct(600));
        Assert.Equal(Oct(600), before.Stat().Mode & ModeBits.Mask);
    }

    [MountTheory]
    [MemberData(nameof(Files))]
    public void What_is_sent_by_sendfile_is_what_is_read(int size, bool program)
    {
        using Overlay overlay = WithFile(size, program);
        using Descriptor reader = Open(overlay);
        Assert.Equal(Content(size, program), Sent(overlay, reader));

        using Descriptor writer = Sys.Open(overlay.Merged / "file", OpenFlags.WriteOnly);
        writer.WriteAt("WRITTEN", 30);

        byte[] written = Changed(size, program, 30, "WRITTEN");
        AssertCoherent(reader, written, size, program);
        byte[] sent = Sent(overlay, reader);
        if (Mounter.UnderTest.PassesLower && program)
        {
            // Of a program the kernel may have kept pages to send: docs/differences.md.
            Assert.True(sent.AsSpan().SequenceEqual(Content(size, program)) || sent.AsSpan().SequenceEqual(written));
        }
        else
        {
            Assert.Equal(reader.ReadAll(), sent);
        }
        using Descriptor later = Open(overlay);
        Assert.Equal(written, Sent(overlay, later));
    }

    [MountFact(OnlyVeneer = "The option is Veneer's.", PassesThrough = true)]
    public void Who_asked_for_it_goes_on_reading_a_large_lower_file_that_is_copied_up()
    {
        using Overlay overlay = WithFile(Large, program: true, PassLower);
        using Descriptor reader = Open(overlay);
        Sys.Append(overlay.Merged / "file", "appended");

        Assert.Equal(Content(Large, program: true), reader.ReadAll());
        using Descriptor later = Open(overlay);
        Assert.Equal("appended", later.TextAt(Large, 8));
    }

    [MountFact(NotOfKernel = "There a shared map of a lower file goes stale at copy-up, as its documentation says.")]
    public void A_shared_map_of_a_small_file_sees_what_is_written_later()
    {
        using Overlay overlay = WithFile(Small, program: false);
        using Descriptor reader = Open(overlay);
        using Map map = reader.Map(Small);
        Assert.Equal(Text(Small, program: false)[..5], map.Text(0, 5));

        using Descriptor writer = Sys.Open(overlay.Merged / "file", OpenFlags.WriteOnly);
        writer.WriteAt("LATER", 0);

        Assert.Equal("LATER", map.Text(0, 5));
    }

    /// <summary>A reader that was there before sees all that was written, if this overlay promises it for such a file.</summary>
    private static void AssertCoherent(Descriptor reader, byte[] expected, int size, bool program)
    {
        byte[] seen = reader.ReadAll();
        Assert.Equal(IsStale(size) ? Content(size, program) : expected, seen);
    }

    /// <summary>
    /// The option with which a file gets a new nodeid when it is changed while somebody reads it. Only Veneer has such an option.
    /// </summary>
    private static string PassLower => Mounter.UnderTest.IsVeneer ? "passthrough=lower" : "";

    /// <summary>Whether a reader that was there before goes on seeing the lower file.</summary>
    private static bool IsStale(int size) => Mounter.UnderTest.PassesLower && size >= PassedThrough;

    /// <summary>What sendfile(2) puts into a file beside the layers.</summary>
    private static byte[] Sent(Overlay overlay, Descriptor reader)
    {
        using Descriptor target = Sys.Open(overlay.Beside("sent"), OpenFlags.ReadWrite | OpenFlags.Create | OpenFlags.Truncate, Oct(600));
        reader.SendAllTo(target);
        return target.ReadAll();
    }

    private static Overlay WithFile(int size, bool program, string options = "") =>
        Overlay.With(lower: Tree.Of(("file", Node.File(Content(size, program)).Mode(program ? Oct(755) : Oct(644)))), options: options);

    private static Descriptor Open(Overlay overlay) => Sys.Open(overlay.Merged / "file", OpenFlags.ReadOnly);

    private static byte[] Content(int size, bool program = false)
    {
        byte[] content = new byte[size];
        for (int i = 0; i < size; i++) { content[i] = (byte)('a' + ((i ^ (i >> 12)) % 26)); }
        if (program) { "\u007FELF"u8.CopyTo(content); }
        return content;
    }

    private static string Text(int size, bool program) => Encoding.Latin1.GetString(Content(size, program));

    private static byte[] Changed(int size, bool program, int offset, string text)
    {
        byte[] content = Content(size, program);
        Encoding.Latin1.GetBytes(text).CopyTo(content, offset);
        return content;
    }

    /// <summary>One of them gives the file its new nodeid, the others come through the old one.</summary>
    [MountFact]
    public void Many_may_open_a_large_lower_file_for_writing_at_once_while_it_is_read()
    {
        const int files = 20, writers = 6;
        using var overlay = Overlay.With(
            lower: Tree.Of([.. Enumerable.Range(0, files).Select(i => ($"f{i}", Node.File(new byte[2 << 20])))]), options: PassLower);
        var failures = new System.Collections.Concurrent.ConcurrentBag<string>();
        for (int i = 0; i < files; i++)
        {
            FilePath file = overlay.Merged / $"f{i}";
            using Descriptor reader = Sys.Open(file, OpenFlags.ReadOnly);
            using var together = new Barrier(writers);
            Thread[] threads = [.. Enumerable.Range(0, writers).Select(writer => new Thread(() =>
            {
                together.SignalAndWait();
                try
                {
                    using Descriptor opened = Sys.Open(file, writer % 3 == 2 ? OpenFlags.ReadOnly : OpenFlags.ReadWrite);
                    if (writer % 3 != 2) { opened.WriteAt([(byte)(writer + 1)], writer); }
                }
                catch (SysException problem) { failures.Add(problem.Message); }
            }))];
            foreach (Thread thread in threads) { thread.Start(); }
            foreach (Thread thread in threads) { thread.Join(); }
            Assert.Empty(failures);
            Assert.Equal<byte>([1, 2, 0, 4, 5, 0], Sys.Read(file).AsSpan(0, writers).ToArray());
        }
    }
}
