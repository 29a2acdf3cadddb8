using System.Text;
using Veneer.Fuse.Tests;
using Veneer.Linux;
using Veneer.Overlay.Tests.Posix;

namespace Veneer.Overlay.Tests;

/// <summary>The attributes that the server answers are in no list, even where a user has stored some under their names.</summary>
public sealed class AnsweredXattrTests : IDisposable
{
    private readonly DirectoryInfo scratch = Directory.CreateTempSubdirectory("veneer-answered-");

    public void Dispose() => scratch.Delete(recursive: true);

    [Theory]
    [InlineData("user.veneer.layers", false, false)]
    [InlineData("user.veneer.layers", true, false)]
    [InlineData("user.veneer.server", true, false)]
    [InlineData("user.veneer.server", false, true)]
    [InlineData("user.veneer.layers2", false, true)]
    [InlineData("user.veneer.layer", false, true)]
    public void What_a_user_stores_under_such_a_name_is_not_listed(string name, bool ofRoot, bool isListed)
    {
        string lower = scratch.CreateSubdirectory("lower").FullName;
        File.WriteAllText(Path.Combine(lower, "file"), "");
        string upper = scratch.CreateSubdirectory("upper").FullName, work = scratch.CreateSubdirectory("work").FullName;
        using var overlay = OverlayMount.Open(Unmounted.Over(lower, upper, work), static _ => { });
        using var kernel = FakeKernel.Start(overlay.FileSystem);
        var client = new FuseClient(kernel);
        ulong node = 1;
        if (!ofRoot) { client.Lookup(1, "file", out node, out _); }

        Assert.Equal(Errno.None, client.SetXattr(node, "user.other", [1], XattrFlags.None));
        Assert.Equal(Errno.None, client.SetXattr(node, name, [1], XattrFlags.None));

        Assert.Equal(Errno.None, client.ListXattr(node, out string[] listed));
        Assert.Equal(isListed ? ["user.other", name] : ["user.other"], listed.Order(StringComparer.Ordinal));
        byte[] room = new byte[10];
        byte[] path = Encoding.UTF8.GetBytes(ofRoot ? upper + "\0" : upper + "/file\0");
        Assert.Equal(Errno.None, Libc.GetXattrAt(Libc.AtCwd, path, Encoding.UTF8.GetBytes(name + "\0"), room, out int length));
        Assert.Equal(1, length); // it is stored all the same
    }
}
