using System.Diagnostics;
using System.Globalization;
using System.Text;

namespace Veneer.Mount.Tests;

/// <summary>What the kernel forgets makes room for other objects, while others are in use: nobody may ever meet the wrong one.</summary>
public sealed class ForgettingTests
{
    private const int Directories = 3, Shared = 40, Own = 25, Threads = 6;

    private static readonly TimeSpan duration = TimeSpan.FromSeconds(3);

    [MountFact]
    public void Every_file_stays_itself_while_others_come_and_go_and_the_kernel_forgets()
    {
        var names = from d in Enumerable.Range(0, Directories) from f in Enumerable.Range(0, Shared) select $"d{d}/shared-{f}";
        var owned = from t in Enumerable.Range(0, Threads) from f in Enumerable.Range(0, Own) select $"d{f % Directories}/own-{t}-{f}";
        using var overlay = Overlay.With(lower: Tree.Of([.. names.Concat(owned).Select(name => (name, (Node)ContentOf(name)))]));
        Dictionary<string, ulong> numbers = names.ToDictionary(name => name, name => Sys.Stat(overlay.Merged / name).Ino);
        Assert.Equal(numbers.Count, numbers.Values.Distinct().Count());

        List<Exception> failures = WhileTheKernelForgets((thread, isTime) => new Life(overlay.Merged, thread, numbers).Run(isTime));

        Assert.Empty(failures);
        foreach ((string name, ulong number) in numbers)
        {
            Assert.Equal(ContentOf(name), Sys.ReadText(overlay.Lower / name));
            Assert.Equal(number, Sys.Stat(overlay.Merged / name).Ino);
        }
    }

    /// <summary>Some listings are merged, some are not, and most are read by several at a time, with and without attributes.</summary>
    [MountFact]
    public void Every_directory_lists_its_own_while_others_are_read_and_the_kernel_forgets()
    {
        const int directories = 8;
        static int CountOf(int directory) => 5 + (directory * 60);
        var files =
            from d in Enumerable.Range(0, directories)
            from f in Enumerable.Range(0, CountOf(d))
            select ($"d{d}/{d}-{f}", (Node)new string('x', (d * 5) + (f % 31)));
        using var overlay = Overlay.With(lower: Tree.Of([.. files]));

        List<Exception> failures = WhileTheKernelForgets((thread, isTime) =>
        {
            var random = new Random(thread);
            while (isTime())
            {
                Look(overlay.Merged, random.Next(directories), CountOf, changes: thread < 2 ? thread : -1, looksAtAll: random.Next(2) == 0);
            }
        });

        Assert.Empty(failures);
    }

    /// <summary>Runs something on several threads for a while, in which the kernel is made to forget again and again.</summary>
    /// <param name="life">What a thread does. Its arguments are the number of the thread, and whether to go on.</param>
    /// <returns>What went wrong. The first failure ends all threads.</returns>
    private static List<Exception> WhileTheKernelForgets(Action<int, Func<bool>> life)
    {
        var since = Stopwatch.StartNew();
        List<Exception> failures = [];
        int ended = 0;
        Thread[] threads = [.. Enumerable.Range(0, Threads).Select(t => new Thread(() =>
        {
            try { life(t, () => since.Elapsed < duration && failures.Count == 0); }
            catch (Exception exception)
            {
                lock (failures) { failures.Add(exception); }
            }
            Interlocked.Increment(ref ended);
        }))];
        foreach (Thread thread in threads) { thread.Start(); }
        while (Volatile.Read(ref ended) < Threads)
        {
            Sys.DropCaches();
            Thread.Sleep(5);
        }
        foreach (Thread thread in threads) { thread.Join(); }
        return failures;
    }

    private static void Look(FilePath merged, int directory, Func<int, int> countOf, int changes, bool looksAtAll)
    {
        FilePath place = merged / $"d{directory}";
        if (changes >= 0) { Sys.Write(place / $"{directory}-new-{changes}", ""); }
        List<string> names = [.. Sys.ReadDirectory(place).Select(entry => entry.Name).Where(name => name is not "." and not "..")];
        if (changes >= 0) { Sys.Unlink(place / $"{directory}-new-{changes}"); }
        Assert.Equal(names.Count, names.Distinct().Count());
        Assert.All(names, name => Assert.StartsWith($"{directory}-", name, StringComparison.Ordinal));
        string[] lasting = [.. names.Where(name => !name.Contains("new", StringComparison.Ordinal))];
        Assert.Equal(countOf(directory), lasting.Length);
        if (!looksAtAll) { return; }
        foreach (string name in lasting)
        {
            int number = int.Parse(name[(name.IndexOf('-', StringComparison.Ordinal) + 1)..], CultureInfo.InvariantCulture);
            Assert.Equal((ulong)((directory * 5) + (number % 31)), Sys.Stat(place / name).Size);
        }
    }

    /// <summary>No two have the same, and most have not even the same length.</summary>
    private static string ContentOf(string name) =>
        new StringBuilder().Insert(0, name + "\n", 1 + ((name.Sum(c => c) * 7) % 97)).ToString();

    /// <summary>What one thread does: to files of its own, of which it knows everything, and to files that nobody changes.</summary>
    private sealed class Life(FilePath merged, int thread, Dictionary<string, ulong> numbers)
    {
        private readonly Random random = new(thread);
        private readonly string[] shared = [.. numbers.Keys];
        private readonly Dictionary<string, string> own = Enumerable.Range(0, Own)
            .Select(f => $"d{f % Directories}/own-{thread}-{f}")
            .ToDictionary(name => name, ContentOf);
        private int made;

        public void Run(Func<bool> goesOn)
        {
            while (goesOn())
            {
                string name = own.Keys.ElementAt(random.Next(own.Count));
                switch (random.Next(8))
                {
                    case 0: Make(); break;
                    case 1: Rename(name); break;
                    case 2: Remove(name); break;
                    case 3: Append(name); break;
                    case 4: Check(name, own[name]); break;
                    default: CheckShared(shared[random.Next(shared.Length)]); break;
                }
            }
            foreach ((string name, string content) in own) { Check(name, content); }
        }

        private string NewName() => $"d{random.Next(Directories)}/new-{thread}-{made++}{new string('x', random.Next(40))}";

        private void Make()
        {
            string name = NewName();
            Sys.Write(merged / name, own[name] = ContentOf(name));
        }

        private void Rename(string name)
        {
            string target = random.Next(2) == 0 ? NewName() : own.Keys.ElementAt(random.Next(own.Count));
            if (target == name) { return; }
            Sys.Rename(merged / name, merged / target);
            own[target] = own[name];
            own.Remove(name);
        }

        private void Append(string name)
        {
            Sys.Append(merged / name, "more");
            own[name] += "more";
        }

        /// <summary>Who has it open keeps it; another file may have its inode number at once.</summary>
        private void Remove(string name)
        {
            if (own.Count < Own) { return; }
            using Descriptor file = Sys.Open(merged / name, OpenFlags.ReadOnly);
            Sys.Unlink(merged / name);
            Make();
            Assert.Equal((0u, (ulong)own[name].Length), (file.Stat().Nlink, file.Stat().Size));
            Assert.Equal(own[name], file.ReadAllText());
            own.Remove(name);
            Assert.Equal(Errno.ENOENT, Sys.ErrorOf(() => Sys.Stat(merged / name)));
        }

        private void Check(string name, string content)
        {
            Statx stat = Sys.Stat(merged / name);
            Assert.Equal((1u, (ulong)content.Length), (stat.Nlink, stat.Size));
            Assert.Equal(content, Sys.ReadText(merged / name));
        }

        private void CheckShared(string name)
        {
            Check(name, ContentOf(name));
            Assert.Equal(numbers[name], Sys.Stat(merged / name).Ino);
        }
    }
}
