using System.Text;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Lookup;
using Veneer.Overlay.Tests.Posix;

namespace Veneer.Overlay.Tests.Lookup;

/// <summary>Real layers in a temporary directory, with the attributes <c>user.overlay.*</c>, and what looks names up in them.</summary>
internal sealed class StackOfLayers : IDisposable
{
    private readonly DirectoryInfo scratch = Directory.CreateTempSubdirectory("veneer-stack-");
    private readonly string? upper;
    private readonly string[] lowers;
    private LayerStack? layers;
    private LayerReader? reader;

    public StackOfLayers(int lowers, bool hasUpper = true)
    {
        upper = hasUpper ? scratch.CreateSubdirectory("upper").FullName : null;
        this.lowers = [.. Enumerable.Range(1, lowers).Select(i => scratch.CreateSubdirectory($"lower{i}").FullName)];
    }

    /// <summary>Makes objects in the layers.</summary>
    public RealLayers Make { get; } = new("user.overlay.");

    /// <summary>Directories that must not be entered through a lower.</summary>
    public (ulong Device, ulong Ino)[] Traps { get; set; } = [];

    /// <summary>A path in a layer: 0 is upper, 1 the topmost lower.</summary>
    public string this[int layer, string path] => Path.Combine(layer == 0 ? upper! : lowers[layer - 1], path);

    public LayerStack Layers => layers ??= Open();

    public LayerReader Reader => reader ??= new LayerReader(new DirectoryCache(100), Layers) { Traps = Traps };

    /// <summary>The root of the overlay.</summary>
    public DirectoryStack Root => new(Layers.Upper?.Root, Layers.LowerRoots);

    public LayeredLookup Lookup(bool followRedirects = true, bool followMetacopies = true, bool remembersLowers = false) =>
        new(Reader, Layers, followRedirects, followMetacopies) { RemembersLowers = remembersLowers };

    public static byte[] Name(string name) => [.. Encoding.UTF8.GetBytes(name), 0];

    private static Fd Open(string path)
    {
        Assert.Equal(Errno.None, Libc.OpenAt(Libc.AtCwd, Name(path), OpenFlags.Path, 0, ResolveFlags.None, out int descriptor));
        return new Fd(descriptor);
    }

    private LayerStack Open()
    {
        Layer? upperLayer = null;
        if (upper is not null)
        {
            using Fd ancestor = Open(scratch.FullName);
            upperLayer = Layer.OpenUpper(upper, ancestor.Value, false, "upper\0"u8);
        }
        var lowerLayers = new Layer[lowers.Length];
        for (int i = 0; i < lowers.Length; i++)
        {
            using Fd directory = Open(lowers[i]);
            lowerLayers[i] = Layer.OpenLower(i + 1, lowers[i], directory.Value);
        }
        var xattr = new OverlayXattr(user: true);
        return new LayerStack(upperLayer, lowerLayers, xattr, xattr) { NameLength = 255 };
    }

    public void Dispose()
    {
        foreach (Layer layer in layers?.All ?? []) { layer.Dispose(); }
        scratch.Delete(recursive: true);
    }
}
