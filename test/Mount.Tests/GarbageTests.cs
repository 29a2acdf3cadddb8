using System.Text;

namespace Veneer.Mount.Tests;

/// <summary>Layers full of garbage attributes: every name gives what the kernel gives.</summary>
public sealed class GarbageTests
{
    private static readonly string[] names = ["a", "b", "c", "d"];
    private static readonly string[] redirects =
        ["a", "b", "/a", "/b", "/c/a", "/d/b", "", "/", "//", "..", ".", "/..", "/a/../b", "a/b", "/a/", "a\0", "/a\0b", "\0", "/none",
            new('x', 256), "/" + new string('y', 256), "/" + string.Join('/', Enumerable.Repeat("z", 2000)), "\xFF"];
    private static readonly string[] metacopies = ["", "", "", "x", "\0\x04\0\0", "\x01\x04\0\0", "\0\x05\0\0\0", new('z', 60)];
    private static readonly string[] flags = ["y", "y", "x", "n", "", "yy", "\0"];

    [MountTheory]
    [InlineData("metacopy=off")]
    [InlineData("metacopy=on")]
    [InlineData("redirect_dir=nofollow")]
    [InlineData("redirect_dir=on")]
    [InlineData("userxattr")]
    public void Whatever_the_attributes_say_every_name_gives_what_the_kernel_gives(string options)
    {
        string prefix = options == "userxattr" ? "user.overlay." : "trusted.overlay.";
        for (int seed = 0; seed < 5; seed++)
        {
            var dice = new Random(seed);
            using var overlay = Overlay.With(
                lowers: [Make(dice, prefix), Make(dice, prefix), Make(dice, prefix)],
                upper: Make(dice, prefix),
                options: options,
                readOnly: seed % 4 == 3,
                mounted: false);
            Dictionary<string, string> kernel = Look(overlay, Mounter.Kernel), seen = Look(overlay, Mounter.UnderTest);

            foreach ((string name, string what) in kernel)
            {
                // The kernel refuses a second name for one lower directory, and it cannot list a directory that has a name which
                // it cannot look up.
                if (IsStale(kernel, name) || what is "lists ESTALE" or "lists EINVAL") { continue; }
                string shown = seen.GetValueOrDefault(name, "nothing");
                if (what.StartsWith("lists ", StringComparison.Ordinal))
                {
                    shown = string.Join(' ', shown.Split(' ').Where(entry => !IsStale(kernel, name[..^1] + entry)));
                }
                Assert.Equal((seed, name, what), (seed, name, shown));
            }
        }
    }

    private static bool IsStale(Dictionary<string, string> kernel, string name)
    {
        for (int slash = name.IndexOf('/', 1); ; slash = name.IndexOf('/', slash + 1))
        {
            if (kernel.GetValueOrDefault(slash < 0 ? name : name[..slash]) == "ESTALE") { return true; }
            if (slash < 0) { return false; }
        }
    }

    private static Tree Make(Random dice, string prefix)
    {
        var nodes = new List<(string, Node)>();
        Fill("", 0);
        return Tree.Of([.. nodes]);

        void Fill(string directory, int depth)
        {
            foreach (string name in names.Where(_ => dice.Next(4) > depth))
            {
                string path = directory + name;
                switch (dice.Next(12))
                {
                    case < 4 when depth < 2:
                        Node made = Node.Directory();
                        if (dice.Next(4) == 0) { made = made.Attribute(prefix + "opaque", Any(flags)); }
                        if (dice.Next(3) == 0) { made = made.Attribute(prefix + "redirect", Any(redirects)); }
                        nodes.Add((path, made));
                        Fill(path + "/", depth + 1);
                        break;
                    case 8: nodes.Add((path, Node.Character(1, 3))); break;
                    case 9: nodes.Add((path, Node.Fifo())); break;
                    case 10: nodes.Add((path, Node.Link("a"))); break;
                    case 11: nodes.Add((path, Node.Whiteout())); break;
                    default:
                        Node file = Node.File(string.Concat(Enumerable.Repeat(name, dice.Next(3) * 5)));
                        if (dice.Next(2) == 0) { file = file.Attribute(prefix + "metacopy", Any(metacopies)); }
                        if (dice.Next(2) == 0) { file = file.Attribute(prefix + "redirect", Any(redirects)); }
                        if (dice.Next(5) == 0)
                        {
                            file = file.Attribute(
                                prefix + "origin",
                                Encoding.Latin1.GetBytes(
                                    "\0\xFB" + (char)dice.Next(256) + new string((char)dice.Next(256), dice.Next(40))));
                        }
                        if (dice.Next(8) == 0) { file = file.Attribute(prefix + "whiteout", Any(flags)); }
                        nodes.Add((path, file));
                        break;
                }
            }
        }

        string Any(string[] values) => values[dice.Next(2) == 0 ? dice.Next(Math.Min(6, values.Length)) : dice.Next(values.Length)];
    }

    private static Dictionary<string, string> Look(Overlay overlay, Mounter mounter)
    {
        var seen = new Dictionary<string, string>(StringComparer.Ordinal);
        overlay.Mount(mounter);
        try
        {
            LookAt("", 0);
            return seen;
        }
        finally
        {
            overlay.Unmount();
        }

        void LookAt(string directory, int depth)
        {
            foreach (string name in names) { LookAtOne(directory + "/" + name, depth); }
            Errno error = Errno.None;
            string[] entries = [];
            error = Sys.ErrorOf(() => entries = (overlay.Merged / ("." + directory)).Entries());
            IEnumerable<string> known = entries
                .Where(entry => Sys.ErrorOf(() => Sys.Stat(overlay.Merged / ("." + directory + "/" + entry))) == Errno.None);
            seen[directory + "/*"] = "lists " + (error == Errno.None ? string.Join(' ', known) : error);
        }

        void LookAtOne(string path, int depth)
        {
            FilePath place = overlay.Merged / ("." + path);
            Statx stat = default;
            Errno error = Sys.ErrorOf(() => stat = Sys.Stat(place));
            seen[path] = error != Errno.None
                ? error.ToString()
                : $"{stat.Mode:x}{(stat.IsDirectory ? "" : " " + stat.Size)}"
                    + $"{(stat.IsRegular ? " " + ContentOf(place, (int)stat.Size) : "")}";
            if (error == Errno.None && stat.IsDirectory && depth < 3) { LookAt(path, depth + 1); }
        }
    }

    /// <summary>Where a metacopy is shorter than its data, the kernel reads on behind its end.</summary>
    private static string ContentOf(FilePath file, int size)
    {
        string content = "";
        Errno error = Sys.ErrorOf(() => content = Sys.ReadText(file));
        return error == Errno.None ? content[..Math.Min(size, content.Length)].TrimEnd('\0') : error.ToString();
    }
}
