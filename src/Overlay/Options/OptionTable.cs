using System.Globalization;
using Veneer.Linux;
using static Veneer.Overlay.OptionKind;

namespace Veneer.Overlay;

/// <summary>The table of all mount options.</summary>
public static class OptionTable
{
    private const MountFlags AccessTime = MountFlags.NoAccessTime | MountFlags.RelativeAccessTime | MountFlags.StrictAccessTime;

    private static readonly (string Word, Sync Meaning)[] fsyncWords =
        [("auto", Sync.Auto), ("strict", Sync.Strict), ("volatile", Sync.Volatile), ("1", Sync.Auto), ("0", Sync.Volatile)];

    private static readonly (string Word, OnError Meaning)[] errorsWords =
        [("continue", OnError.Continue), ("remount-ro", OnError.ReadOnly), ("shutdown", OnError.Shutdown)];

    private static readonly (string Word, KernelFeature Meaning)[] ioUringWords =
        [("auto", KernelFeature.Auto), ("off", KernelFeature.Off), ("require", KernelFeature.Require)];

    /// <summary>All options, in the order of the manual.</summary>
    public static IReadOnlyList<MountOption> All { get; } =
    [
        Option("lowerdir", OptionSource.Kernel, Place, "=DIR[:DIR...]",
            (parser, name, value) => parser.SetLowers(value ?? throw NeedsValue(name)), """
            The lower directories, topmost first, at most 500. A colon in a name
            is written \:, a backslash \\, a comma \, (also in other options).
            """),
        Option("lowerdir+", OptionSource.Kernel, Place, "=DIR",
            (parser, name, value) => parser.AddLower(Required(name, value).Replace("\\,", ",", StringComparison.Ordinal)), """
            One more lower directory below those given so far, colons and
            backslashes and all.
            """),
        Text("upperdir", OptionSource.Kernel, "=DIR", (parser, value) => parser.Given = parser.Given with { UpperDirectory = value }, """
            Where changes go. Without it the overlay is read-only.
            """),
        Text("workdir", OptionSource.Kernel, "=DIR", (parser, value) => parser.Given = parser.Given with { WorkDirectory = value }, """
            An empty directory beside the upper, on the same filesystem. Needed
            with upperdir.
            """),
        Option("datadir+", OptionSource.Kernel, Place, "=DIR", (_, _, _) => throw new OverlayMountException(
            "datadir+= asks for a data-only layer, which Veneer does not support yet: use lowerdir+= if the layer may be seen."), """
            A layer of which only the data of metacopies is seen. Not supported
            yet.
            """),

        Choice("redirect_dir", OptionSource.Kernel, (parser, value) => parser.Redirect = value, """
            on: directories of lower layers can be renamed. Otherwise that gives
            EXDEV, and mv copies. off means follow. Default: follow.
            """,
            ("on", RedirectDirectory.On), ("follow", RedirectDirectory.Follow), ("nofollow", RedirectDirectory.NoFollow),
            ("off", RedirectDirectory.Follow)),
        Choice("metacopy", OptionSource.Kernel, (parser, value) => parser.Given = parser.Given with { Metacopy = value }, """
            on: when the mode, owner, times or attributes of a lower file change,
            the upper gets these alone, a metacopy, and the data when the file is
            written. Implies redirect_dir=on. Trust the layers: a metacopy shows
            what a name in a lower layer leads to. Without it, opening a metacopy
            that is there gives EPERM. Default: off.
            """, ("on", true), ("off", false)),
        Choice("index", OptionSource.Kernel,
            (_, isOn) => RefuseIf(isOn, "index=on is not supported yet: leave it out, hard links stay whole while mounted without it."), """
            on is not supported yet: hard links of lower layers stay links while
            mounted, and not across mounts. Default: off.
            """, ("on", true), ("off", false)),
        Choice("xino", OptionSource.Kernel, (parser, value) => parser.Given = parser.Given with { Xino = value }, """
            Inode numbers are always unique in the mount, and tell the filesystem
            where the layers are on several, whatever the value. on also makes
            new directories opaque, as in the kernel.
            """, ("on", Xino.On), ("auto", Xino.Auto), ("off", Xino.Off)),
        Word("userxattr", OptionSource.Kernel, Behaviour, parser => parser.Given = parser.Given with { UserXattr = true }, """
            Keep the overlay's attributes in user.overlay.* instead of
            trusted.overlay.*, in all layers. Where upper takes no others, as from
            users other than root, that is chosen for it by itself.
            """),
        Word("volatile", OptionSource.Kernel, Behaviour, parser => parser.Given = parser.Given with { Sync = Sync.Volatile }, """
            The same as fsync=volatile, below.
            """),
        Choice("nfs_export", OptionSource.Kernel,
            (_, isOn) => RefuseIf(isOn, "nfs_export=on is not supported yet: leave it out, and export a layer instead of the overlay."),
            null, ("on", true), ("off", false)),
        Choice("verity", OptionSource.Kernel,
            (_, word) => RefuseIf(word != "off", $"verity={word} is not supported yet: leave it out if you trust the lower layers."), """
            on and require are not supported yet. Default: off.
            """, ("on", "on"), ("require", "require"), ("off", "off")),
        Choice("uuid", OptionSource.Kernel, (_, _) => { }, """
            No effect: a FUSE mount shows no identity in statfs(2).
            """, ("null", 0), ("off", 0), ("on", 0), ("auto", 0)),
        Word("override_creds", OptionSource.Kernel, Behaviour, _ => { }, """
            No effect: the layers are always reached with the mounter's
            credentials.
            """),

        Choice("fsync", OptionSource.Veneer, (parser, value) => parser.Given = parser.Given with { Sync = value }, """
            volatile, 0: nothing is synced, and fsync returns at once; after a
            crash of the machine the upper is lost. It can be mounted again with
            volatile as long as nothing is lost, and otherwise after veneer sync.
            auto, 1: copies of files with data are synced before they get their
            names. strict: so are those of directories and of empty files, for
            filesystems that do not keep their order. Default: auto.
            """, fsyncWords),

        Choice("errors", OptionSource.Veneer, (parser, value) => parser.Errors = value, """
            What happens when a write to the upper's filesystem fails, or a layer
            is moved or removed. In any case that is logged, and after a failed
            write fsync gives EIO.
            remount-ro: whatever changes something gives EROFS. shutdown: see
            veneer shutdown. Default: shutdown with volatile, else continue.
            """, errorsWords),
        Word("sync_on_unmount", OptionSource.Veneer, Behaviour, parser => parser.Given = parser.Given with { SyncOnUnmount = true }, """
            Sync a volatile upper when it is unmounted, as veneer sync does.
            """),
        Word("revocable", OptionSource.Veneer, Behaviour, parser => parser.Given = parser.Given with { Revocable = true }, """
            The kernel never reads and writes files without the server, so that a
            shutdown reaches all that is open or mapped; costs speed.
            """),
        Choice<(KernelFeature Feature, bool Lower)>("passthrough", OptionSource.Veneer,
            (parser, value) => parser.Given = parser.Given with { Passthrough = value.Feature, PassLower = value.Lower }, """
            Whether the kernel reads and writes files of upper without the server,
            and, if there is no upper, those of lower layers. Needs root and Linux
            6.9. auto: if that is there, and veneer status says why not. require:
            if it is not there, the mount fails. lower: as auto, and large files and
            programs of lower layers as well: that is faster, but whoever has one
            open when it is first changed goes on reading the old content, and its
            watches and locks are not those of who opens it later. Default: auto.
            """,
            ("auto", (KernelFeature.Auto, false)), ("off", (KernelFeature.Off, false)),
            ("lower", (KernelFeature.Auto, true)), ("require", (KernelFeature.Require, false))),
        Word("coherent", OptionSource.Veneer, Behaviour, parser => parser.Coherent = true, """
            A process that has a lower file open sees later writes to it: the
            default, and so without effect.
            """),
        new("io_uring", OptionSource.Veneer, Behaviour, $"[={string.Join('|', WordsOf(ioUringWords))}]", WordsOf(ioUringWords), """
            Whether requests come over io_uring, which saves a quarter to a third
            of the time that each takes. The kernel must offer it: Linux 6.14, and
            Y in /sys/module/fuse/parameters/enable_uring, which root writes there
            before mounting. auto: over io_uring if it does, and veneer status
            says why not. Default: auto; without a value: require.
            """, ReadIoUring),
        Option("threads", OptionSource.Veneer, Behaviour, "=N", ReadThreads, """
            How many threads, from 1 to 256, are ready for requests that do not
            come over io_uring, which has one for each CPU. More come when some
            take long. Default: one or two.
            """),
        Choice("inuse", OptionSource.Veneer, (parser, value) => parser.Given = parser.Given with { InUse = value }, """
            What to do when another overlay, of Veneer or of the kernel, uses the
            upper or the work, or changes a lower. warn: mount all the same, and
            say so in the log; what both do to it is undefined. Default: refuse,
            and name who has it.
            """, ("refuse", InUse.Refuse), ("warn", InUse.Warn)),
        Word("pin", OptionSource.Veneer, Behaviour, parser => parser.Given = parser.Given with { Pin = true }, """
            While mounted, the layers cannot be removed or renamed in this mount
            namespace: that gives EBUSY. Needs the right to mount. Without pin,
            errors= says what happens when one is.
            """),

        Flag("ro", MountFlags.ReadOnly),
        Flag("rw", MountFlags.None, MountFlags.ReadOnly),
        Flag("nosuid", MountFlags.NoSetUid),
        Flag("suid", MountFlags.None, MountFlags.NoSetUid),
        Flag("nodev", MountFlags.NoDevices),
        Flag("dev", MountFlags.None, MountFlags.NoDevices),
        Flag("noexec", MountFlags.NoExecute),
        Flag("exec", MountFlags.None, MountFlags.NoExecute),
        Flag("sync", MountFlags.Synchronous),
        Flag("async", MountFlags.None, MountFlags.Synchronous),
        Flag("dirsync", MountFlags.DirectorySynchronous),
        Flag("noatime", MountFlags.NoAccessTime, AccessTime),
        Flag("atime", MountFlags.None, AccessTime),
        Flag("nodiratime", MountFlags.NoDirectoryAccessTime),
        Flag("diratime", MountFlags.None, MountFlags.NoDirectoryAccessTime),
        Flag("relatime", MountFlags.RelativeAccessTime, AccessTime),
        Flag("norelatime", MountFlags.None, MountFlags.RelativeAccessTime),
        Flag("strictatime", MountFlags.StrictAccessTime, AccessTime),
        Flag("nostrictatime", MountFlags.None, MountFlags.StrictAccessTime),
        Flag("nosymfollow", MountFlags.NoSymbolicLinks),
        Flag("symfollow", MountFlags.None, MountFlags.NoSymbolicLinks),
        Flag("defaults", MountFlags.None, MountFlags.ReadOnly | MountFlags.NoSetUid | MountFlags.NoDevices | MountFlags.NoExecute
            | MountFlags.Synchronous, """
            As for mount(8).
            """),
        Word("remount", OptionSource.Mount, Request, parser => parser.Remount = true, """
            Change these flags of a mount that is there, as in veneer mount -o
            remount,ro MOUNTPOINT. mount -o remount does the same where the helper
            of mount(8) is installed. Other options may be repeated, not changed.
            With ro, what was written is on the disk afterwards, but for a volatile
            mount.
            """),
        Word("debug", OptionSource.Fuse, Request, parser => parser.Debug = true, """
            As -d.
            """),
        Word("allow_other", OptionSource.Fuse, Behaviour, parser => parser.Given = parser.Given with { AllowOther = true }, """
            Let other users in. The default for root.
            """),
        Text("fsname", OptionSource.Fuse, "=NAME", (parser, value) => parser.Source = value, """
            The same as SOURCE.
            """),
        Option("subtype", OptionSource.Fuse, Behaviour, "=NAME", (_, _, _) => { }, """
            No effect: the type is always fuse.veneer.
            """),
        Word("default_permissions", OptionSource.Fuse, Behaviour, _ => { }, """
            No effect: the kernel always checks permissions.
            """),

        // Options that mount(8), systemd and other callers use among themselves, and what the kernel shows of a FUSE mount,
        // for remount.
        .. Each(Ignored, OptionSource.Mount, (_, _, _) => { },
            "auto", "noauto", "user", "nouser", "users", "owner", "group", "nofail", "_netdev", "comment", "uhelper", "silent", "loud",
            "private", "rprivate", "nonempty", "nolazytime", "noiversion", "nomand", "user_id", "group_id", "rootmode", "blksize"),
        .. Each(Harmless, OptionSource.Kernel,
            (parser, name, _) => parser.Warn($"{name} has no effect: Veneer does not set SELinux labels."),
            "context", "fscontext", "defcontext", "rootcontext", "seclabel"),
        .. Each(Harmless, OptionSource.Fuse,
            (parser, name, value) => parser.Warn($"{name}{(value is null ? "" : "=" + value)} has no effect on Veneer."),
            "lazytime", "iversion", "mand",
            "noxattrs", "fast_ino", "static_nlink", "ino32_t", "threaded", "timeout", "writeback", "noacl",
            "max_read", "max_write", "max_readahead", "max_background", "congestion_threshold", "max_threads", "max_idle_threads",
            "clone_fd",
            "async_read", "sync_read", "big_writes", "large_read", "hard_remove", "use_ino", "readdir_ino", "intr", "noforget", "remember",
            "kernel_cache", "auto_cache", "noauto_cache", "attr_timeout", "entry_timeout", "negative_timeout", "ac_attr_timeout",
            "splice_read", "splice_write", "splice_move", "no_splice_read", "no_splice_write", "no_splice_move", "auto_unmount"),
        .. Each(Refused, OptionSource.Fuse, (_, name, _) => throw new OverlayMountException(
            $"{name} would change whose the files are, which Veneer does not support yet: leave it out, or change the "
            + "owners in the layers."),
            "uidmapping", "gidmapping", "squash_to_root", "squash_to_uid", "squash_to_gid", "xattr_permissions", "uid", "gid", "umask"),
        .. Each(Refused, OptionSource.Fuse,
            (_, _, _) => throw new OverlayMountException("allow_root is not supported: use allow_other, permissions are always checked."),
            "allow_root"),
        .. Each(Refused, OptionSource.Fuse, (_, _, _) => throw new OverlayMountException(
            "plugins are not supported: unpack the layer into a directory and give that as lowerdir."), "plugins"),
        .. Each(Refused, OptionSource.Fuse, (_, name, _) => throw new OverlayMountException(
            $"{name} is not supported: mount as the user whose rights the layers should be reached with."), "setuid", "drop_privileges"),
        .. Each(Refused, OptionSource.Kernel, (_, name, value) =>
        {
            Bare(name, value);
            throw new OverlayMountException(
                "nooverride_creds is not supported: Veneer always reaches the layers with the mounter's credentials.");
        }, "nooverride_creds"),
    ];

    private static readonly MountOption forOthers = Each(Ignored, OptionSource.Mount, (_, _, _) => { }, "x-")[0];

    /// <summary>The word for a value of <c>fsync=</c>.</summary>
    public static string WordOf(Sync sync) => Array.Find(fsyncWords, choice => choice.Meaning == sync).Word;

    /// <summary>The word for a value of <c>errors=</c>.</summary>
    public static string WordOf(OnError errors) => Array.Find(errorsWords, choice => choice.Meaning == errors).Word;

    /// <summary>
    /// Finds an option by its name, or null. Names that begin with <c>x-</c> are for other programs: see mount(8).
    /// </summary>
    public static MountOption? Find(string name)
    {
        foreach (MountOption option in All)
        {
            if (option.Name == name) { return option; }
        }
        return name.StartsWith("x-", StringComparison.OrdinalIgnoreCase) ? forOthers : null;
    }

    /// <summary>
    /// The lists of options that a list which is being written may become: the last option in it gets the rest of its name,
    /// or of its value if that is one of several words.
    /// </summary>
    public static IEnumerable<string> Complete(string list)
    {
        string last = OptionParser.Split(list).LastOrDefault("");
        string before = list[..^last.Length];
        int equals = last.IndexOf('=', StringComparison.Ordinal);
        IEnumerable<string> all = equals < 0
            ? All.Where(option => option.IsShown).SelectMany(Beginnings)
            : (Find(last[..equals])?.Choices ?? []).Select(word => $"{last[..equals]}={word}");
        return all.Where(option => option.StartsWith(last, StringComparison.Ordinal)).Select(option => before + option);

        // The value of an option may be optional.
        static IEnumerable<string> Beginnings(MountOption option) => option.Value switch
        {
            "" => [option.Name],
            ['=', ..] => [option.Name + "="],
            _ => [option.Name, option.Name + "="],
        };
    }

    private static MountOption Option(string name, OptionSource source, OptionKind kind, string value,
        Action<OptionParser, string, string?> read, string? meaning = null) =>
        new(name, source, kind, value, [], meaning, read);

    /// <summary>Makes an option without a value.</summary>
    private static MountOption Word(string name, OptionSource source, OptionKind kind, Action<OptionParser> set, string? meaning = null) =>
        Option(name, source, kind, "", (parser, given, value) =>
        {
            Bare(given, value);
            set(parser);
        }, meaning);

    /// <summary>
    /// Makes an option whose value is a path or a name, in which a backslash is dropped and the character after it kept.
    /// </summary>
    private static MountOption Text(string name, OptionSource source, string value, Action<OptionParser, string> set, string meaning) =>
        Option(name, source, Place, value, (parser, given, text) => set(parser, OptionParser.Unescape(Required(given, text))), meaning);

    /// <summary>Makes an option whose value is one of several words.</summary>
    private static MountOption Choice<T>(string name, OptionSource source, Action<OptionParser, T> set, string? meaning,
        params (string Word, T Meaning)[] choices) =>
        new(name, source, Behaviour, "=" + string.Join('|', WordsOf(choices)), WordsOf(choices), meaning,
            (parser, given, value) => set(parser, Choose(given, value, choices)));

    private static string[] WordsOf<T>((string Word, T Meaning)[] choices) => [.. choices.Select(choice => choice.Word)];

    /// <summary>Makes an option for a flag of mount(2), or for its opposite.</summary>
    private static MountOption Flag(string name, MountFlags set, MountFlags clear = MountFlags.None, string? meaning = null) =>
        Word(name, OptionSource.Mount, OptionKind.Flag, parser => parser.Change(set, clear), meaning);

    /// <summary>Makes options that are read in the same way, and that the manual does not show.</summary>
    private static MountOption[] Each(OptionKind kind, OptionSource source, Action<OptionParser, string, string?> read,
        params string[] names) =>
        [.. names.Select(name => Option(name, source, kind, "", read))];

    private static void ReadIoUring(OptionParser parser, string name, string? value) =>
        parser.Given = parser.Given with
        {
            IoUring = value is null
                ? KernelFeature.Require
                : Choose(name, value, ioUringWords),
        };

    private static void ReadThreads(OptionParser parser, string name, string? value) =>
        parser.Given = parser.Given with
        {
            Threads = int.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out int number) && number is > 0 and <= 256
                ? number
                : throw new OverlayMountException(value is null
                    ? "threads needs a value: a number from 1 to 256."
                    : $"threads={value} is not understood: use a number from 1 to 256."),
        };

    private static void RefuseIf(bool isAsked, string sentence)
    {
        if (isAsked) { throw new OverlayMountException(sentence); }
    }

    private static string Required(string name, string? value) => string.IsNullOrEmpty(value) ? throw NeedsValue(name) : value;

    private static OverlayMountException NeedsValue(string name) => new($"{name} needs a value: {name}=SOMETHING.");

    private static void Bare(string name, string? value)
    {
        if (value is not null) { throw new OverlayMountException($"{name}={value} is not understood: {name} takes no value."); }
    }

    private static T Choose<T>(string name, string? value, (string Word, T Meaning)[] choices)
    {
        foreach ((string word, T meaning) in choices)
        {
            if (word == value) { return meaning; }
        }
        string words = $"{string.Join(", ", choices[..^1].Select(choice => choice.Word))} or {choices[^1].Word}";
        throw new OverlayMountException(value is null
            ? $"{name} needs a value: {words}."
            : $"{name}={value} is not understood: {name} is {words}.");
    }
}
