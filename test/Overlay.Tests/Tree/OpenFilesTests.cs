using Veneer.Linux;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Tests.Tree;

/// <summary>The open files by their fh, and how many of them a user may have.</summary>
public sealed class OpenFilesTests
{
    private const int Most = 16;
    private const uint Owner = 500, User = 1000, Another = 2000;

    private readonly OpenFiles files = new(Most, Owner);

    private ulong Add(uint uid, OpenFlags flags = OpenFlags.ReadOnly, int descriptor = -1, bool isLower = false) =>
        files.Add(null!, 7, null!, flags, descriptor, isLower, uid);

    [Fact]
    public void An_fh_leads_to_its_file_until_that_is_taken()
    {
        ulong first = Add(User, OpenFlags.ReadWrite, 123, isLower: true), second = Add(Another);

        Assert.NotEqual(first, second);
        Assert.Equal(Errno.None, files.Find(first, out OpenFile file));
        Assert.Equal((7ul, User, OpenFlags.ReadWrite, 123, true), (file.NodeId, file.Uid, file.Flags, file.Descriptor, file.IsLower));
        Assert.Equal(Errno.None, files.Find(second, out OpenFile other));
        Assert.Equal(2, files.Count);
        Assert.Equal([file, other], files.ToList());

        Assert.Same(file, files.Take(first));
        Assert.Equal(Errno.EBADF, files.Find(first, out _));
        Assert.Null(files.Take(first));
        Assert.Equal([other], files.ToList());
        files.Return(first);
        Assert.Equal(1, files.Count);
        Assert.Equal(-1, file.Descriptor);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(3)]
    [InlineData(ulong.MaxValue)]
    public void An_fh_that_was_never_given_leads_nowhere(ulong fh)
    {
        Add(User);
        Add(User);

        Assert.Equal(Errno.EBADF, files.Find(fh, out _));
        Assert.Null(files.Take(fh));
    }

    [Fact]
    public void An_fh_and_its_object_serve_the_next_file()
    {
        ulong first = Add(User);
        files.Find(first, out OpenFile file);
        files.Take(first);
        Assert.NotEqual(first, Add(User)); // it is not yet closed
        files.Return(first);

        Assert.Equal(first, Add(Another));
        files.Find(first, out OpenFile next);
        Assert.Same(file, next);
        Assert.Equal(Another, next.Uid);
    }

    [Fact]
    public void There_is_room_for_any_number()
    {
        ulong[] all = [.. Enumerable.Range(0, 300).Select(i => Add(User, descriptor: i))];

        for (int i = 0; i < all.Length; i++)
        {
            Assert.Equal(Errno.None, files.Find(all[i], out OpenFile file));
            Assert.Equal(i, file.Descriptor);
        }
        Assert.Equal(300, files.RemoveAll().Count);
        Assert.Equal(0, files.Count);
        Assert.Equal(Errno.EBADF, files.Find(all[0], out _));
        Assert.Equal(1ul, Add(User));
    }

    [Fact]
    public void A_user_gets_half_of_the_descriptors()
    {
        for (int i = 0; i < Most / 2; i++)
        {
            Assert.False(files.AreTooMany(User));
            Add(User);
        }
        Assert.True(files.AreTooMany(User));
        Assert.False(files.AreTooMany(Another));

        files.Take(3);
        files.Return(3);
        Assert.False(files.AreTooMany(User));
    }

    [Fact]
    public void An_eighth_is_for_root_and_for_who_runs_the_server()
    {
        for (int i = 0; i < Most - (Most / 8); i++)
        {
            Assert.False(files.AreTooMany(3000 + (uint)i));
            Add(3000 + (uint)i);
        }
        Assert.True(files.AreTooMany(User));
        Assert.False(files.AreTooMany(0));
        Add(0);
        Assert.False(files.AreTooMany(Owner));
        Add(Owner);
        Assert.True(files.AreTooMany(Owner));
        Assert.True(files.AreTooMany(0));
    }
}
