using System.Text;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Lookup;

namespace Veneer.Overlay.Tests.Lookup;

/// <summary>What stands behind a name, where layers have attributes that lead elsewhere. Kernel: fs/overlayfs/namei.c.</summary>
public sealed class LayeredLookupTests : IDisposable
{
    private readonly StackOfLayers layers = new(3);

    public void Dispose() => layers.Dispose();

    private void Redirect(int layer, string path, string redirect) =>
        layers.Make.Attribute(layers[layer, path], "user.overlay.redirect", redirect);

    private void Directory(int layer, string path) => layers.Make.Directory(layers[layer, path]);

    private void File(int layer, string path, string content = "") =>
        layers.Make.File(layers[layer, path], Encoding.UTF8.GetBytes(content));

    private void Metacopy(int layer, string path, string value = "")
    {
        File(layer, path);
        layers.Make.Attribute(layers[layer, path], "user.overlay.metacopy", value);
    }

    private Errno Find(string name, out Found found, out Whole whole, bool redirects = true, bool metacopies = true)
    {
        LayeredLookup lookup = layers.Lookup(redirects, metacopies);
        whole = default;
        Errno error = lookup.Find(layers.Root, StackOfLayers.Name(name), out found);
        return error.IsError || !found.Exists ? error : lookup.Complete(layers.Root, StackOfLayers.Name(name), found, out whole);
    }

    /// <summary>The directories that show through, as LAYER:PATH.</summary>
    private static string Told(in Whole whole) => string.Join(' ', whole.Lowers.Select(lower =>
    {
        string path = "";
        for (var above = lower; above.Parent is not null; above = above.Parent)
        {
            path = "/" + Encoding.UTF8.GetString(above.Name.AsSpan()[..^1]) + path;
        }
        return $"{lower.Layer.Index}:{path}";
    }));

    [Theory]
    [InlineData("was", "1:/was 3:/was")]
    [InlineData("/was", "1:/was 3:/was")]
    [InlineData("/deep/er", "2:/deep/er")]
    public void A_redirect_of_upper_leads_to_another_name_in_all_lowers(string redirect, string expected)
    {
        Directory(0, "now");
        Redirect(0, "now", redirect);
        Directory(1, "was");
        Directory(3, "was");
        Directory(2, "now"); // not meant
        Directory(2, "deep");
        Directory(2, "deep/er");

        Assert.Equal(Errno.None, Find("now", out Found found, out Whole whole));

        Assert.True(found.HasUpper);
        Assert.Equal(expected, Told(whole));
        Assert.Equal(redirect, Encoding.UTF8.GetString(whole.Redirect!));
    }

    [Fact]
    public void A_redirect_in_a_lower_changes_the_name_for_the_layers_below()
    {
        Directory(1, "now");
        Redirect(1, "now", "before");
        Directory(2, "before");
        Redirect(2, "before", "/at/first");
        Directory(2, "now"); // not meant, nor is the other one below
        Directory(3, "before");
        Directory(3, "at");
        Directory(3, "at/first");

        Assert.Equal(Errno.None, Find("now", out _, out Whole whole));

        Assert.Equal("1:/now 2:/before 3:/at/first", Told(whole));
    }

    /// <summary>/a/b was moved below /c in lower 1, and /a to /z in lower 2.</summary>
    [Fact]
    public void A_redirect_on_the_way_of_an_absolute_path_counts_for_the_layers_below()
    {
        Directory(0, "now");
        Redirect(0, "now", "/c/b");
        Directory(1, "c");
        Redirect(1, "c", "/z");
        Directory(1, "c/b");
        Directory(2, "z");
        Redirect(2, "z", "a");
        Directory(2, "z/b");
        Directory(3, "a");
        Directory(3, "a/b");

        Assert.Equal(Errno.None, Find("now", out _, out Whole whole));

        Assert.Equal("1:/c/b 2:/z/b 3:/a/b", Told(whole));
    }

    [Fact]
    public void An_opaque_directory_on_the_way_of_an_absolute_path_ends_the_search()
    {
        Directory(0, "now");
        Redirect(0, "now", "/c/b");
        Directory(1, "c");
        layers.Make.Attribute(layers[1, "c"], "user.overlay.opaque", "y");
        Directory(1, "c/b");
        Directory(2, "c");
        Directory(2, "c/b");

        Assert.Equal(Errno.None, Find("now", out _, out Whole whole));

        Assert.Equal("1:/c/b", Told(whole));
    }

    [Theory]
    [InlineData(1, "whiteout")]
    [InlineData(1, "file")]
    [InlineData(1, "file on the way")]
    public void What_is_no_directory_ends_the_search(int layer, string kind)
    {
        Directory(0, "now");
        Redirect(0, "now", "/c/b");
        Directory(3, "c");
        Directory(3, "c/b");
        if (kind == "file on the way") { File(layer, "c"); }
        else
        {
            Directory(layer, "c");
            if (kind == "file") { File(layer, "c/b"); }
            else { layers.Make.Whiteout(layers[layer, "c/b"]); }
        }

        Assert.Equal(Errno.None, Find("now", out _, out Whole whole));

        Assert.Equal("", Told(whole));
    }

    [Fact]
    public void A_redirect_may_be_longer_than_most_are()
    {
        string deep = string.Concat(Enumerable.Repeat("/" + new string('d', 200), 8));
        Directory(0, "now");
        Redirect(0, "now", deep);
        System.IO.Directory.CreateDirectory(layers[2, deep[1..]]);

        Assert.Equal(Errno.None, Find("now", out _, out Whole whole));

        Assert.Equal("2:" + deep, Told(whole));
    }

    [Theory]
    [InlineData("a/b", Errno.EINVAL)]
    [InlineData("/a//b", Errno.EINVAL)]
    [InlineData("/", Errno.EINVAL)]
    [InlineData("", Errno.EINVAL)]
    [InlineData("..", Errno.EACCES)]
    [InlineData(".", Errno.EACCES)]
    [InlineData("/a/../b", Errno.EACCES)]
    [InlineData("/a/./b", Errno.EACCES)]
    public void A_redirect_that_is_no_plain_path_is_an_error(string redirect, Errno expected)
    {
        Directory(0, "now");
        Redirect(0, "now", redirect);
        foreach (string path in (string[])["a", "a/b", "b"]) { Directory(1, path); }

        Assert.Equal(expected, Find("now", out _, out _));
    }

    [Fact]
    public void Redirects_that_are_not_followed_are_refused()
    {
        Directory(0, "upper");
        Redirect(0, "upper", "was");
        Directory(1, "lower");
        Redirect(1, "lower", "was");
        Directory(3, "lowest");
        Redirect(3, "lowest", "was"); // leads nowhere: nothing is below

        Assert.Equal(Errno.EPERM, Find("upper", out _, out _, redirects: false));
        Assert.Equal(Errno.EPERM, Find("lower", out _, out _, redirects: false));
        Assert.Equal(Errno.None, Find("lowest", out _, out _, redirects: false));
        Assert.Equal(Errno.None, Find("upper", out _, out _));
    }

    [Fact]
    public void A_metacopy_leads_to_its_data()
    {
        Metacopy(0, "f");
        layers.Make.Attribute(layers[0, "f"], "user.overlay.redirect", "/d/data");
        Directory(1, "d");
        Metacopy(1, "d/data", "\0\u0004\0\0");
        Directory(2, "d");
        File(2, "d/data", "content");
        File(3, "f", "not meant");

        Assert.Equal(Errno.None, Find("f", out Found found, out Whole whole));

        Assert.True(found.HasUpper);
        Assert.Equal(2, whole.Metacopy!.Directory.Layer.Index);
        Assert.Equal("data\0", Encoding.UTF8.GetString(whole.Metacopy!.Name));
    }

    [Fact]
    public void A_metacopy_without_data_is_an_error()
    {
        Metacopy(0, "alone");
        Metacopy(1, "over a directory");
        Directory(2, "over a directory");
        Metacopy(1, "over a whiteout");
        layers.Make.Whiteout(layers[2, "over a whiteout"]);
        File(3, "over a whiteout", "hidden");

        foreach (string name in (string[])["alone", "over a directory", "over a whiteout"])
        {
            Assert.Equal(Errno.EIO, Find(name, out _, out _));
        }
    }

    [Fact]
    public void Metacopies_that_are_not_followed_are_refused()
    {
        Metacopy(0, "upper");
        Metacopy(1, "lower");
        foreach (string name in (string[])["upper", "lower"])
        {
            File(2, name, "data");
            Assert.Equal(Errno.EPERM, Find(name, out _, out _, metacopies: false));
            Assert.Equal(Errno.None, Find(name, out _, out _));
        }
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    public void The_mark_of_a_metacopy_is_empty_or_has_four_bytes(int layer)
    {
        File(2, "short", "data");
        File(2, "exact", "data");
        Metacopy(layer, "short", "abc");
        Metacopy(layer, "exact", "\0\u0004\0\0");

        Assert.Equal(Errno.EIO, Find("short", out _, out _));
        Assert.Equal(Errno.None, Find("exact", out _, out _));
    }

    [Fact]
    public void A_name_has_255_bytes_at_most()
    {
        string longest = new('n', 255);
        File(1, longest);

        Assert.Equal(Errno.None, Find(longest, out Found found, out _));
        Assert.True(found.Exists);
        Assert.Equal(Errno.ENAMETOOLONG, Find(longest + "n", out _, out _));
    }

    [Fact]
    public void Upper_is_not_entered_through_a_lower()
    {
        Directory(0, "merged");
        foreach (string path in (string[])["alone", "merged", "other"]) { Directory(1, path); }
        layers.Make.File(layers[1, "file"], []);
        layers.Traps = [.. ((string[])["alone", "merged", "file"]).Select(path =>
        {
            Assert.Equal(Errno.None, Libc.StatAt(Libc.AtCwd, StackOfLayers.Name(layers[1, path]), StatxMask.Basic, out Statx stat));
            return (stat.Dev, stat.Ino);
        })];

        Assert.Equal(Errno.ELOOP, Find("alone", out _, out _));
        Assert.Equal(Errno.ELOOP, Find("merged", out _, out _));
        Assert.Equal(Errno.None, Find("other", out _, out _));
        Assert.Equal(Errno.None, Find("file", out _, out _)); // only a directory is entered
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    public void An_empty_file_with_the_mark_is_a_whiteout(int layer)
    {
        layers.Make.FileWhiteout(layers[layer, "hidden"]);
        File(layer, "empty");
        File(layer, "full", "x");
        layers.Make.Attribute(layers[layer, "full"], "user.overlay.whiteout", "");
        foreach (string name in (string[])["hidden", "empty", "full"]) { File(3, name, "below"); }

        Find("hidden", out Found hidden, out _);
        Find("empty", out Found empty, out _);
        Find("full", out Found full, out _);

        Assert.False(hidden.Exists);
        Assert.True(empty.Exists && empty.Stat.Size == 0);
        Assert.True(full.Exists && full.Stat.Size == 1);
    }

    [Fact]
    public void Marks_of_a_directory_of_upper()
    {
        foreach (string name in (string[])["plain", "opaque", "impure", "other"])
        {
            Directory(0, name);
            Directory(1, name);
        }
        layers.Make.Attribute(layers[0, "opaque"], "user.overlay.opaque", "y");
        layers.Make.Attribute(layers[0, "impure"], "user.overlay.impure", "y");
        layers.Make.Attribute(layers[0, "other"], "user.overlay.opaque", "yes");
        layers.Make.Attribute(layers[0, "other"], "user.overlay.impure", "n");

        foreach (string name in (string[])["plain", "opaque", "impure", "other"])
        {
            Assert.Equal(Errno.None, Find(name, out _, out Whole whole));
            Assert.Equal(name == "opaque", whole.IsOpaque);
            Assert.Equal(name == "impure", whole.IsImpure);
            Assert.Equal(name == "opaque" ? "" : "1:/" + name, Told(whole));
        }
    }

    /// <summary>With so many names that one call does not tell them all.</summary>
    [Fact]
    public void Marks_are_found_among_many_attributes()
    {
        Directory(0, "d");
        Directory(1, "d");
        for (int i = 0; i < 20; i++)
        {
            layers.Make.Attribute(layers[0, "d"], $"user.{i:00}{new string('x', 80)}", "1");
        }
        layers.Make.Attribute(layers[0, "d"], "user.overlay.opaque", "y");

        Assert.Equal(Errno.None, Find("d", out _, out Whole whole));

        Assert.True(whole.IsOpaque);
    }

    [Theory]
    [InlineData("right", true)]
    [InlineData("other type", false)]
    [InlineData("other filesystem", false)]
    [InlineData("garbage", false)]
    [InlineData("gone", false)]
    public void An_origin_is_what_the_handle_in_upper_leads_to(string kind, bool isFound)
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess || Environment.GetEnvironmentVariable("CI") is not null,
            "Only root opens files by handles.");
        File(2, "was", "content");
        Directory(2, "directory");
        File(0, "now", "content");
        string origin = layers[2, kind == "other type" ? "directory" : "was"];
        Assert.Equal(Errno.None, FileHandle.Of(Libc.AtCwd, StackOfLayers.Name(origin), out FileHandle handle));
        Assert.Equal(Errno.None, Libc.StatAt(Libc.AtCwd, StackOfLayers.Name(origin), StatxMask.Basic, out Statx stat));
        layers.Layers.CheckOrigins();
        byte[] uuid = [.. layers.Layers.Lowers[1].Uuid];
        if (kind == "other filesystem") { uuid[3] ^= 1; }
        byte[] value = new byte[OriginHandle.MaxLength];
        Array.Resize(ref value, OriginHandle.Encode(handle, uuid, value));
        if (kind == "garbage") { value[0] ^= 0xFF; }
        byte[] attribute = StackOfLayers.Name("user.overlay.origin");
        Assert.Equal(Errno.None,
            Libc.SetXattrAt(Libc.AtCwd, StackOfLayers.Name(layers[0, "now"]), attribute, value, XattrFlags.None));
        if (kind == "gone") { System.IO.File.Delete(origin); }

        Assert.Equal(Errno.None, Find("now", out _, out Whole whole));

        Assert.Equal(isFound, whole.HasOrigin);
        if (isFound) { Assert.Equal((stat.Dev, stat.Ino), (whole.OriginDevice, whole.OriginIno)); }
    }
}
