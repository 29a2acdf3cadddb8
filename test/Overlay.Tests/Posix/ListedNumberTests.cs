using System.Text;
using Veneer.Fuse.Tests;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Overlay.Tests.Posix;

/// <summary>A listing shows the st_ino of a copy that has no origin on disk, also in a directory that is in upper alone.</summary>
public sealed class ListedNumberTests : IDisposable
{
    private const int AtCurrentDirectory = -100; // AT_FDCWD

    private readonly DirectoryInfo scratch = Directory.CreateTempSubdirectory("veneer-numbers-");

    public void Dispose() => scratch.Delete(recursive: true);

    [Theory]
    [InlineData("two names", "linked")]
    [InlineData("two names", "moved")]
    [InlineData("link", "moved")] // a symbolic link has no user attributes, and so no origin
    [InlineData("fifo", "moved")]
    public void Of_a_lower_file_that_got_a_name_in_a_new_directory(string name, string how)
    {
        bool isUser = name != "two names";
        string lower = scratch.CreateSubdirectory("lower").FullName;
        var layer = new RealLayers(isUser ? "user.overlay." : "trusted.overlay.");
        layer.File($"{lower}/two names", [1]);
        layer.Link($"{lower}/two names", $"{lower}/other name");
        layer.SymbolicLink($"{lower}/link", "target");
        Assert.Equal(Errno.None, Libc.MakeNodeAt(AtCurrentDirectory, Encoding.UTF8.GetBytes($"{lower}/fifo\0"), FileType.Fifo | 0x1A4, 0));
        string upper = scratch.CreateSubdirectory("upper").FullName, work = scratch.CreateSubdirectory("work").FullName;
        OverlayOptions options = Unmounted.Over(lower, upper, work) with { UserXattr = isUser };
        using var overlay = OverlayMount.Open(options, static _ => { });
        using var kernel = FakeKernel.Start(overlay.FileSystem);
        var client = new FuseClient(kernel);
        client.MkDir(1, "new", new MkDirIn { Mode = 0x1ED }, default);
        client.Lookup(1, "new", out ulong directory, out _);
        client.Lookup(1, name, out ulong file, out Attr before);

        Assert.Equal(Errno.None, how == "linked"
            ? client.Link(file, directory, "n")
            : client.Rename(1, name, directory, "n", RenameFlags.None));

        client.Lookup(directory, "n", out _, out Attr after);
        Assert.Equal(before.Ino, after.Ino);
        for (int listing = 0; listing < 2; listing++) // the first one may find that no entry has an origin
        {
            client.ReadDir(directory, false, 4096, out var entries);
            Assert.Equal(before.Ino, entries["n"].Ino);
        }
    }
}
