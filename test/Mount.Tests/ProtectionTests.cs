namespace Veneer.Mount.Tests;

/// <summary>
/// Append-only and immutable files, as chattr(1) makes them. What is forbidden is forbidden on every way that leads to the bytes.
/// </summary>
public sealed class ProtectionTests
{
    private const uint Immutable = 0x10, AppendOnly = 0x20;
    private const int DoNotAppendThis = 0x20;
    private const string Content = "0123456789";

    /// <summary>
    /// Where the flag was set: through the overlay, on a file of upper or of lower; or on the real object in upper or in lower.
    /// </summary>
    public static TheoryData<string> Places => ["upper", "lower", "real upper", "real lower"];

    [MountTheory]
    [MemberData(nameof(Places))]
    public void An_append_only_file_is_appended_to_and_no_more(string place)
    {
        using Overlay overlay = WithFile(place, AppendOnly, out Action release);
        FilePath path = overlay.Merged / "file";
        try
        {
            foreach (OpenFlags refused in (OpenFlags[])[OpenFlags.WriteOnly, OpenFlags.ReadWrite, OpenFlags.ReadOnly | OpenFlags.Truncate,
                OpenFlags.WriteOnly | OpenFlags.Append | OpenFlags.Truncate])
            {
                Assert.Equal(Errno.EPERM, Sys.ErrorOf(() => Sys.Open(path, refused)));
            }
            Sys.Append(path, "A");
            using (Descriptor file = Sys.Open(path, OpenFlags.ReadWrite | OpenFlags.Append),
                source = Sys.Open(overlay.Merged / "other", OpenFlags.ReadOnly))
            {
                file.WriteAt("B", 0);
                Assert.Equal(Content + "AB", file.ReadAllText());
                Assert.Equal(Errno.EPERM, Sys.ErrorOf(() => file.Truncate(3)));
                Assert.Equal(Errno.EPERM, Sys.ErrorOf(() => file.Truncate(30)));
                Assert.Equal(Errno.EPERM, Sys.ErrorOf(() => file.Allocate(AllocateMode.KeepSize | AllocateMode.PunchHole, 0, 4)));
                Assert.Equal(Errno.EBADF, Sys.ErrorOf(() => source.CopyRangeTo(file, 0, 0, 4)));
                Assert.Equal(Errno.EPERM, Sys.ErrorOf(() => file.WriteAt("@"u8, 0, DoNotAppendThis)));
                // FUSE cannot have it refused with EACCES.
                Assert.Contains(Sys.ErrorOf(() => file.Map(4, write: true).Dispose()), (Errno[])[Errno.EACCES, Errno.ENODEV]);
                using (Map map = file.Map(4, write: true, shared: false)) { map.Write(0, "MINE"); }
                // The kernel refuses the first, a FUSE file what follows.
                _ = Sys.ErrorOf(() => file.SetStatus(0));
                _ = Sys.ErrorOf(() => file.WriteAt("@@", 0));
                Assert.Equal(Errno.EBADF, Sys.ErrorOf(() => source.CopyRangeTo(file, 0, 0, 4)));
                Assert.Equal(Errno.EPERM, Sys.ErrorOf(() => file.Truncate(3)));
            }
            using (Descriptor reader = Sys.Open(path, OpenFlags.ReadOnly), second = Sys.Open(path, OpenFlags.WriteOnly | OpenFlags.Append))
            using (Map map = reader.Map(4))
            {
                string before = reader.ReadAllText();
                Assert.Equal(Content[..4], map.Text(0, 4));
                second.Write("C");
                Assert.Equal(before + "C", reader.ReadAllText());
                Assert.StartsWith(Content + "AB", before, StringComparison.Ordinal);
            }
            AssertName(overlay, path);
        }
        finally
        {
            release();
        }
        Assert.StartsWith(Content + "AB", Sys.ReadText(path), StringComparison.Ordinal);
        if (place.StartsWith("real", StringComparison.Ordinal)) { return; }
        using Descriptor free = Sys.Open(path, OpenFlags.ReadWrite);
        free.WriteAt("free", 0);
        Assert.Equal("free", Sys.ReadText(path)[..4]);
    }

    [MountTheory]
    [MemberData(nameof(Places))]
    public void An_immutable_file_stays(string place)
    {
        using Overlay overlay = WithFile(place, Immutable, out Action release);
        FilePath path = overlay.Merged / "file";
        try
        {
            foreach (OpenFlags refused in (OpenFlags[])[OpenFlags.WriteOnly, OpenFlags.WriteOnly | OpenFlags.Append,
                OpenFlags.ReadWrite | OpenFlags.Append, OpenFlags.ReadOnly | OpenFlags.Truncate])
            {
                Assert.Equal(Errno.EPERM, Sys.ErrorOf(() => Sys.Open(path, refused)));
            }
            AssertName(overlay, path);
            Assert.Equal(Errno.EPERM, Sys.ErrorOf(() => Sys.ChangeTimes(path, TimeSpec.Now, TimeSpec.Now)));
            if (place != "real upper") { Sys.ChangeOwner(path, uint.MaxValue, uint.MaxValue); } // changes nothing
            Assert.Equal(Content, Sys.ReadText(path));
        }
        finally
        {
            release();
        }
    }

    /// <summary>Whoever had the file open before goes on as with the kernel.</summary>
    [MountFact]
    public void Descriptors_from_before_write_in_place()
    {
        using var overlay = Overlay.With(on: Filesystem.Ext4, lower: Tree.Of(("file", Content), ("other", "other")));
        FilePath path = overlay.Merged / "file";
        using Descriptor file = Sys.Open(path, OpenFlags.ReadWrite), source = Sys.Open(overlay.Merged / "other", OpenFlags.ReadOnly);
        Protect(path, AppendOnly);
        try
        {
            file.WriteAt("@", 0);
            Assert.Equal(Errno.EPERM, Sys.ErrorOf(() => file.Truncate(3)));
            Protect(path, Immutable);
            file.WriteAt("#", 1);
            file.Truncate(8);
            file.Sync();
            Assert.Equal(Errno.EPERM, Sys.ErrorOf(() => file.Allocate(AllocateMode.KeepSize, 0, 100)));
            Assert.Equal(Errno.EPERM, Sys.ErrorOf(() => source.CopyRangeTo(file, 0, 0, 4)));
            Assert.Equal("@#234567", file.ReadAllText());
        }
        finally
        {
            Protect(path, 0);
        }
    }

    /// <summary>
    /// While somebody has the file open since before, the kernel maps the real file for all who open it: docs/differences.md.
    /// </summary>
    [MountFact(OnlyVeneer = "The kernel knows that its inode is append-only.", PassesThrough = true)]
    public void A_file_that_becomes_append_only_while_it_is_passed_through_is_not_opened_so_that_it_can_be_mapped()
    {
        using var overlay = Overlay.With(on: Filesystem.Ext4, upper: Tree.Of(("file", Content)));
        FilePath path = overlay.Merged / "file";
        using (Descriptor before = Sys.Open(path, OpenFlags.ReadOnly))
        {
            Protect(path, AppendOnly);
            Assert.Equal(Errno.EBUSY, Sys.ErrorOf(() => Sys.Open(path, OpenFlags.ReadWrite | OpenFlags.Append)));
            Sys.Append(path, "A");
            Assert.Equal(Content + "A", before.ReadAllText());
        }
        using (Descriptor file = Sys.Open(path, OpenFlags.ReadWrite | OpenFlags.Append)) { file.Write("B"); }
        Assert.Equal(Content + "AB", Sys.ReadText(path));
        Protect(path, 0);
    }

    [MountTheory]
    [InlineData("upper")]
    [InlineData("lower")]
    public void The_unprivileged_neither_set_nor_clear_the_flags(string place)
    {
        using Overlay overlay = WithFile(place, AppendOnly, out Action release);
        FilePath path = overlay.Merged / "file";
        try
        {
            Sys.ChangeOwner(overlay.Merged / "other", 1000, 1000);
            using Actor user = Actor.User();
            Assert.Equal(Errno.EPERM, user.ErrorOf(() => Protect(overlay.Merged / "other", AppendOnly)));
            Assert.Contains(user.ErrorOf(() => Protect(path, 0)), (Errno[])[Errno.EPERM, Errno.EACCES]);
        }
        finally
        {
            release();
        }
    }

    /// <summary>What neither flag allows to the name and the attributes.</summary>
    private static void AssertName(Overlay overlay, FilePath path)
    {
        FilePath other = overlay.Merged / "other";
        foreach (Action refused in (Action[])
        [
            () => Sys.Truncate(path, 0),
            () => Sys.Unlink(path),
            () => Sys.Rename(path, overlay.Merged / "renamed"),
            () => Sys.Rename(other, path),
            () => Sys.Rename(path, other),
            () => Sys.Rename(path, other, RenameFlags.Exchange),
            () => Sys.Link(path, overlay.Merged / "linked"),
            () => Sys.ChangeMode(path, Oct(600)),
            () => Sys.ChangeOwner(path, 1, 1),
            () => Sys.ChangeTimes(path, new TimeSpec { Seconds = 1 }, new TimeSpec { Seconds = 1 }),
            () => Sys.SetXattr(path, "user.a", "1"),
            () => Sys.SetXattr(path, "trusted.a", "1"),
        ])
        {
            Assert.Equal(Errno.EPERM, Sys.ErrorOf(refused));
        }
        Assert.Equal("other", Sys.ReadText(other));
    }

    [MountFact(NotOfKernel = "It mounts read-only.")]
    public void A_work_directory_that_can_only_be_added_to_serves_again_and_again()
    {
        using var overlay = Overlay.With(on: Filesystem.Ext4, lower: Tree.Of(("file", Content), ("directory/in", "in")),
            options: "fsync=auto", mounted: false);
        Protect(overlay.Work, AppendOnly);
        try
        {
            for (int i = 0; i < 3; i++)
            {
                overlay.Mount();
                Sys.Append(overlay.Merged / "file", $"{i}");
                Sys.MakeDirectory(overlay.Merged / $"directory/{i}");
                overlay.Unmount();
                Assert.All(
                    overlay.Work.Entries(),
                    name => Assert.All((overlay.Work / name).Entries(),
                        inner => Assert.True(Sys.Stat(overlay.Work / name / inner).IsWhiteoutDevice)));
            }
            Assert.Equal(Content + "012", Sys.ReadText(overlay.Upper / "file"));
        }
        finally
        {
            Protect(overlay.Work, 0);
        }
    }

    private static void Protect(FilePath path, uint flags)
    {
        using Descriptor file = Sys.Open(path, OpenFlags.ReadOnly);
        file.SetFlags((file.GetFlags() & ~(Immutable | AppendOnly)) | flags);
    }

    private static Overlay WithFile(string place, uint flags, out Action release)
    {
        Tree tree = Tree.Of(("file", Content), ("other", "other"));
        bool isUpper = place.EndsWith("upper", StringComparison.Ordinal);
        FilePath lower = Scratch.New(Filesystem.Ext4);
        if (!isUpper) { tree.MakeAt(lower); }
        var overlay = Overlay.With(on: Filesystem.Ext4, over: [lower], upper: isUpper ? tree : null, mounted: false);
        FilePath real = (isUpper ? overlay.Upper : lower) / "file";
        if (!place.StartsWith("real", StringComparison.Ordinal))
        {
            overlay.Mount();
            Protect(overlay.Merged / "file", flags);
            release = () => Protect(overlay.Merged / "file", 0);
            return overlay;
        }
        Protect(real, flags);
        overlay.Mount();
        release = () =>
        {
            Protect(real, 0);
            if ((overlay.Upper / "file").Exists) { Protect(overlay.Upper / "file", 0); }
        };
        return overlay;
    }
}
