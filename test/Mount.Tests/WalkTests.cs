namespace Veneer.Mount.Tests;

/// <summary>Walks through trees, of which the server looks ahead: what it has seen must never be older than what was done since.</summary>
public sealed class WalkTests
{
    private const int Directories = 24, Files = 60;

    private static Tree Lower => Tree.Of(
        [.. from d in Enumerable.Range(0, Directories) from f in Enumerable.Range(0, Files) select ($"t/d{d}/f{f}", (Node)$"{d} {f}"),
        .. from d in Enumerable.Range(0, Directories) select ($"t/d{d}/sub/x", (Node)"x"),
        .. from d in Enumerable.Range(0, Directories) select ($"t/d{d}/whole/x", (Node)"x")]);

    private static List<string> Listed(FilePath directory) =>
        [.. Sys.ReadDirectory(directory).Select(entry => entry.Name).Where(name => name is not "." and not "..")];

    /// <summary>As find -ls does it: everything of a directory, then its directories, in the order of the listing.</summary>
    private static void Walk(FilePath directory, Dictionary<string, Statx> seen, Action<FilePath, List<string>>? listed = null)
    {
        List<string> names = Listed(directory);
        foreach (string name in names) { seen.Add((directory / name).ToString(), Sys.Stat(directory / name)); }
        listed?.Invoke(directory, names);
        foreach (string name in names.Where(name => seen.TryGetValue((directory / name).ToString(), out Statx stat) && stat.IsDirectory))
        {
            Walk(directory / name, seen, listed);
        }
    }

    /// <summary>Returns when the servers have seen what they were to look at ahead: the thread sleeps, or there is none.</summary>
    private static void AwaitLookAhead(IReadOnlyList<int> servers)
    {
        foreach (int server in servers)
        {
            Patience.Eventually(() => Assert.All(
                NamedThreads.CallsOf(server, "look ahead"), call => Assert.True(NamedThreads.SleepsUntilWoken(call), call[0])));
        }
    }

    [MountFact]
    public void A_walk_shows_what_was_changed_ahead_of_it()
    {
        using var overlay = Overlay.With(lowers: [Tree.Of(("t/d3/f1", "above"), ("t/d4/own", "")), Lower]);
        var seen = new Dictionary<string, Statx>();
        string[] order = [];
        int changed = 0;
        IReadOnlyList<int> servers = overlay.Servers;

        Walk(overlay.Merged, seen, (directory, names) =>
        {
            string path = directory.ToString();
            if (path.EndsWith("/t", StringComparison.Ordinal)) { order = [.. names]; }
            int index = Array.IndexOf(order, path[(path.LastIndexOf('/') + 1)..]);
            if (index < 0 || index + 1 == order.Length) { return; }
            // By now the server may be at the directory that comes next, or have seen it.
            FilePath next = directory / ".." / order[index + 1];
            if (index % 3 != 0) { AwaitLookAhead(servers); }
            Sys.ChangeMode(next / "f5", Oct(600));
            Sys.Append(next / "f7", "more");
            Sys.Unlink(next / "f9");
            Sys.Rename(next / "f11", next / "f12");
            Sys.Write(next / "new", "new");
            Sys.Unlink(next / "whole/x");
            Sys.RemoveDirectory(next / "whole");
            changed++;
        });

        Assert.Equal(Directories - 1, changed);
        foreach (string d in order[1..])
        {
            Statx Of(string name) => seen[(overlay.Merged / "t" / d / name).ToString()];
            bool Has(string name) => seen.ContainsKey((overlay.Merged / "t" / d / name).ToString());
            Assert.Equal(Oct(600), Of("f5").Mode & Oct(7777));
            Assert.Equal((ulong)$"{d[1..]} 7more".Length, Of("f7").Size);
            Assert.Equal((ulong)$"{d[1..]} 11".Length, Of("f12").Size);
            Assert.Equal(3u, Of("new").Size);
            Assert.False(Has("f9") || Has("f11") || Has("whole"));
            Assert.True(Of("sub").IsDirectory && Has("sub/x"));
        }
    }

    [MountFact]
    public void Walks_beside_changes_and_each_other_see_each_object_once_and_as_it_is()
    {
        using var overlay = Overlay.With(lowers: [Tree.Of(("t/d3/f1", "above")), Lower]);
        Dictionary<string, Statx>[] walks = [new(), new(), new()];
        Task[] walkers = [
            .. walks.Select(
                seen => Task.Factory.StartNew(() => Walk(overlay.Merged, seen), default, TaskCreationOptions.LongRunning,
                    TaskScheduler.Default))];
        for (int d = 0; d < Directories; d += 2)
        {
            for (int f = 0; f < Files; f += 3) { Sys.ChangeMode(overlay.Merged / $"t/d{d}/f{f}", Oct(640)); }
        }
        Assert.True(Task.WaitAll(walkers, 60_000, TestContext.Current.CancellationToken));

        var after = new Dictionary<string, Statx>();
        Sys.DropCaches();
        Walk(overlay.Merged, after);
        foreach (Dictionary<string, Statx> seen in walks)
        {
            Assert.Equal(after.Keys.Order(), seen.Keys.Order());
            Assert.All(seen, pair => Assert.Equal((after[pair.Key].Ino, after[pair.Key].Type), (pair.Value.Ino, pair.Value.Type)));
            Assert.All(seen.Where(pair => !pair.Value.IsDirectory), pair => Assert.Equal(after[pair.Key].Size, pair.Value.Size));
        }
        Assert.All(after.Where(pair => pair.Key.Contains("/d2/f", StringComparison.Ordinal)), pair =>
            Assert.Equal(int.Parse(pair.Key[(pair.Key.LastIndexOf('f') + 1)..], null) % 3 == 0 ? Oct(640) : Oct(644),
                pair.Value.Mode & Oct(7777)));
    }

    [MountFact]
    public void A_large_directory_is_listed_with_attributes_while_it_changes()
    {
        using var overlay = Overlay.With(lower: Tree.Of([.. Enumerable.Range(0, 2000).Select(i => ($"d/f{i}", (Node)$"{i}"))]));
        FilePath place = overlay.Merged / "d";
        var seen = new Dictionary<string, Statx>();
        using Descriptor directory = Sys.Open(place, OpenFlags.ReadOnly | OpenFlags.Directory);
        var part = new List<DirectoryEntry>();
        for (bool changes = false; directory.ReadSomeEntries(part, 8192); part.Clear())
        {
            foreach (string name in part.Select(entry => entry.Name).Where(name => name is not "." and not ".."))
            {
                seen.Add(name, Sys.Stat(place / name));
            }
            if (changes || seen.Count < 400) { continue; }
            changes = true;
            foreach (string name in Enumerable.Range(0, 2000).Select(i => $"f{i}").Where(name => !seen.ContainsKey(name)))
            {
                Sys.ChangeMode(place / name, Oct(600));
            }
        }

        Assert.Equal(2000, seen.Count);
        Assert.All(seen, pair => Assert.Equal((ulong)pair.Key.Length - 1, pair.Value.Size));
        Assert.Equal(seen.Count - seen.Count(pair => (pair.Value.Mode & Oct(7777)) == Oct(644)),
            seen.Count(pair => (pair.Value.Mode & Oct(7777)) == Oct(600)));
        Assert.InRange(seen.Count(pair => (pair.Value.Mode & Oct(7777)) == Oct(600)), 1000, 1600);
    }
}
