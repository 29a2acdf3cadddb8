using System.Text;
using Veneer.Fuse;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Overlay.Tests;

/// <summary>A directory that cannot be read leaves nothing behind that another would not list.</summary>
public sealed class FailedListingTests : IDisposable
{
    private readonly DirectoryInfo scratch = Directory.CreateTempSubdirectory("veneer-listing-");
    private readonly Interruption interruption = new();
    private InHeader header;

    public void Dispose() => scratch.Delete(recursive: true);

    [Fact]
    public void What_was_read_before_an_error_is_not_missing_elsewhere()
    {
        foreach (string layer in (string[])["lower", "upper"])
        {
            foreach (string name in (string[])["broken", "whole"])
            {
                Directory.CreateDirectory(Path.Combine(scratch.FullName, layer, name));
                File.WriteAllText(Path.Combine(scratch.FullName, layer, name, layer == "upper" ? "same" : "below"), "");
            }
        }
        string lower = Path.Combine(scratch.FullName, "lower"), upper = Path.Combine(scratch.FullName, "upper");
        string work = scratch.CreateSubdirectory("work").FullName;
        using OverlayMount overlay = OverlayMount.Open(Unmounted.Over(lower, upper, work), static _ => { });
        IFileSystem fileSystem = overlay.FileSystem;
        Assert.Equal(Errno.None, fileSystem.Lookup(Ask(1), "broken\0"u8, out EntryOut broken));
        Assert.Equal(Errno.None, fileSystem.Lookup(Ask(1), "whole\0"u8, out EntryOut whole));

        Directory.Move(Path.Combine(lower, "broken"), Path.Combine(lower, "gone"));
        byte[] buffer = new byte[4096];
        var refused = new DirectoryWriter(buffer, false);
        Assert.NotEqual(Errno.None, fileSystem.ReadDir(Ask(broken.NodeId), new ReadIn { Size = 4096 }, ref refused));
        var listed = new DirectoryWriter(buffer, false);
        Assert.Equal(Errno.None, fileSystem.ReadDir(Ask(whole.NodeId), new ReadIn { Size = 4096 }, ref listed));

        string text = Encoding.Latin1.GetString(buffer, 0, listed.Used);
        Assert.Contains("same", text, StringComparison.Ordinal);
        Assert.Contains("below", text, StringComparison.Ordinal);
        fileSystem.Stop();
    }

    private Request Ask(ulong node)
    {
        header = new InHeader { NodeId = node };
        return new Request(header, interruption);
    }
}
