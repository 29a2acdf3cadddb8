using System.Text;
using Veneer.Linux;

namespace Veneer.Overlay.Tests.Posix;

/// <summary>The lowers that <see cref="PosixModelTests"/> begins with: something of everything that a layer can say.</summary>
internal static class PosixLowers
{
    private static byte[] Content(int length, int seed)
    {
        byte[] content = new byte[length];
        new Random(seed).NextBytes(content);
        return content;
    }

    /// <param name="layers">Makes the objects.</param>
    /// <param name="roots">Four directories that exist, topmost first.</param>
    /// <param name="redirects">With redirects.</param>
    /// <param name="metacopies">With metacopies, too.</param>
    public static void Make(RealLayers layers, string[] roots, bool redirects, bool metacopies)
    {
        string top = roots[0], second = roots[1], third = roots[2], bottom = roots[3];

        foreach (string path in (string[])["a", "a/b", "a/b/c", "m", "m/sub", "o", "w", "x", "fd", "fd/in", "df", "emptied", "sg"])
        {
            layers.Directory($"{bottom}/{path}", 0x1ED, 5, 6);
        }
        layers.Directory($"{bottom}/sg", 0x5FD, 20, 30); // set-group-id
        layers.Directory($"{bottom}/sg/3", 0x1ED, 20, 30);
        layers.File($"{bottom}/a/f1", Content(3000, 1), 0x1A4, 100, 200);
        layers.Attribute($"{bottom}/a/f1", "user.one", "first");
        layers.Attribute($"{bottom}/a/f1", "trusted.two", "second");
        layers.Attribute($"{bottom}/a/f1", layers.Prefix + "overlay.zz", "escaped");
        layers.File($"{bottom}/a/f2", Content(10, 2), 0x9ED, 1000, 100); // set-user-id
        layers.File($"{bottom}/a/b/f3", Content(70_000, 3), 0x180);
        layers.File($"{bottom}/a/b/c/f4", []);
        layers.Link($"{bottom}/a/f2", $"{bottom}/m/l2");
        layers.Link($"{bottom}/a/f2", $"{bottom}/a/b/l2");
        layers.Link($"{bottom}/a/f2", $"{bottom}/o/hidden-link");
        layers.SymbolicLink($"{bottom}/a/s", "../m/1");
        layers.Attribute($"{bottom}/a", "user.dir", "d");
        layers.Node($"{bottom}/a/p", FileType.Fifo, 0x1A0);
        layers.Node($"{bottom}/a/dev", FileType.CharacterDevice, 0x1B6, DeviceNumber.Encode(1, 3));
        layers.Attribute($"{bottom}/a/dev", "trusted.two", "device");
        foreach (string name in (string[])
            ["m/1", "m/2", "m/sub/1", "o/hidden", "w/gone", "w/stays", "x/gone", "x/stays",
                "fd/in/1", "df/hidden", "emptied/1", "removed", "sg/1", "sg/2"])
        {
            layers.File($"{bottom}/{name}", Encoding.UTF8.GetBytes("bottom " + name));
        }

        foreach (string path in (string[])["m", "m/sub", "w", "o"]) { layers.Directory($"{third}/{path}", 0x1C0, 11, 12); }
        layers.Attribute($"{third}/o", layers.Prefix + "opaque", "y");
        layers.File($"{third}/o/shown", Content(100, 4));
        layers.File($"{third}/m/2", Content(200, 5), 0x1B6);
        layers.File($"{third}/m/3", Content(200, 6), 0x1B6);
        layers.File($"{third}/m/sub/2", Content(200, 7));
        layers.Whiteout($"{third}/w/gone");
        layers.Whiteout($"{third}/removed");
        layers.File($"{third}/df", Content(20, 8)); // ends what the bottom has

        foreach (string path in (string[])["m", "x", "o", "df", "emptied"]) { layers.Directory($"{second}/{path}", 0x1FF, 13, 14); }
        layers.FileWhiteout($"{second}/x/gone");
        layers.Attribute(second, layers.Prefix + "opaque", "x"); // its root says so, too
        layers.File($"{second}/x/new", Content(50, 9));
        layers.File($"{second}/o/second", Content(50, 10));
        layers.File($"{second}/df/1", Content(50, 11));
        layers.Whiteout($"{second}/m/2");
        layers.Whiteout($"{second}/emptied/1");
        layers.File($"{second}/m/link1", Content(5000, 12), 0x1ED);
        layers.Link($"{second}/m/link1", $"{second}/m/link2");

        layers.Directory($"{top}/m", 0x1F8, 15, 16);
        layers.Attribute($"{top}/m", "user.dir", "m");
        layers.File($"{top}/m/1", Content(1, 13), 0x1A4);
        layers.File($"{top}/fd", Content(8, 14)); // ends the directory of the bottom
        layers.File($"{top}/w", Content(9, 15));
        if (redirects)
        {
            layers.Directory($"{bottom}/old", 0x1ED, 21, 22);
            layers.Directory($"{bottom}/old/deep", 0x1ED, 21, 22);
            layers.File($"{bottom}/old/1", Content(30, 16));
            layers.File($"{bottom}/old/deep/1", Content(40, 17));
            layers.Directory($"{third}/old", 0x1ED, 27, 28);
            layers.File($"{third}/old/3", Content(35, 22));
            layers.Directory($"{second}/x/moved", 0x1C9, 23, 24);
            layers.Attribute($"{second}/x/moved", layers.Prefix + "redirect", "/old");
            layers.Whiteout($"{second}/old");
            layers.File($"{second}/x/moved/2", Content(60, 18));
            layers.Directory($"{bottom}/m/was", 0x1ED, 21, 22);
            layers.File($"{bottom}/m/was/1", Content(70, 19));
            layers.Directory($"{top}/m/is", 0x1ED, 25, 26);
            layers.Attribute($"{top}/m/is", layers.Prefix + "redirect", "was");
            layers.Whiteout($"{top}/m/was");
        }
        if (metacopies)
        {
            layers.Directory($"{bottom}/data", 0x1ED);
            layers.File($"{bottom}/data/d", Content(9000, 20), 0x100);
            layers.File($"{bottom}/same", Content(4000, 21), 0x100);
            layers.File($"{third}/same", new byte[4000], 0x140, 31, 32);
            layers.Attribute($"{third}/same", layers.Prefix + "metacopy", "");
            layers.File($"{top}/same", new byte[4000], 0x180, 33, 34);
            layers.Attribute($"{top}/same", layers.Prefix + "metacopy", "");
            layers.File($"{second}/x/meta", new byte[9000], 0x1A4, 35, 36);
            layers.Attribute($"{second}/x/meta", layers.Prefix + "metacopy", "");
            layers.Attribute($"{second}/x/meta", layers.Prefix + "redirect", "/data/d");
            layers.Attribute($"{second}/x/meta", "user.one", "meta");
        }
        for (int i = 0; i < roots.Length; i++) { RealLayers.SetTimes(roots[i], i); }
    }
}
