namespace Veneer.Mount.Tests;

/// <summary>
/// An object that has lost its last name works on for those who hold it. However many there are, they do not use up the server's
/// descriptors.
/// </summary>
public sealed class OrphanTests
{
    /// <summary>The server may have so few descriptors.</summary>
    private const int Few = 256;

    /// <summary>More than the server has descriptors.</summary>
    private const int Many = 300;

    private static readonly uint Anybodys = Oct(777);

    private static Overlay MountWithFew(Tree? lower = null)
    {
        Overlay overlay = Overlay.With(lower: lower ?? Tree.Of(("d", Node.Directory().Mode(Anybodys)), ("d/f", "known")), mounted: false,
            seconds: 60);
        overlay.Mount(Mounter.UnderTest.IsVeneer ? Mounter.VeneerUnder($"prlimit --nofile={Few}") : null);
        return overlay;
    }

    [MountFact]
    public void Unlinked_files_that_are_only_named_by_descriptors_are_as_they_were()
    {
        using Overlay overlay = MountWithFew();
        FilePath d = overlay.Merged / "d";
        using (Actor user = Actor.User())
        {
            user.Do(() =>
            {
                var held = new List<Descriptor>();
                for (int i = 0; i < Many; i++)
                {
                    Sys.Write(d / $"{i}", $"content {i}");
                    held.Add(Sys.Open(d / $"{i}", OpenFlags.Path));
                    if (i % 3 == 0) { Sys.Write(d / "over", ""); }
                    if (i % 3 == 0) { Sys.Rename(d / "over", d / $"{i}"); } // replaced
                    Sys.Unlink(d / $"{i}");
                }
                for (int i = 0; i < Many; i++)
                {
                    Assert.Equal((0u, 1000u), (held[i].Stat().Nlink, held[i].Stat().Uid));
                    using Descriptor file = held[i].Reopen(OpenFlags.ReadWrite);
                    Assert.Equal($"content {i}", file.ReadAllText());
                    file.ChangeMode(Oct(600));
                    file.WriteAt("C", 0);
                    Assert.Equal($"Content {i}", file.ReadAllText());
                    Assert.Equal(Errno.ENOENT, Sys.ErrorOf(() => file.LinkTo(d / "again")));
                }
                AssertThatOthersWork(overlay);
                held.ForEach(one => one.Dispose());
            });
        }
        Assert.Equal(["f"], d.Entries());
        AssertThatWorkIsEmpty(overlay);
    }

    [MountFact]
    public void Removed_directories_that_are_open_are_as_they_were()
    {
        using Overlay overlay = MountWithFew(Tree.Of([
            ("d", Node.Directory().Mode(Anybodys)), ("d/f", "known"),
            .. Enumerable.Range(0, Many)
                .Where(i => i % 4 == 0)
                .Select(i => ($"d/{i}", Node.Directory().Mode(Anybodys).OwnedBy(1000, 1000)))]));
        FilePath d = overlay.Merged / "d";
        using (Actor user = Actor.User())
        {
            user.Do(() =>
            {
                var held = new List<Descriptor>();
                for (int i = 0; i < Many; i++)
                {
                    if (i % 4 != 0) { Sys.MakeDirectory(d / $"{i}", Oct(755)); }
                    else { Sys.ChangeMode(d / $"{i}", Oct(700)); }
                    held.Add(Sys.Open(d / $"{i}", OpenFlags.ReadOnly | OpenFlags.Directory));
                    if (i % 4 == 1)
                    {
                        Sys.MakeDirectory(d / "over", Oct(700));
                        Sys.Rename(d / "over", d / $"{i}");
                    }
                    Sys.RemoveDirectory(d / $"{i}");
                }
                for (int i = 0; i < Many; i++)
                {
                    Descriptor directory = held[i];
                    directory.ChangeMode(Oct(711));
                    Assert.Equal(Oct(711), directory.Stat().Mode & ModeBits.Mask);
                    Assert.Equal(Errno.ENOENT, Libc.MakeDirectoryAt(directory.Value, "new\0"u8, Oct(755)));
                    Assert.Equal(Errno.ENOENT, Libc.StatAt(directory.Value, "new\0"u8, StatxMask.Basic, out _));
                }
                AssertThatOthersWork(overlay);
                held.ForEach(one => one.Dispose());
            });
        }
        Assert.Equal(["f"], d.Entries());
        AssertThatWorkIsEmpty(overlay);
    }

    [MountFact(OnlyVeneer = "A limit of the server's.")]
    public void A_user_with_many_open_files_leaves_some_for_others()
    {
        using Overlay overlay = MountWithFew();
        FilePath d = overlay.Merged / "d";
        foreach (Func<int, Descriptor> open in (Func<int, Descriptor>[])[
            _ => Sys.Open(d, OpenFlags.TemporaryFile | OpenFlags.ReadWrite, Oct(600)),
            i => Unlinked(d / $"{i}"),
            _ => Sys.Open(d / "f", OpenFlags.ReadOnly),
            i => Sys.Open(d / $"own{i}", OpenFlags.Create | OpenFlags.ReadWrite, Oct(600))])
        {
            using Actor greedy = Actor.User(), other = Actor.User(1001, 1001);
            int count = greedy.Do(() =>
            {
                int opened = 0;
                Errno error;
                while ((error = Sys.ErrorOf(() => _ = open(opened))) == Errno.None) { opened++; }
                Assert.Equal(Errno.ENFILE, error);
                return opened;
            });
            Assert.InRange(count, 30, Few / 2);

            other.Do(() => AssertThatOthersWork(overlay));
            using var own = Sys.Open(d / "f", OpenFlags.ReadOnly);
            Assert.Equal("known", own.ReadAllText());
        }
    }

    /// <summary>The reserve of root: several users together do not take it.</summary>
    [MountFact(OnlyVeneer = "A limit of the server's.")]
    public void Users_with_many_open_files_leave_some_for_root()
    {
        using Overlay overlay = MountWithFew();
        FilePath f = overlay.Merged / "d/f";
        Actor[] users = [.. Enumerable.Range(1000, 4).Select(uid => Actor.User((uint)uid, (uint)uid))];
        try
        {
            foreach (Actor user in users)
            {
                user.Do(() => { while (Sys.ErrorOf(() => _ = Sys.Open(f, OpenFlags.ReadOnly)) == Errno.None) { } });
            }
            Assert.NotEqual(Errno.None, users[0].ErrorOf(() => Sys.Open(f, OpenFlags.ReadOnly)));
            AssertThatOthersWork(overlay);
        }
        finally
        {
            foreach (Actor user in users) { user.Dispose(); }
        }
    }

    /// <summary>A file that was made without a name may get one, unless its maker has said that it may not.</summary>
    [MountFact]
    public void Temporary_files_get_their_names_though_there_are_many_without()
    {
        using Overlay overlay = MountWithFew();
        FilePath d = overlay.Merged / "d";
        var held = new List<Descriptor>();
        for (int i = 0; i < 100; i++)
        {
            Sys.Write(d / "x", "");
            held.Add(Sys.Open(d / "x", OpenFlags.Path));
            Sys.Unlink(d / "x");
        }
        using (Descriptor temporary = Sys.Open(d, OpenFlags.TemporaryFile | OpenFlags.ReadWrite, Oct(600)))
        using (Descriptor nameless = Sys.Open(d, OpenFlags.TemporaryFile | OpenFlags.ReadWrite | OpenFlags.Exclusive, Oct(600)))
        {
            temporary.Write("temporary");
            Assert.Equal((0u, 0u), (temporary.Stat().Nlink, nameless.Stat().Nlink));

            Assert.Equal(Errno.ENOENT, Sys.ErrorOf(() => nameless.LinkTo(d / "never")));
            temporary.LinkTo(d / "named");

            Assert.Equal(1u, temporary.Stat().Nlink);
            Assert.Equal("temporary", Sys.ReadText(d / "named"));
        }
        held.ForEach(one => one.Dispose());
        Assert.Equal(["f", "named"], d.Entries());
        Assert.Equal(1u, Sys.Stat(overlay.Upper / "d/named").Nlink);
        AssertThatWorkIsEmpty(overlay);
    }

    /// <summary>One name goes, and the kernel has not been told of the other one.</summary>
    [MountFact]
    public void Of_a_file_with_two_names_one_is_counted_after_the_other_is_gone()
    {
        using Overlay overlay = MountWithFew();
        FilePath d = overlay.Merged / "d";
        for (int i = 0; i < 100; i++)
        {
            Sys.Write(d / $"a{i}", $"{i}");
            Sys.Link(d / $"a{i}", d / $"b{i}");
        }
        overlay.Unmount();
        overlay.Mount(Mounter.UnderTest.IsVeneer ? Mounter.VeneerUnder($"prlimit --nofile={Few}") : null);
        var held = new List<Descriptor>();
        for (int i = 0; i < 100; i++)
        {
            held.Add(Sys.Open(d / $"a{i}", OpenFlags.Path));
            Sys.Unlink(d / $"a{i}");
            Assert.Equal(1u, held[i].Stat().Nlink);
        }
        for (int i = 0; i < 100; i++)
        {
            Assert.Equal((held[i].Stat().Ino, 1u), (Sys.Stat(d / $"b{i}").Ino, Sys.Stat(d / $"b{i}").Nlink));
            Assert.Equal($"{i}", Sys.ReadText(d / $"b{i}"));
            Sys.Unlink(d / $"b{i}");
            Assert.Equal(0u, held[i].Stat().Nlink);
            using Descriptor file = held[i].Reopen(OpenFlags.ReadOnly);
            Assert.Equal($"{i}", file.ReadAllText());
        }
        held.ForEach(one => one.Dispose());
        AssertThatWorkIsEmpty(overlay);
    }

    /// <summary>The first change after all names of a lower file are gone copies it for who has it open, and for no longer.</summary>
    [MountFact]
    public void A_lower_file_that_has_lost_all_its_names_is_copied_for_who_has_it_open()
    {
        using Overlay overlay = MountWithFew(Tree.Of(("d", Node.Directory().Mode(Anybodys)), ("d/one", "content"),
            ("d/two", Node.HardLink("d/one")), ("d/three", Node.HardLink("d/one"))));
        FilePath d = overlay.Merged / "d";
        using (Descriptor file = Sys.Open(d / "one", OpenFlags.ReadOnly))
        {
            ulong ino = file.Stat().Ino;
            foreach (string name in (string[])["one", "two", "three"])
            {
                _ = Sys.Stat(d / name);
                Sys.Unlink(d / name);
            }

            file.ChangeMode(Oct(600));

            Assert.Equal((ino, 0u, Oct(600)), (file.Stat().Ino, file.Stat().Nlink, file.Stat().Mode & Oct(777)));
            using Descriptor writer = file.Reopen(OpenFlags.ReadWrite);
            writer.WriteAt("C", 0);
            Assert.Equal("Content", writer.ReadAllText());
        }
        Assert.Empty(d.Entries());
        AssertThatWorkIsEmpty(overlay);
    }

    private static Descriptor Unlinked(FilePath path)
    {
        Descriptor file = Sys.Open(path, OpenFlags.Create | OpenFlags.ReadWrite, Oct(600));
        Sys.Unlink(path);
        return file;
    }

    private static void AssertThatOthersWork(Overlay overlay)
    {
        FilePath d = overlay.Merged / "d";
        Assert.Equal("known", Sys.ReadText(d / "f"));
        FilePath own = d / $"mine{Environment.CurrentManagedThreadId}";
        Sys.MakeDirectory(own, Oct(755));
        Sys.Write(own / "file", "written");
        Assert.Equal("written", Sys.ReadText(own / "file"));
        Assert.Equal(["file"], own.Entries());
        Sys.Unlink(own / "file");
        Sys.RemoveDirectory(own);
    }

    /// <summary>The kernel forgets an inode a moment after its last user has gone.</summary>
    private static void AssertThatWorkIsEmpty(Overlay overlay) => Patience.Eventually(() => Assert.Empty(overlay.Leftovers));
}
