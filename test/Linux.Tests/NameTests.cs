using static Veneer.Linux.Tests.TemporaryDirectory;

namespace Veneer.Linux.Tests;

/// <summary>Names in a directory, and the attributes of what they stand for.</summary>
public sealed class NameTests : IDisposable
{
    private readonly TemporaryDirectory directory = new();

    public void Dispose() => directory.Dispose();

    [Fact]
    public void Attributes_are_those_of_the_name()
    {
        directory.Write("file", "12345");
        File.SetUnixFileMode(directory.Path + "/file", (UnixFileMode)0b110_100_000);
        var modified = new DateTime(2001, 2, 3, 4, 5, 6, DateTimeKind.Utc);
        File.SetLastWriteTimeUtc(directory.Path + "/file", modified.AddTicks(1234567));

        Assert.Equal(Errno.None,
            Libc.StatAt(directory.Descriptor, "file\0"u8, StatxMask.Basic | StatxMask.BirthTime | StatxMask.MountId, out Statx stat));

        Assert.Equal(StatxMask.Basic, stat.Mask & StatxMask.Basic);
        Assert.True(stat.IsRegular);
        Assert.False(stat.IsDirectory || stat.IsSymbolicLink || stat.IsWhiteoutDevice);
        Assert.Equal(5u, stat.Size);
        Assert.Equal(1u, stat.Nlink);
        Assert.Equal(FileType.Regular | 0b110_100_000u, stat.Mode);
        Assert.Equal(new DateTimeOffset(modified).ToUnixTimeSeconds(), stat.ModifyTime.Seconds);
        Assert.Equal(123456700u, stat.ModifyTime.Nanoseconds);
        Assert.Equal((Libc.EffectiveUid, Libc.EffectiveGid), (stat.Uid, stat.Gid));
        Assert.NotEqual(0u, stat.MountId);
        Assert.NotEqual(0u, stat.Dev);
    }

    [Fact]
    public void A_descriptor_has_the_same_attributes_as_its_name()
    {
        directory.Write("file", "x");
        File.CreateSymbolicLink(directory.Path + "/link", "file");
        using Fd link = directory.Open("link", OpenFlags.Path | OpenFlags.NoFollow);

        Assert.Equal(Errno.None, Libc.StatAt(link.Value, Libc.Self, StatxMask.Basic, out Statx byDescriptor));
        Statx byName = directory.Stat("link");

        Assert.True(byName.IsSymbolicLink);
        Assert.Equal((byName.Ino, byName.Dev, byName.Mode), (byDescriptor.Ino, byDescriptor.Dev, byDescriptor.Mode));
        Assert.NotEqual(directory.Stat("file").Ino, byName.Ino);
    }

    [Fact]
    public void The_root_of_a_mount_is_known_as_one()
    {
        Assert.Equal(Errno.None, Libc.StatAt(Libc.AtCwd, "/proc\0"u8, StatxMask.Basic, out Statx mount));
        Assert.Equal(Errno.None, Libc.StatAt(Libc.AtCwd, "/proc/self\0"u8, StatxMask.Basic, out Statx below));

        Assert.Equal(Statx.AttributeMountRoot, mount.Attributes & Statx.AttributeMountRoot);
        Assert.Equal(0u, below.Attributes & Statx.AttributeMountRoot);
        Assert.Equal(Statx.AttributeMountRoot, below.AttributesMask & Statx.AttributeMountRoot);
    }

    [Fact]
    public void A_name_that_is_not_there_or_too_long_is_said_so()
    {
        Assert.Equal(Errno.ENOENT, Libc.StatAt(directory.Descriptor, "none\0"u8, StatxMask.Basic, out _));
        Assert.Equal(Errno.ENAMETOOLONG, Libc.StatAt(directory.Descriptor, Name(new string('n', 256)), StatxMask.Basic, out _));
    }

    [Fact]
    public void Directories_are_made_and_removed()
    {
        Assert.Equal(Errno.None, Libc.MakeDirectoryAt(directory.Descriptor, "sub\0"u8, 0b111_000_000));
        Assert.Equal(FileType.Directory | 0b111_000_000u, directory.Stat("sub").Mode);
        Assert.Equal(Errno.EEXIST, Libc.MakeDirectoryAt(directory.Descriptor, "sub\0"u8, 0b111_000_000));
        directory.Write("sub/file", "");
        Assert.Equal(Errno.ENOTEMPTY, Libc.RemoveDirectoryAt(directory.Descriptor, "sub\0"u8));
        Assert.Equal(Errno.EISDIR, Libc.UnlinkAt(directory.Descriptor, "sub\0"u8));
        Assert.Equal(Errno.None, Libc.UnlinkAt(directory.Descriptor, "sub/file\0"u8));
        Assert.Equal(Errno.None, Libc.RemoveDirectoryAt(directory.Descriptor, "sub\0"u8));
        Assert.False(directory.Has("sub"));
    }

    [Fact]
    public void Nodes_of_every_kind_are_made()
    {
        Needs.Root();
        Assert.Equal(Errno.None, Libc.MakeNodeAt(directory.Descriptor, "fifo\0"u8, FileType.Fifo | 0b110_000_000, 0));
        Assert.Equal(Errno.None, Libc.MakeNodeAt(directory.Descriptor, "socket\0"u8, FileType.Socket | 0b110_000_000, 0));
        Assert.Equal(Errno.None, Libc.MakeNodeAt(directory.Descriptor, "file\0"u8, FileType.Regular | 0b110_000_000, 0));
        Assert.Equal(Errno.None, Libc.MakeNodeAt(directory.Descriptor, "whiteout\0"u8, FileType.CharacterDevice, 0));
        Assert.Equal(Errno.None,
            Libc.MakeNodeAt(directory.Descriptor, "device\0"u8, FileType.BlockDevice, DeviceNumber.Encode(259, 70_000)));

        Assert.Equal(FileType.Fifo, directory.Stat("fifo").Type);
        Assert.Equal(FileType.Socket, directory.Stat("socket").Type);
        Assert.True(directory.Stat("file").IsRegular);
        Assert.True(directory.Stat("whiteout").IsWhiteoutDevice);
        Statx device = directory.Stat("device");
        Assert.Equal((FileType.BlockDevice, 259u, 70_000u), (device.Type, device.RdevMajor, device.RdevMinor));
        Assert.Equal(DeviceNumber.Encode(259, 70_000), device.Rdev);
        Assert.False(device.IsWhiteoutDevice);
    }

    [Fact]
    public void Symbolic_links_are_made_and_read()
    {
        Assert.Equal(Errno.None, Libc.SymbolicLinkAt("some/target\0"u8, directory.Descriptor, "link\0"u8));

        byte[] buffer = new byte[64];
        Assert.Equal(Errno.None, Libc.ReadLinkAt(directory.Descriptor, "link\0"u8, buffer, out int length));
        Assert.Equal("some/target"u8, buffer.AsSpan(0, length));
        using Fd link = directory.Open("link", OpenFlags.Path | OpenFlags.NoFollow);
        Assert.Equal(Errno.None, Libc.ReadLinkAt(link.Value, Libc.Self, buffer, out length));
        Assert.Equal("some/target"u8, buffer.AsSpan(0, length));
        Assert.Equal(Errno.None, Libc.ReadLinkAt(directory.Descriptor, "link\0"u8, buffer.AsSpan(0, 4), out length));
        Assert.Equal("some"u8, buffer.AsSpan(0, length)); // cut without a word: the buffer must be large enough
        directory.Write("file", "");
        Assert.Equal(Errno.EINVAL, Libc.ReadLinkAt(directory.Descriptor, "file\0"u8, buffer, out _));
    }

    [Fact]
    public void A_link_is_another_name_and_never_follows()
    {
        directory.Write("file", "x");
        File.CreateSymbolicLink(directory.Path + "/symbolic", "file");

        Assert.Equal(Errno.None, Libc.LinkAt(directory.Descriptor, "file\0"u8, directory.Descriptor, "second\0"u8));
        Assert.Equal(Errno.None, Libc.LinkAt(directory.Descriptor, "symbolic\0"u8, directory.Descriptor, "third\0"u8));

        Assert.Equal(directory.Stat("file").Ino, directory.Stat("second").Ino);
        Assert.Equal(2u, directory.Stat("file").Nlink);
        Assert.True(directory.Stat("third").IsSymbolicLink);
        Assert.Equal(Errno.EEXIST, Libc.LinkAt(directory.Descriptor, "file\0"u8, directory.Descriptor, "second\0"u8));
    }

    [Fact]
    public void A_temporary_file_gets_its_first_name()
    {
        using Fd file = directory.Open(".", OpenFlags.TemporaryFile | OpenFlags.ReadWrite, 0b110_000_000);
        Assert.Equal(Errno.None, Libc.Write(file.Value, "content"u8, out _));
        Assert.Empty(Directory.EnumerateFileSystemEntries(directory.Path));

        Assert.Equal(Errno.None, Libc.LinkDescriptor(file.Value, directory.Descriptor, "named\0"u8));

        Assert.Equal("content", directory.Read("named"));
        Assert.Equal(Errno.EEXIST, Libc.LinkDescriptor(file.Value, directory.Descriptor, "named\0"u8));
    }

    [Fact]
    public void An_exclusive_temporary_file_never_gets_a_name()
    {
        using Fd file = directory.Open(".", OpenFlags.TemporaryFile | OpenFlags.ReadWrite | OpenFlags.Exclusive, 0b110_000_000);

        Assert.Equal(Errno.ENOENT, Libc.LinkDescriptor(file.Value, directory.Descriptor, "named\0"u8));
    }

    [Fact]
    public void What_a_path_descriptor_stands_for_gets_another_name_even_if_it_is_a_symbolic_link()
    {
        File.CreateSymbolicLink(directory.Path + "/link", "nowhere");
        using Fd link = directory.Open("link", OpenFlags.Path | OpenFlags.NoFollow);

        Assert.Equal(Errno.None, Libc.LinkDescriptor(link.Value, directory.Descriptor, "second\0"u8));

        Assert.Equal(directory.Stat("link").Ino, directory.Stat("second").Ino);
    }

    private Errno Rename(string from, string to, RenameFlags flags) =>
        Libc.RenameAt(directory.Descriptor, Name(from), directory.Descriptor, Name(to), flags);

    [Fact]
    public void A_rename_replaces_unless_it_is_told_not_to()
    {
        directory.Write("a", "a");
        directory.Write("b", "b");

        Assert.Equal(Errno.EEXIST, Rename("a", "b", RenameFlags.NoReplace));
        Assert.Equal("b", directory.Read("b"));
        Assert.Equal(Errno.None, Rename("a", "b", RenameFlags.None));
        Assert.Equal("a", directory.Read("b"));
        Assert.False(directory.Has("a"));
        Assert.Equal(Errno.ENOENT, Rename("a", "b", RenameFlags.None));
    }

    [Fact]
    public void An_exchange_swaps_two_names_of_any_kind()
    {
        directory.Write("file", "x");
        Directory.CreateDirectory(directory.Path + "/sub");

        Assert.Equal(Errno.None, Rename("file", "sub", RenameFlags.Exchange));

        Assert.True(directory.Stat("file").IsDirectory);
        Assert.Equal("x", directory.Read("sub"));
        Assert.Equal(Errno.ENOENT, Rename("file", "none", RenameFlags.Exchange));
        Assert.Equal(Errno.EINVAL, Rename("file", "sub", RenameFlags.Exchange | RenameFlags.NoReplace));
    }

    [Fact]
    public void A_rename_can_leave_a_whiteout()
    {
        Needs.Root();
        directory.Write("file", "x");

        Assert.Equal(Errno.None, Rename("file", "moved", RenameFlags.Whiteout));

        Assert.Equal("x", directory.Read("moved"));
        Assert.True(directory.Stat("file").IsWhiteoutDevice);
    }

    [Fact]
    public void A_mode_is_changed_by_name_and_by_descriptor()
    {
        directory.Write("file", "x");
        using Fd path = directory.Open("file", OpenFlags.Path);

        Assert.Equal(Errno.None, Libc.ChangeModeAt(directory.Descriptor, "file\0"u8, 0b110_010_001));
        Assert.Equal(FileType.Regular | 0b110_010_001u, directory.Stat("file").Mode);
        Assert.Equal(Errno.None, Libc.ChangeModeAt(path.Value, Libc.Self, ModeBits.SetUid | 0b111_101_101));
        Assert.Equal(FileType.Regular | ModeBits.SetUid | 0b111_101_101u, directory.Stat("file").Mode);
        Assert.Equal(Errno.ENOENT, Libc.ChangeModeAt(directory.Descriptor, "none\0"u8, 0));
    }

    [Fact]
    public void The_mode_of_what_a_symbolic_link_leads_to_is_left_alone()
    {
        directory.Write("file", "x");
        File.CreateSymbolicLink(directory.Path + "/link", "file");
        ushort before = directory.Stat("file").Mode;

        Assert.Equal(Errno.EOPNOTSUPP, Libc.ChangeModeAt(directory.Descriptor, "link\0"u8, 0b111_111_111));

        Assert.Equal(before, directory.Stat("file").Mode);
    }

    [Fact]
    public void Kernels_without_fchmodat2_are_served_and_no_descriptor_is_left_open()
    {
        directory.Write("file", "x");
        File.CreateSymbolicLink(directory.Path + "/link", "file");
        using Fd path = directory.Open("file", OpenFlags.Path), link = directory.Open("link", OpenFlags.Path | OpenFlags.NoFollow);
        int before = OpenHere();

        Assert.Equal(Errno.None, Libc.ChangeModeThroughProc(directory.Descriptor, "file\0"u8, 0b110_010_001));
        Assert.Equal(FileType.Regular | 0b110_010_001u, directory.Stat("file").Mode);
        Assert.Equal(Errno.None, Libc.ChangeModeThroughProc(path.Value, Libc.Self, 0b111_101_101));
        Assert.Equal(FileType.Regular | 0b111_101_101u, directory.Stat("file").Mode);
        Assert.Equal(Errno.EOPNOTSUPP, Libc.ChangeModeThroughProc(directory.Descriptor, "link\0"u8, 0));
        Assert.Equal(Errno.EOPNOTSUPP, Libc.ChangeModeThroughProc(link.Value, Libc.Self, 0));
        Assert.Equal(Errno.ENOENT, Libc.ChangeModeThroughProc(directory.Descriptor, "none\0"u8, 0));
        Assert.Equal(FileType.Regular | 0b111_101_101u, directory.Stat("file").Mode);

        Assert.Equal(before, OpenHere());

        // Descriptors of the test's own directory: other tests run at the same time.
        int OpenHere() => Directory.EnumerateFileSystemEntries("/proc/self/fd")
            .Count(entry => new FileInfo(entry).LinkTarget?.StartsWith(directory.Path, StringComparison.Ordinal) == true);
    }

    [Fact]
    public void An_owner_is_changed_in_part_and_also_of_a_symbolic_link()
    {
        Needs.Root();
        directory.Write("file", "x");
        File.CreateSymbolicLink(directory.Path + "/link", "file");
        using Fd path = directory.Open("file", OpenFlags.Path);

        Assert.Equal(Errno.None, Libc.ChangeOwnerAt(directory.Descriptor, "link\0"u8, 12, 34));
        Assert.Equal((12u, 34u), (directory.Stat("link").Uid, directory.Stat("link").Gid));
        Assert.Equal((0u, 0u), (directory.Stat("file").Uid, directory.Stat("file").Gid));
        Assert.Equal(Errno.None, Libc.ChangeOwnerAt(path.Value, Libc.Self, uint.MaxValue, 56));
        Assert.Equal((0u, 56u), (directory.Stat("file").Uid, directory.Stat("file").Gid));
    }

    [Fact]
    public void Times_are_set_left_alone_and_set_to_now()
    {
        directory.Write("file", "x");
        long start = DateTimeOffset.UtcNow.ToUnixTimeSeconds() - 1;

        Assert.Equal(Errno.None, Libc.ChangeTimesAt(directory.Descriptor, "file\0"u8, new TimeSpec { Seconds = 1000, Nanoseconds = 1 },
            new TimeSpec { Seconds = -5, Nanoseconds = 999_999_999 }));
        Statx stat = directory.Stat("file");
        Assert.Equal((1000, 1u), (stat.AccessTime.Seconds, stat.AccessTime.Nanoseconds));
        Assert.Equal((-5, 999_999_999u), (stat.ModifyTime.Seconds, stat.ModifyTime.Nanoseconds));

        Assert.Equal(Errno.None, Libc.ChangeTimesAt(directory.Descriptor, "file\0"u8, TimeSpec.Omit, TimeSpec.Now));
        stat = directory.Stat("file");
        Assert.Equal(1000, stat.AccessTime.Seconds);
        Assert.InRange(stat.ModifyTime.Seconds, start, start + 60);

        Assert.Equal(Errno.None, Libc.ChangeTimesAt(directory.Descriptor, "file\0"u8, TimeSpec.Now,
            TimeSpec.From(new StatxTime { Seconds = 7, Nanoseconds = 8 })));
        stat = directory.Stat("file");
        Assert.InRange(stat.AccessTime.Seconds, start, start + 60);
        Assert.Equal((7, 8u), (stat.ModifyTime.Seconds, stat.ModifyTime.Nanoseconds));
        Assert.Equal(Errno.EINVAL,
            Libc.ChangeTimesAt(directory.Descriptor, "file\0"u8, new TimeSpec { Nanoseconds = 1_000_000_000 }, TimeSpec.Omit));
    }

    [Fact]
    public void Times_of_a_symbolic_link_and_of_a_path_descriptor_are_their_own()
    {
        directory.Write("file", "x");
        File.CreateSymbolicLink(directory.Path + "/link", "file");
        long before = directory.Stat("file").ModifyTime.Seconds;
        using Fd path = directory.Open("link", OpenFlags.Path | OpenFlags.NoFollow);

        Assert.Equal(Errno.None, Libc.ChangeTimesAt(directory.Descriptor, "link\0"u8, TimeSpec.Omit, new TimeSpec { Seconds = 100 }));
        Assert.Equal(100, directory.Stat("link").ModifyTime.Seconds);
        Assert.Equal(Errno.None, Libc.ChangeTimesAt(path.Value, Libc.Self, TimeSpec.Omit, new TimeSpec { Seconds = 200 }));
        Assert.Equal(200, directory.Stat("link").ModifyTime.Seconds);
        Assert.Equal(before, directory.Stat("file").ModifyTime.Seconds);
    }

    [Fact]
    public void Entries_of_a_directory_are_read_to_the_end()
    {
        var expected = new SortedSet<string>(StringComparer.Ordinal) { ".", ".." };
        for (int i = 0; i < 100; i++)
        {
            directory.Write($"file{i}", "");
            expected.Add($"file{i}");
        }
        byte[] buffer = new byte[512];
        var found = new List<string>();
        while (true)
        {
            Assert.Equal(Errno.None, Libc.ReadDirectory(directory.Descriptor, buffer, out int count));
            if (count == 0) { break; }
            for (int at = 0; at < count; at += BitConverter.ToUInt16(buffer, at + 16))
            {
                int length = buffer.AsSpan(at + 19).IndexOf((byte)0);
                found.Add(System.Text.Encoding.UTF8.GetString(buffer, at + 19, length));
            }
        }

        Assert.Equal(expected, found.Order(StringComparer.Ordinal));
        Assert.Equal(Errno.EINVAL, ReadIntoTooSmall());

        Errno ReadIntoTooSmall()
        {
            Assert.Equal(Errno.None, Libc.Seek(directory.Descriptor, 0, SeekWhence.Set, out _));
            return Libc.ReadDirectory(directory.Descriptor, new byte[8], out _);
        }
    }

    [Fact]
    public void Access_asks_for_the_object_behind_the_descriptor()
    {
        directory.Write("file", "");
        File.SetUnixFileMode(directory.Path + "/file", UnixFileMode.UserRead);
        using Fd path = directory.Open("file", OpenFlags.Path);

        Assert.Equal(Errno.None, Libc.Access(path.Value, AccessMode.Read));
        Assert.Equal(Errno.EACCES, Libc.Access(path.Value, AccessMode.Execute)); // root too may execute only what is executable
        Assert.Equal(Errno.None, Libc.Access(directory.Descriptor, AccessMode.Read | AccessMode.Write | AccessMode.Execute));
    }
}
