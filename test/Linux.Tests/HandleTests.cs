namespace Veneer.Linux.Tests;

/// <summary>File handles: an inode's own name.</summary>
public sealed class HandleTests : IDisposable
{
    private readonly TemporaryDirectory directory = new();

    public void Dispose() => directory.Dispose();

    [Theory]
    [InlineData("file")]
    [InlineData("sub")]
    [InlineData("link")]
    public void A_handle_leads_back_to_its_inode(string name)
    {
        Needs.Root();
        directory.Write("file", "x");
        Directory.CreateDirectory(directory.Path + "/sub");
        File.CreateSymbolicLink(directory.Path + "/link", "file");

        Assert.Equal(Errno.None, FileHandle.Of(directory.Descriptor, TemporaryDirectory.Name(name), out FileHandle handle));
        Assert.InRange(handle.Content.Length, 4, FileHandle.MaxLength);
        var stored = new FileHandle(handle.Type, handle.Content);
        Assert.Equal(Errno.None,
            Libc.OpenByHandle(directory.Descriptor, ref stored, OpenFlags.Path | OpenFlags.NoFollow, out int descriptor));

        using var opened = new Fd(descriptor);
        Assert.Equal(Errno.None, Libc.StatAt(opened.Value, Libc.Self, StatxMask.Basic, out Statx stat));
        Assert.Equal(directory.Stat(name).Ino, stat.Ino);
        Assert.Equal(directory.Stat(name).Mode, stat.Mode);
    }

    [Fact]
    public void A_name_and_a_descriptor_have_the_same_handle()
    {
        directory.Write("file", "x");
        using Fd path = directory.Open("file", OpenFlags.Path);

        Assert.Equal(Errno.None, FileHandle.Of(directory.Descriptor, "file\0"u8, out FileHandle byName));
        Assert.Equal(Errno.None, FileHandle.Of(path.Value, Libc.Self, out FileHandle byDescriptor));

        Assert.Equal(byName.Type, byDescriptor.Type);
        Assert.Equal(byName.Content, byDescriptor.Content);
    }

    [Fact]
    public void A_handle_survives_a_rename_and_goes_stale_with_its_inode()
    {
        Needs.Root();
        directory.Write("file", "content");
        Assert.Equal(Errno.None, FileHandle.Of(directory.Descriptor, "file\0"u8, out FileHandle handle));

        File.Move(directory.Path + "/file", directory.Path + "/moved");
        Assert.Equal(Errno.None, Libc.OpenByHandle(directory.Descriptor, ref handle, OpenFlags.ReadOnly, out int descriptor));
        byte[] buffer = new byte[16];
        Assert.Equal(Errno.None, Libc.ReadAt(descriptor, buffer, 0, out int count));
        Libc.Close(descriptor);
        Assert.Equal("content"u8, buffer.AsSpan(0, count));

        File.Delete(directory.Path + "/moved");
        Assert.Equal(Errno.ESTALE, Libc.OpenByHandle(directory.Descriptor, ref handle, OpenFlags.ReadOnly, out descriptor));
        Assert.Equal(-1, descriptor);
    }

    [Fact]
    public void A_filesystem_without_handles_says_so()
    {
        Assert.Equal(Errno.EOPNOTSUPP, FileHandle.Of(Libc.AtCwd, "/proc/self/status\0"u8, out _));
        Assert.Equal(Errno.ENOENT, FileHandle.Of(directory.Descriptor, "none\0"u8, out _));
    }

    [Fact]
    public void A_handle_that_is_too_long_is_refused()
    {
        Assert.Throws<ArgumentOutOfRangeException>(() => new FileHandle(1, new byte[FileHandle.MaxLength + 1]));
        Assert.Equal(FileHandle.MaxLength, new FileHandle(1, new byte[FileHandle.MaxLength]).Content.Length);
    }
}
