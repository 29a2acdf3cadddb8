namespace Veneer.Mount.Tests;

/// <summary>What stat says is true at once, also of what changed without a request that named it.</summary>
public sealed class AttributeTests
{
    [MountTheory]
    [InlineData(Filesystem.Tmpfs)]
    [InlineData(Filesystem.Ext4)]
    public void A_copy_up_shows_in_the_directories_above(Filesystem filesystem)
    {
        using var overlay = Overlay.With(on: filesystem, lower: Tree.Of(("a/b/file", "x"), ("a/b/other", "y"), ("a/c", "z")));
        string[] directories = [".", "a", "a/b"];
        foreach (string change in new[] { "a/b/file", "a/b/other", "a/c" })
        {
            foreach (string directory in directories) { _ = Sys.Stat(overlay.Merged / directory); } // now the kernel has them cached

            Sys.Open(overlay.Merged / change, OpenFlags.WriteOnly).Dispose();

            foreach (string directory in directories) { Assert.Equal(Seen(overlay.Upper / directory), Seen(overlay.Merged / directory)); }
        }
    }

    [MountFact]
    public void A_copy_up_shows_in_the_file_itself()
    {
        using var overlay = Overlay.With(lower: Tree.Of(("file", "x")));
        _ = Sys.Stat(overlay.Merged / "file");

        Sys.Open(overlay.Merged / "file", OpenFlags.WriteOnly).Dispose();

        // The kernel hears of it from another thread than the one that answers.
        Patience.Eventually(() => Assert.Equal(Seen(overlay.Upper / "file"), Seen(overlay.Merged / "file")));
    }

    public static TheoryData<string, string> Operations
    {
        get
        {
            var data = new TheoryData<string, string>();
            foreach (string layer in (string[])["lower", "upper"])
            {
                foreach (string operation in (string[])[
                    "setxattr", "removexattr", "set ACL", "remove ACL", "fallocate", "punch", "copy_file_range", "link", "unlink", "rename",
                    "rename over", "exchange", "write", "map", "sendfile",
                    "chmod", "chown", "FS_IOC_SETFLAGS", "FS_IOC_FSSETXATTR", "O_TRUNC"]) { data.Add(layer, operation); }
            }
            return data;
        }
    }

    [MountTheory]
    [MemberData(nameof(Operations))]
    public void What_an_operation_changes_shows_at_once(string layer, string operation)
    {
        Node file = Node.File(new string('x', 10_000))
            .Attribute("user.old", "1")
            .Attribute("system.posix_acl_access", Acl.Of(owner: 6, user: (1000, 6), group: 4, mask: 6, other: 4));
        Tree tree = Tree.Of(("file", file), ("second", Node.HardLink("file")), ("other", Node.File(new string('y', 5000))), ("third", "z"));
        using Overlay overlay = layer == "lower"
            ? Overlay.With(lower: tree, on: Filesystem.Ext4)
            : Overlay.With(upper: tree, on: Filesystem.Ext4);
        FilePath merged = overlay.Merged / "file", moved = overlay.Merged / "moved";
        // From now on the kernel has them cached.
        foreach (string name in (string[])["file", "second", "other", "third"]) { _ = Sys.Stat(overlay.Merged / name); }

        switch (operation)
        {
            case "setxattr": Sys.SetXattr(merged, "user.new", "1"); break;
            case "removexattr": Sys.RemoveXattr(merged, "user.old"); break;
            case "set ACL":
                Sys.SetXattr(merged, "system.posix_acl_access", Acl.Of(owner: 7, user: (1001, 7), group: 5, mask: 7, other: 5));
                break;
            case "remove ACL": Sys.RemoveXattr(merged, "system.posix_acl_access"); break;
            case "link": Sys.Link(merged, moved); break;
            case "unlink": Sys.Unlink(overlay.Merged / "second"); break;
            case "rename": Sys.Rename(merged, moved); merged = moved; break;
            case "rename over": Sys.Rename(overlay.Merged / "other", overlay.Merged / "second"); break;
            case "exchange": Sys.Rename(overlay.Merged / "other", overlay.Merged / "second", RenameFlags.Exchange); break;
            case "chmod": Sys.ChangeMode(merged, Oct(600)); break;
            case "chown": Sys.ChangeOwner(merged, 5, 6); break;
            default:
                using (Descriptor opened = Sys.Open(merged, OpenFlags.ReadWrite | (operation == "O_TRUNC" ? OpenFlags.Truncate : 0)))
                {
                    Change(opened, overlay.Merged / "other", operation);
                }
                break;
        }

        FilePath real = (overlay.Upper / merged.Name).Exists ? overlay.Upper / merged.Name : overlay.Lower / merged.Name;
        Patience.Eventually(() => Assert.Equal(Whole(real), Whole(merged)));
    }

    private static void Change(Descriptor file, FilePath other, string operation)
    {
        _ = file.Stat();
        switch (operation)
        {
            case "fallocate": file.Allocate(AllocateMode.Default, 20_000, 50_000); break;
            case "punch": file.Allocate(AllocateMode.PunchHole | AllocateMode.KeepSize, 0, 8192); break;
            case "write": file.WriteAt("more", 9_999); break;
            case "copy_file_range":
                using (Descriptor source = Sys.Open(other, OpenFlags.ReadOnly)) { _ = source.CopyRangeTo(file, 0, 8000, 5000); }
                break;
            case "sendfile":
                using (Descriptor source = Sys.Open(other, OpenFlags.ReadOnly)) { source.SendAllTo(file); }
                break;
            case "map":
                using (Map map = file.Map(100, write: true)) { map.Write(0, "x"); }
                file.Sync();
                break;
            case "FS_IOC_SETFLAGS": file.SetFlags(file.GetFlags() | 0x40); break;
            case "FS_IOC_FSSETXATTR":
                uint[] flags = file.GetExtendedFlags();
                flags[0] |= 0x80;
                file.SetExtendedFlags(flags);
                break;
            default: break;
        }
    }

    /// <summary>All that stat(2) tells, but for what an overlay has of its own.</summary>
    private static string Whole(FilePath path)
    {
        Statx stat = Sys.Stat(path);
        return
            $"{Text(stat.Mode)} {stat.Uid}:{stat.Gid} {stat.Size} {stat.Blocks} {stat.ModifyTime.Seconds}.{stat.ModifyTime.Nanoseconds} "
            + $"{stat.ChangeTime.Seconds}.{stat.ChangeTime.Nanoseconds}";
    }

    [MountTheory]
    [InlineData("", "ftruncate", true)]
    [InlineData("five", "ftruncate", true)]
    [InlineData("", "O_TRUNC", true)]
    [InlineData("", "truncate", false)]
    [InlineData("five", "truncate", true)]
    public void A_length_that_stays_sets_the_time_as_the_call_does(string content, string call, bool sets)
    {
        using var overlay = Overlay.With(lower: Tree.Of(("file", content)));
        var old = new TimeSpec { Seconds = 1_000_000 };
        Sys.ChangeTimes(overlay.Merged / "file", old, old);
        for (int round = 0; round < 2; round++)
        {
            switch (call)
            {
                case "truncate":
                    Sys.Truncate(overlay.Merged / "file", content.Length);
                    break;
                default:
                    using (Descriptor file = Sys.Open(overlay.Merged / "file",
                        OpenFlags.WriteOnly | (call == "O_TRUNC" ? OpenFlags.Truncate : 0)))
                    {
                        if (call == "ftruncate") { file.Truncate(content.Length); }
                        Assert.True(file.Stat().ModifyTime.Seconds > 1_000_000);
                    }
                    break;
            }
            Assert.Equal(sets, Sys.Stat(overlay.Merged / "file").ModifyTime.Seconds > 1_000_000);
        }
    }

    [MountTheory]
    [InlineData("lower")]
    [InlineData("upper")]
    [InlineData("created")]
    public void What_is_written_through_a_map_has_a_time(string name)
    {
        using var overlay = Overlay.With(on: Filesystem.Ext4, lower: Tree.Of(("lower", "old text")), upper: Tree.Of(("upper", "old text")));
        FilePath path = overlay.Merged / name;
        using Descriptor file = name == "created"
            ? Sys.Open(path, OpenFlags.ReadWrite | OpenFlags.Create, Oct(644))
            : Sys.Open(path, OpenFlags.ReadWrite);
        _ = file.WriteAt("old text", 0);
        using Map map = file.Map(8, write: true);
        Patience.Eventually(() => Assert.Equal(Seen(overlay.Upper / name), Seen(path)));

        foreach (string word in new[] { "first", "other" })
        {
            (long, uint, ulong) before = Seen(path);
            Thread.Sleep(20); // so that it is another time
            map.Write(0, word);
            map.Sync();

            Assert.NotEqual(before, Seen(overlay.Upper / name));
            Assert.Equal(Seen(overlay.Upper / name), Seen(path));
            file.Dispose(); // the map stays
        }
    }

    private static (long Seconds, uint Nanoseconds, ulong Size) Seen(FilePath path)
    {
        Statx stat = Sys.Stat(path);
        return (stat.ChangeTime.Seconds, stat.ChangeTime.Nanoseconds, stat.Size);
    }
}
