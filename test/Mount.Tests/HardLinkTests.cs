namespace Veneer.Mount.Tests;

/// <summary>All names of a file are one file.</summary>
public sealed class HardLinkTests
{
    [MountFact]
    public void A_link_to_a_lower_file_brings_it_up_with_both_names()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("d/file", "content"), ("e/x", "")));

        Sys.Link(overlay.Merged / "d/file", overlay.Merged / "e/link");
        Sys.Append(overlay.Merged / "e/link", "!");

        Assert.Equal("content!", Sys.ReadText(overlay.Merged / "d/file"));
        Assert.Equal((2u, 2u), (Sys.Stat(overlay.Merged / "d/file").Nlink, Sys.Stat(overlay.Merged / "e/link").Nlink));
        Assert.Equal(Sys.Stat(overlay.Merged / "d/file").Ino, Sys.Stat(overlay.Merged / "e/link").Ino);
        Assert.Equal(Sys.Stat(overlay.Upper / "d/file").Ino, Sys.Stat(overlay.Upper / "e/link").Ino);
        Sys.Unlink(overlay.Merged / "d/file");
        Assert.Equal(1u, Sys.Stat(overlay.Merged / "e/link").Nlink);
        overlay.Remount();
        Assert.Equal("content!", Sys.ReadText(overlay.Merged / "e/link"));
    }

    [MountFact]
    public void Names_of_one_lower_file_have_one_inode_and_the_count_of_the_layer()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("a", "content"), ("d/b", Node.HardLink("a")), ("c", Node.HardLink("a"))));

        Statx[] stats = [Sys.Stat(overlay.Merged / "a"), Sys.Stat(overlay.Merged / "d/b"), Sys.Stat(overlay.Merged / "c")];

        Assert.Single(stats.Select(s => s.Ino).Distinct());
        Assert.All(stats, s => Assert.Equal(3u, s.Nlink));
    }

    [MountFact(NotOfKernel = "Without index=on a copy-up breaks the link between the names of a lower file there.")]
    public void Names_of_one_lower_file_stay_one_file_when_it_is_written()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("a", "content"), ("d/b", Node.HardLink("a")), ("c", Node.HardLink("a"))));
        ulong ino = Sys.Stat(overlay.Merged / "a").Ino;

        Sys.Append(overlay.Merged / "d/b", "!");

        foreach (string name in new[] { "a", "d/b", "c" })
        {
            Assert.Equal("content!", Sys.ReadText(overlay.Merged / name));
            Assert.Equal((ino, 3u), (Sys.Stat(overlay.Merged / name).Ino, Sys.Stat(overlay.Merged / name).Nlink));
        }
        Sys.Append(overlay.Merged / "a", "?");
        Assert.Equal("content!?", Sys.ReadText(overlay.Merged / "c"));
        Sys.ChangeMode(overlay.Merged / "c", Oct(600));
        Assert.Equal(Oct(600), Sys.Stat(overlay.Merged / "d/b").Mode & ModeBits.Mask);
    }

    [MountFact(OnlyVeneer = "The kernel has an index.")]
    public void An_index_is_refused_rather_than_ignored()
    {
        var refusal = Assert.Throws<InvalidOperationException>(() => Overlay.With(lower: Tree.Of(("a", "content")), options: "index=on"));

        Assert.Contains("index=on is not supported yet", refusal.Message, StringComparison.Ordinal);
    }

    [MountFact(NotOfKernel = "Without index=on a copy-up breaks the link between the names of a lower file there.")]
    public void Without_an_index_the_names_that_were_used_stay_one_file_after_a_remount()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("a", "content"), ("d/b", Node.HardLink("a")), ("never", Node.HardLink("a"))));
        // Held, so that the kernel does not forget it when another test drops all caches.
        using (Sys.Open(overlay.Merged / "a", OpenFlags.Path)) { Sys.Append(overlay.Merged / "d/b", "!"); }
        overlay.Remount();

        Assert.Equal("content!", Sys.ReadText(overlay.Merged / "a"));
        Assert.Equal("content!", Sys.ReadText(overlay.Merged / "d/b"));
        Assert.Equal(Sys.Stat(overlay.Merged / "a").Ino, Sys.Stat(overlay.Merged / "d/b").Ino);
        Assert.Equal("content", Sys.ReadText(overlay.Merged / "never"));
    }

    [MountFact]
    public void An_open_file_follows_its_inode_and_not_its_name()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("a", "content")));
        Sys.Link(overlay.Merged / "a", overlay.Merged / "b");
        using Descriptor file = Sys.Open(overlay.Merged / "a", OpenFlags.ReadWrite);

        Sys.Unlink(overlay.Merged / "a");
        Sys.Write(overlay.Merged / "a", "another");
        file.WriteAt("C", 0);

        Assert.Equal("Content", Sys.ReadText(overlay.Merged / "b"));
        Assert.Equal("another", Sys.ReadText(overlay.Merged / "a"));
    }

    [MountFact]
    public void Links_to_directories_and_to_what_is_there_are_refused()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("dir/x", ""), ("a", ""), ("b", "")));

        Assert.Equal(Errno.EPERM, Sys.ErrorOf(() => Sys.Link(overlay.Merged / "dir", overlay.Merged / "new")));
        Assert.Equal(Errno.EEXIST, Sys.ErrorOf(() => Sys.Link(overlay.Merged / "a", overlay.Merged / "b")));
        Assert.Equal(Errno.ENOENT, Sys.ErrorOf(() => Sys.Link(overlay.Merged / "none", overlay.Merged / "new")));
        using Descriptor other = Sys.Open("/tmp", OpenFlags.TemporaryFile | OpenFlags.WriteOnly, Oct(600));
        Assert.Equal(Errno.EXDEV, Sys.ErrorOf(() => other.LinkTo(overlay.Merged / "new")));
    }

    [MountFact]
    public void A_link_to_a_symbolic_link_is_the_symbolic_link()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("sym", Node.Link("target")), ("target", "content")));

        Sys.Link(overlay.Merged / "sym", overlay.Merged / "sym2");
        Sys.Link(overlay.Merged / "sym", overlay.Merged / "target2", follow: true);

        Assert.Equal("target", Sys.ReadLink(overlay.Merged / "sym2"));
        Assert.Equal(2u, Sys.Stat(overlay.Merged / "target").Nlink);
    }

    /// <summary>A process may have only so many open files, and a tree may have more hard-linked files than that.</summary>
    [MountTheory(NotOfKernel = "It has no server.")]
    [InlineData("copied up")]
    [InlineData("linked and unlinked")]
    [InlineData("linked and renamed over")]
    [InlineData("made without a name")]
    public void Files_with_several_names_cost_the_server_no_descriptors(string way)
    {
        var lower = new List<(string, Node)>();
        for (int i = 0; i < 100; i++) { lower.AddRange([($"d/a{i}", "content"), ($"d/b{i}", Node.HardLink($"d/a{i}"))]); }
        using var overlay = Overlay.With(lower: Tree.Of([.. lower]));
        FilePath d = overlay.Merged / "d", held = $"/proc/{overlay.Servers.Single()}/fd";
        Sys.Write(d / "other", "");
        int before = held.Entries().Length;

        for (int i = 0; i < 100; i++)
        {
            FilePath name = d / $"name{i}", final = d / $"final{i}";
            switch (way)
            {
                case "copied up":
                    Sys.ChangeMode(d / $"a{i}", Oct(600));
                    Sys.Unlink(d / $"a{i}");
                    Sys.Rename(d / $"b{i}", final);
                    break;
                case "made without a name":
                    using (Descriptor file = Sys.Open(d, OpenFlags.TemporaryFile | OpenFlags.WriteOnly, Oct(600)))
                    {
                        file.Write("content");
                        file.LinkTo(final);
                    }
                    break;
                default:
                    Sys.Write(name, "content");
                    Sys.Link(name, final);
                    if (way == "linked and unlinked") { Sys.Unlink(name); }
                    else { Sys.Rename(d / "other", name); Sys.Rename(name, d / "other"); }
                    break;
            }
        }

        // Nobody waits for the server to close what close(2) has closed.
        Patience.Eventually(() => Assert.InRange(held.Entries().Length, 0, before + 20));
        for (int i = 0; i < 100; i++)
        {
            Sys.Append(d / $"final{i}", "!");
            Assert.Equal(("content!", 1u), (Sys.ReadText(d / $"final{i}"), Sys.Stat(d / $"final{i}").Nlink));
        }
    }

    [MountFact]
    public void A_file_that_lost_all_its_names_stays_with_whoever_has_it_open()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("a", "content"), ("d/b", Node.HardLink("a"))));
        _ = Sys.Stat(overlay.Merged / "d/b");
        using Descriptor reader = Sys.Open(overlay.Merged / "a", OpenFlags.ReadOnly);
        using (Descriptor writer = Sys.Open(overlay.Merged / "d/b", OpenFlags.ReadWrite))
        {
            Sys.Unlink(overlay.Merged / "a");
            Sys.Unlink(overlay.Merged / "d/b");
            writer.WriteAt("C", 0);
            writer.ChangeMode(Oct(640));

            Assert.Equal("Content", writer.TextAt(0, 7));
            Assert.Equal((0u, Oct(640)), (writer.Stat().Nlink, writer.Stat().Mode & ModeBits.Mask));
        }
        Assert.Empty(overlay.Leftovers);
    }
}
