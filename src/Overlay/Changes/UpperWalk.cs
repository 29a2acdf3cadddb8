using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Lookup;

namespace Veneer.Overlay.Changes;

/// <summary>Walks through an upper, and looks up in the lowers what each of its names means.</summary>
/// <remarks>
/// The order is that of the paths as bytes, so that <c>a</c>, <c>a-b</c> and <c>a/b</c> come in this order. For an archive,
/// each directory is followed by its content, since GNU tar sets a directory's times when it meets an object outside. The
/// walk has a stack of its own, and descriptors belong to the cache: neither depth nor length of a path is limited.
/// </remarks>
/// <param name="layers">The layers.</param>
/// <param name="position">Where the walk goes on, and when it began: objects that change from then on are disturbed.</param>
/// <param name="forArchive">
/// Whether the walk is for an archive: then renamed directories are walked completely, including what only lowers have, and
/// each directory is followed by its content.
/// </param>
/// <param name="disturbed">Called with a path (without a NUL) and the errno, or None when the object changed meanwhile.</param>
internal sealed class UpperWalk(LayerSet layers, DiffPosition position, bool forArchive, Action<byte[], Errno> disturbed)
{
    /// <summary>One directory on the path to the present one.</summary>
    private sealed class Level
    {
        public required DirectoryStack Directory { get; init; }
        public required byte[] Path { get; init; }
        public required byte[]? Source { get; init; }
        public required bool IsWhole { get; init; }
        public DirectoryStack? Baseline { get; init; }
        public List<Item> Items { get; } = [];
        public int Next { get; set; }
        public Statx Seen { get; set; }
    }

    /// <summary>A name that was listed. A directory has a second item, at which it is entered.</summary>
    private sealed class Item(byte[] name, bool isUpper)
    {
        public byte[] Name { get; } = name;
        public bool IsUpper { get; } = isUpper;
        public Step? Step { get; set; }
        public bool IsEntry { get; init; }
        public Item? Of { get; init; }
        public ReadOnlySpan<byte> Key => Name.AsSpan(0, Name.Length - 1);
    }

    /// <summary>Walks every name in upper, except whiteouts that cover nothing.</summary>
    public IEnumerable<Step> Run()
    {
        var above = new Stack<Level>();
        Level? level = Enter(layers.Root, [], [], isWhole: false);
        while (level is not null)
        {
            if (level.Next == level.Items.Count)
            {
                Leave(level);
                above.TryPop(out level);
                continue;
            }
            Item item = level.Items[level.Next++];
            if (!item.IsEntry)
            {
                byte[] path = NamePath.Join(level.Path, item.Key);
                bool wasListed = path.AsSpan().SequenceCompareTo(position.After) <= 0 && position.After.Length > 0;
                if (wasListed && !MayLeadFurther(path)) { continue; }
                item.Step = Examine(level, item, path);
                if (item.Step is { } step && !wasListed) { yield return step; }
                continue;
            }
            if (item.Of!.Step is not { Directory: { } directory } entered) { continue; }
            bool isWhole = level.IsWhole || (forArchive && entered.IsRenamedDirectory);
            // A directory without upper is only entered if everything is walked.
            if (Enter(directory, entered.Path, entered.Source, isWhole) is { } below)
            {
                above.Push(level);
                level = below;
            }
        }
    }

    /// <summary>Whether objects below a path that was listed may not have been listed.</summary>
    private bool MayLeadFurther(byte[] path)
    {
        byte[] below = [.. path, (byte)'/'];
        return position.After.AsSpan().StartsWith(below) || below.AsSpan().SequenceCompareTo(position.After) > 0;
    }

    private Level? Enter(DirectoryStack directory, byte[] path, byte[]? source, bool isWhole)
    {
        var level = new Level
        {
            Directory = directory,
            Path = path,
            Source = source,
            IsWhole = isWhole,
            Baseline = directory.Lowers.Length > 0 ? directory.Below : null,
        };
        var known = isWhole ? new HashSet<string>(StringComparer.Ordinal) : null;
        if (directory.Upper is { } upper)
        {
            Errno error = Read(level, upper, isUpper: true, known);
            if (error.IsError)
            {
                disturbed(path, error);
                return null;
            }
        }
        if (isWhole)
        {
            foreach (RealDirectory lower in directory.Lowers)
            {
                Errno error = Read(level, lower, isUpper: false, known);
                if (error.IsError) { disturbed(path, error); }
            }
        }
        level.Items.Sort(Order);
        return level;
    }

    /// <summary>
    /// Orders items as whole paths are ordered: the content of a directory comes where its name with a slash would, in an
    /// archive directly after the directory.
    /// </summary>
    private int Order(Item a, Item b)
    {
        int common = a.Key.CommonPrefixLength(b.Key);
        return NextByte(a, common).CompareTo(NextByte(b, common));

        int NextByte(Item item, int at) => at < item.Key.Length ? item.Key[at] : !item.IsEntry ? -1 : forArchive ? 0 : '/';
    }

    private Errno Read(Level level, RealDirectory real, bool isUpper, HashSet<string>? known)
    {
        Errno error = layers.Open(new RealName(real, [0]), OpenFlags.ReadOnly | OpenFlags.Directory, out int descriptor);
        if (error.IsError) { return error; }
        var reader = new DirectoryReader(descriptor);
        try
        {
            if (isUpper)
            {
                error = Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic, out Statx seen);
                if (error.IsError) { return error; }
                level.Seen = seen;
            }
            while (reader.MoveNext())
            {
                byte[] name = reader.TerminatedName.ToArray();
                if (known?.Add(Convert.ToHexString(name)) == false) { continue; }
                var item = new Item(name, isUpper);
                level.Items.Add(item);
                const byte unknown = 0, directory = 4; // DT_UNKNOWN, DT_DIR
                if (reader.Type is unknown or directory)
                {
                    level.Items.Add(new Item(name, isUpper) { IsEntry = true, Of = item });
                }
            }
            return reader.Error;
        }
        finally
        {
            reader.Dispose();
            Libc.Close(descriptor);
        }
    }

    /// <summary>Reports a directory as disturbed if names in it have changed since the walk began, or since they were listed.</summary>
    private void Leave(Level level)
    {
        if (level.Directory.Upper is not { } upper) { return; }
        Errno error = layers.Stat(new RealName(upper, [0]), out Statx now);
        if (error.IsError
            || position.Since.IsUpTo(Timestamp.Of(now.ChangeTime))
            || Timestamp.Of(level.Seen.ChangeTime) != Timestamp.Of(now.ChangeTime))
        {
            disturbed(level.Path, Errno.None);
        }
    }

    private Step? Examine(Level level, Item item, byte[] path)
    {
        Errno error = layers.Lookup.Find(level.Directory, item.Name, out Found found);
        var below = default(Found);
        if (!error.IsError && level.Baseline is { } baseline) { error = layers.Lookup.Find(baseline, item.Name, out below); }
        if (error.IsError)
        {
            disturbed(path, error);
            return null;
        }
        if (item.IsUpper && !found.HasUpper && !found.IsWhiteout)
        {
            disturbed(path, Errno.None); // it was removed after it was listed
            return null;
        }
        Baseline? was = below.Exists ? new Baseline(level.Baseline!, item.Name, NamePath.Join(level.Source!, item.Key), below) : null;
        if (!found.Exists)
        {
            return was is not null && found.IsWhiteout
                ? new Step
                {
                    Path = path, Parent = level.Directory, Name = item.Name, Found = found, Base = was, IsWhole = level.IsWhole
                }
                : null;
        }
        error = layers.Lookup.Complete(level.Directory, item.Name, found, out Whole whole);
        if (error.IsError)
        {
            disturbed(path, error == Errno.ENOENT ? Errno.None : error);
            return null;
        }
        if (found.HasUpper && position.Since.IsUpTo(Timestamp.Of(found.Stat.ChangeTime))) { disturbed(path, Errno.None); }
        if (!found.Stat.IsDirectory)
        {
            return new Step
            {
                Path = path, Parent = level.Directory, Name = item.Name, Found = found, Whole = whole, Base = was, IsWhole = level.IsWhole
            };
        }

        DirectoryStack directory = level.Directory.Child(item.Name, found.HasUpper, whole);
        byte[]? source = whole.Lowers.Length == 0 ? null : whole.Redirect is { } redirect
            ? redirect[0] == '/' ? redirect[1..] : NamePath.Join(level.Source ?? [], redirect)
            : NamePath.Join(level.Source ?? [], item.Key);
        return new Step
        {
            Path = path, Parent = level.Directory, Name = item.Name, Found = found, Whole = whole, Base = was, Directory = directory,
            Source = source, IsWhole = level.IsWhole
        };
    }
}

/// <summary>A time, to tell which files have changed after it.</summary>
internal readonly record struct Timestamp(long Seconds, uint Nanoseconds)
{
    /// <summary>
    /// Waits for the next tick of the kernel's clock for files, some milliseconds, and returns its time. Files that changed
    /// before have an earlier time; files that change from then on have that time or a later one.
    /// </summary>
    public static Timestamp Next()
    {
        // A file may have the exact time, which is between two ticks, so the next tick must be awaited.
        Timestamp before = Of(Libc.Now), now;
        while ((now = Of(Libc.FileTime)).IsUpTo(before)) { Thread.Sleep(1); }
        return now;
    }

    private static Timestamp Of(TimeSpec time) => new(time.Seconds, (uint)time.Nanoseconds);

    /// <summary>The time of a file.</summary>
    public static Timestamp Of(in StatxTime time) => new(time.Seconds, time.Nanoseconds);

    /// <summary>Whether this time is not later than another one.</summary>
    public bool IsUpTo(Timestamp other) => Seconds < other.Seconds || (Seconds == other.Seconds && Nanoseconds <= other.Nanoseconds);
}
