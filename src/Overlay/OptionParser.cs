using System.Globalization;
using System.Text;
using Veneer.Linux;

namespace Veneer.Overlay;

/// <summary>Reads mount options in the kernel's spelling, and those that callers of other overlays are known to send.</summary>
/// <remarks>
/// <list type="bullet">
/// <item>Commas separate options; <c>\,</c> is a comma inside a value. Empty options are skipped.</item>
/// <item>In <c>lowerdir=</c> colons separate layers, topmost first; <c>\:</c> is a colon, <c>\\</c> a backslash.
/// In <c>upperdir=</c> and <c>workdir=</c> a backslash is dropped and the character after it kept.</item>
/// <item>The value of <c>lowerdir+=</c> is one path as it is, but for <c>\,</c>.</item>
/// <item>What is given twice counts as given last. <c>lowerdir=</c> replaces all layers before it.</item>
/// <item>The SELinux options may be in double quotes, and then contain commas.</item>
/// </list>
/// An option that is not known, or that is known and would change what the overlay shows or whom it lets in, is
/// refused; one whose absence does no harm becomes a warning.
/// </remarks>
public sealed class OptionParser
{
    private readonly List<string> warnings = [];
    private readonly List<string> lowers = [];
    private readonly List<string> spelled = [];
    private string? upper;
    private string? work;
    private string? source;
    private bool? allowOther;
    private MountFlags flags;
    private MountFlags cleared;
    private RedirectDirectory? redirect;
    private bool? metacopy;
    private Xino xino = Xino.Auto;
    private bool userXattr;
    private bool coherent;
    private bool passLower;
    private KernelFeature passthrough;
    private KernelFeature ioUring;
    private Sync sync;
    private OnError? errors;
    private bool syncOnUnmount;
    private bool revocable;
    private int? threads;
    private InUse inUse;
    private bool pin;

    /// <summary>A sentence for each option that was accepted without effect.</summary>
    public IReadOnlyList<string> Warnings => warnings;

    /// <summary>Whether an existing mount is to change (<c>remount</c>), and there is nothing to build.</summary>
    public bool Remount { get; private set; }

    /// <summary>Whether each request is to be traced (<c>debug</c>).</summary>
    public bool Debug { get; private set; }

    /// <summary>The mount's own flags so far, <see cref="MountFlags.ReadOnly"/> included.</summary>
    public MountFlags MountFlags => flags;

    /// <summary>The flags of an existing mount, changed as the options say; for <see cref="Remount"/>.</summary>
    public MountFlags ApplyTo(MountFlags existing) => (existing & ~cleared) | flags;

    /// <summary>Reads the argument of one <c>-o</c>.</summary>
    /// <exception cref="OverlayMountException">An option is unknown, or its value is not understood.</exception>
    public void Add(string options)
    {
        ReadOnlySpan<char> rest = options;
        while (rest.Length > 0)
        {
            int length = LengthOfFirst(rest);
            if (length > 0) { AddOne(rest[..length].ToString()); }
            rest = rest[Math.Min(length + 1, rest.Length)..];
        }
    }

    /// <summary>The overlay that the options describe.</summary>
    /// <exception cref="OverlayMountException">Options are missing, or contradict each other.</exception>
    public OverlayOptions Build(string? sourceName, string mountPoint)
    {
        if (lowers.Count == 0)
        {
            throw new OverlayMountException("No lower directory is given: say which to show with -o lowerdir=DIR, or lowerdir=TOP:BELOW for several.");
        }
        if (lowers.Count > OverlayOptions.MaxLowerDirectories)
        {
            throw new OverlayMountException($"{lowers.Count} lower directories are given, and an overlay has at most {OverlayOptions.MaxLowerDirectories}: merge some of them.");
        }
        if (upper is not null && work is null)
        {
            throw new OverlayMountException($"upperdir={upper} needs a work directory: add workdir=DIR, an empty directory on the same filesystem, beside the upper and not in it.");
        }
        if (upper is null && work is not null)
        {
            Warn($"workdir={work} has no effect without upperdir.");
        }

        // The dependencies that the kernel has between its options: ovl_fs_params_verify().
        RedirectDirectory redirected = redirect ?? RedirectDirectory.Follow;
        bool copyAttributesOnly = metacopy ?? false;
        if (userXattr)
        {
            // A user can write these attributes, and must not lead us to names of his choice.
            if (redirect is RedirectDirectory.On or RedirectDirectory.Follow)
            {
                throw new OverlayMountException("userxattr and redirect_dir exclude each other: leave redirect_dir out, or set redirect_dir=nofollow.");
            }
            if (copyAttributesOnly)
            {
                throw new OverlayMountException("userxattr and metacopy=on exclude each other: leave one of them out.");
            }
            redirected = RedirectDirectory.NoFollow;
        }
        if (copyAttributesOnly)
        {
            if (redirect is not (null or RedirectDirectory.On))
            {
                throw new OverlayMountException("metacopy=on needs redirect_dir=on: leave redirect_dir out, or set it to on.");
            }
            redirected = RedirectDirectory.On;
        }
        if (revocable && passthrough == KernelFeature.Require)
        {
            throw new OverlayMountException("revocable and passthrough=require exclude each other: leave one of them out.");
        }
        if (passLower && (revocable || coherent))
        {
            throw new OverlayMountException($"{(revocable ? "revocable" : "coherent")} and passthrough=lower exclude each other: leave one of them out.");
        }

        return new OverlayOptions
        {
            LowerDirectories = [.. lowers],
            UpperDirectory = upper,
            WorkDirectory = upper is null ? null : work,
            MountPoint = mountPoint,
            Source = source ?? (string.IsNullOrEmpty(sourceName) ? "veneer" : sourceName),
            ReadOnly = upper is null || (flags & MountFlags.ReadOnly) != 0,
            AllowOther = allowOther,
            MountFlags = flags & ~MountFlags.ReadOnly,
            RedirectDirectory = redirected,
            Metacopy = copyAttributesOnly,
            Xino = xino,
            UserXattr = userXattr,
            PassLower = passLower,
            Passthrough = revocable ? KernelFeature.Off : passthrough,
            IoUring = ioUring,
            Sync = sync,
            Errors = errors ?? (sync == Sync.Volatile ? OnError.Shutdown : OnError.Continue),
            SyncOnUnmount = syncOnUnmount,
            Revocable = revocable,
            Threads = threads,
            InUse = inUse,
            Spelled = spelled.Count == 0 ? [] : [.. spelled],
            Pin = pin,
        };
    }

    /// <summary>Length of the first option: up to a comma that is neither escaped nor in the quotes of an SELinux label.</summary>
    private static int LengthOfFirst(ReadOnlySpan<char> options)
    {
        bool quoted = false;
        for (int i = 0; i < options.Length; i++)
        {
            switch (options[i])
            {
                case '\\':
                    i++;
                    break;
                case '"' when quoted:
                    quoted = false;
                    break;
                case '"' when i > 0 && options[i - 1] == '=' && IsLabel(options[..(i - 1)]):
                    quoted = true;
                    break;
                case ',' when !quoted:
                    return i;
            }
        }
        return options.Length;
    }

    private static bool IsLabel(ReadOnlySpan<char> name) => name is "context" or "fscontext" or "defcontext" or "rootcontext";

    /// <summary>Whether a text is one option, whatever follows it, and none that says which directories are meant, or where.</summary>
    public static bool IsOneOfNoLayer(string option) =>
        LengthOfFirst(option + ",") == option.Length && option.Length > 0 && option.Split('=')[0] is not ("lowerdir" or "lowerdir+" or "datadir+" or "upperdir" or "workdir" or "source" or "fsname" or "remount" or "debug" or "");

    /// <summary>Whether words, with commas between them, are flags of a mount alone.</summary>
    public static bool AreFlags(string words) => words.Split(',').All(word => word.Length > 0 && word.All(char.IsAsciiLetter) && (new OptionParser().AddMountFlag(word, null) || word == "rw"));

    private void AddOne(string option)
    {
        int equals = option.IndexOf('=', StringComparison.Ordinal);
        string name = equals < 0 ? option : option[..equals];
        string? value = equals < 0 ? null : option[(equals + 1)..];
        if (AddOverlay(name, value))
        {
            if (name is not ("lowerdir" or "lowerdir+" or "upperdir" or "workdir" or "fsname" or "debug" or "remount")) { spelled.Add(option); }
            return;
        }
        if (!AddMountFlag(name, value) && !IsIgnored(name) && !AddForeign(name, option))
        {
            throw Unknown(name);
        }
    }

    /// <summary>The overlay's options, with the kernel's names, and our own.</summary>
    private bool AddOverlay(string name, string? value)
    {
        switch (name)
        {
            case "lowerdir":
                lowers.Clear();
                AddLowers(value ?? throw NeedsPath(name));
                return true;
            case "lowerdir+":
                AddLower(Required(name, value).Replace("\\,", ",", StringComparison.Ordinal));
                return true;
            case "datadir+":
                throw new OverlayMountException("datadir+= asks for a data-only layer, which Veneer does not support yet: use lowerdir+= if the layer may be seen.");
            case "upperdir":
                upper = Unescape(Required(name, value));
                return true;
            case "workdir":
                work = Unescape(Required(name, value));
                return true;
            case "redirect_dir":
                redirect = Choose(name, value, ("on", RedirectDirectory.On), ("follow", RedirectDirectory.Follow), ("nofollow", RedirectDirectory.NoFollow), ("off", RedirectDirectory.Follow));
                return true;
            case "metacopy":
                metacopy = Choose(name, value, ("on", true), ("off", false));
                return true;
            case "index":
                if (Choose(name, value, ("on", true), ("off", false)))
                {
                    throw new OverlayMountException("index=on is not supported yet: leave it out, hard links stay whole while mounted without it.");
                }
                return true;
            case "xino":
                xino = Choose(name, value, ("on", Xino.On), ("auto", Xino.Auto), ("off", Xino.Off));
                return true;
            case "uuid":
                _ = Choose(name, value, ("null", 0), ("off", 0), ("on", 0), ("auto", 0)); // statfs(2) of a FUSE mount has no fsid that it could choose
                return true;
            case "nfs_export":
                if (Choose(name, value, ("on", true), ("off", false)))
                {
                    throw new OverlayMountException("nfs_export=on is not supported yet: leave it out, and export a layer instead of the overlay.");
                }
                return true;
            case "verity":
                if (Choose(name, value, ("on", true), ("require", true), ("off", false)))
                {
                    throw new OverlayMountException($"verity={value} is not supported yet: leave it out if you trust the lower layers.");
                }
                return true;
            case "userxattr":
                userXattr = Flag(name, value);
                return true;
            case "override_creds":
                return Flag(name, value);
            case "nooverride_creds":
                throw new OverlayMountException("nooverride_creds is not supported: Veneer always reaches the layers with the mounter's credentials.");
            case "volatile":
                sync = Flag(name, value) ? Sync.Volatile : sync;
                return true;
            case "fsync":
                sync = Choose(name, value, ("auto", Sync.Auto), ("strict", Sync.Strict), ("volatile", Sync.Volatile), ("1", Sync.Auto), ("0", Sync.Volatile));
                return true;
            case "errors":
                errors = Choose(name, value, ("continue", OnError.Continue), ("remount-ro", OnError.ReadOnly), ("shutdown", OnError.Shutdown));
                return true;
            case "sync_on_unmount":
                syncOnUnmount = Flag(name, value);
                return true;
            case "revocable":
                revocable = Flag(name, value);
                return true;
            case "coherent":
                coherent = Flag(name, value); // always so, unless passthrough=lower asks for the opposite
                return true;
            case "passthrough":
                (passthrough, passLower) = Choose(name, value, ("auto", (KernelFeature.Auto, false)), ("off", (KernelFeature.Off, false)), ("lower", (KernelFeature.Auto, true)), ("require", (KernelFeature.Require, false)));
                return true;
            case "io_uring":
                ioUring = value is null ? KernelFeature.Require : Choose(name, value, ("auto", KernelFeature.Auto), ("off", KernelFeature.Off), ("require", KernelFeature.Require));
                return true;
            case "threads":
                threads = int.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out int number) && number is > 0 and <= 256
                    ? number
                    : throw new OverlayMountException(value is null ? "threads needs a value: a number from 1 to 256." : $"threads={value} is not understood: use a number from 1 to 256.");
                return true;
            case "inuse":
                inUse = Choose(name, value, ("refuse", InUse.Refuse), ("warn", InUse.Warn));
                return true;
            case "pin":
                pin = Flag(name, value);
                return true;
            case "allow_other":
                allowOther = Flag(name, value);
                return true;
            case "default_permissions":
                return Flag(name, value); // always so
            case "fsname":
                source = Unescape(Required(name, value));
                return true;
            case "subtype":
                return true; // the type is always fuse.veneer
            case "debug":
                Debug = Flag(name, value);
                return true;
            case "remount":
                Remount = Flag(name, value);
                return true;
            default:
                return false;
        }
    }

    /// <summary>Flags of mount(2), and their opposites.</summary>
    private bool AddMountFlag(string name, string? value)
    {
        const MountFlags accessTime = MountFlags.NoAccessTime | MountFlags.RelativeAccessTime | MountFlags.StrictAccessTime;
        (MountFlags set, MountFlags clear) = name switch
        {
            "ro" => (MountFlags.ReadOnly, MountFlags.None),
            "rw" => (MountFlags.None, MountFlags.ReadOnly),
            "nosuid" => (MountFlags.NoSetUid, MountFlags.None),
            "suid" => (MountFlags.None, MountFlags.NoSetUid),
            "nodev" => (MountFlags.NoDevices, MountFlags.None),
            "dev" => (MountFlags.None, MountFlags.NoDevices),
            "noexec" => (MountFlags.NoExecute, MountFlags.None),
            "exec" => (MountFlags.None, MountFlags.NoExecute),
            "sync" => (MountFlags.Synchronous, MountFlags.None),
            "async" => (MountFlags.None, MountFlags.Synchronous),
            "dirsync" => (MountFlags.DirectorySynchronous, MountFlags.None),
            "nosymfollow" => (MountFlags.NoSymbolicLinks, MountFlags.None),
            "symfollow" => (MountFlags.None, MountFlags.NoSymbolicLinks),
            "noatime" => (MountFlags.NoAccessTime, accessTime),
            "atime" => (MountFlags.None, accessTime),
            "relatime" => (MountFlags.RelativeAccessTime, accessTime),
            "norelatime" => (MountFlags.None, MountFlags.RelativeAccessTime),
            "strictatime" => (MountFlags.StrictAccessTime, accessTime),
            "nostrictatime" => (MountFlags.None, MountFlags.StrictAccessTime),
            "nodiratime" => (MountFlags.NoDirectoryAccessTime, MountFlags.None),
            "diratime" => (MountFlags.None, MountFlags.NoDirectoryAccessTime),
            "defaults" => (MountFlags.None, MountFlags.ReadOnly | MountFlags.NoSetUid | MountFlags.NoDevices | MountFlags.NoExecute | MountFlags.Synchronous),
            _ => (MountFlags.None, MountFlags.None),
        };
        if (set == MountFlags.None && clear == MountFlags.None) { return false; }
        _ = Flag(name, value);
        flags = (flags & ~clear) | set;
        cleared = (cleared & ~set) | clear;
        return true;
    }

    /// <summary>Words that are for mount(8), systemd or a caller, and not for us.</summary>
    private static bool IsIgnored(string name) => name switch
    {
        "auto" or "noauto" or "user" or "nouser" or "users" or "owner" or "group" or "nofail" or "_netdev" or "comment" or "uhelper" => true,
        "private" or "rprivate" or "nonempty" or "silent" or "loud" => true,
        "nolazytime" or "noiversion" or "nomand" => true,
        "user_id" or "group_id" or "rootmode" or "blksize" => true, // remount: what the kernel shows of a FUSE mount
        _ => name.StartsWith("x-", StringComparison.OrdinalIgnoreCase),
    };

    /// <summary>Options of other overlays and of libfuse: a warning where nothing is lost, a refusal where something is.</summary>
    private bool AddForeign(string name, string option)
    {
        switch (name)
        {
            case "context" or "fscontext" or "defcontext" or "rootcontext" or "seclabel":
                Warn($"{name} has no effect: Veneer does not set SELinux labels.");
                return true;
            case "lazytime" or "iversion" or "mand":
            case "noxattrs" or "fast_ino" or "static_nlink" or "ino32_t" or "threaded" or "timeout" or "writeback" or "noacl":
            case "max_read" or "max_write" or "max_readahead" or "max_background" or "congestion_threshold" or "max_threads" or "max_idle_threads" or "clone_fd":
            case "async_read" or "sync_read" or "big_writes" or "large_read" or "hard_remove" or "use_ino" or "readdir_ino" or "intr" or "noforget" or "remember":
            case "kernel_cache" or "auto_cache" or "noauto_cache" or "attr_timeout" or "entry_timeout" or "negative_timeout" or "ac_attr_timeout":
            case "splice_read" or "splice_write" or "splice_move" or "no_splice_read" or "no_splice_write" or "no_splice_move":
            case "auto_unmount":
                Warn($"{option} has no effect on Veneer.");
                return true;
            case "uidmapping" or "gidmapping" or "squash_to_root" or "squash_to_uid" or "squash_to_gid" or "xattr_permissions" or "uid" or "gid" or "umask":
                throw new OverlayMountException($"{name} would change whose the files are, which Veneer does not support yet: leave it out, or change the owners in the layers.");
            case "allow_root":
                throw new OverlayMountException("allow_root is not supported: use allow_other, permissions are always checked.");
            case "plugins":
                throw new OverlayMountException("plugins are not supported: unpack the layer into a directory and give that as lowerdir.");
            case "setuid" or "drop_privileges":
                throw new OverlayMountException($"{name} is not supported: mount as the user whose rights the layers should be reached with.");
            default:
                return false;
        }
    }

    /// <summary>The value of <c>lowerdir=</c>. Kernel: ovl_parse_param_split_lowerdirs().</summary>
    private void AddLowers(string value)
    {
        if (value.Length == 0) { return; } // the kernel: forget the layers so far
        var path = new StringBuilder();
        for (int i = 0; i <= value.Length; i++)
        {
            if (i == value.Length || value[i] == ':')
            {
                if (path.Length == 0)
                {
                    throw new OverlayMountException(value.Contains("::", StringComparison.Ordinal)
                        ? $"lowerdir={value} has '::', which marks data-only layers, and Veneer does not support these yet: use one colon if the layers may be seen."
                        : $"lowerdir={value} has an empty path: take out the colon too much, or write \\: for a colon in a name.");
                }
                AddLower(path.ToString());
                path.Clear();
                continue;
            }
            if (value[i] == '\\' && i + 1 < value.Length) { i++; }
            path.Append(value[i]);
        }
    }

    private void AddLower(string path)
    {
        if (path.Length == 0) { throw NeedsPath("lowerdir+"); }
        lowers.Add(path);
    }

    /// <summary>Drops each backslash and keeps what follows it. Kernel: ovl_unescape().</summary>
    private static string Unescape(string value)
    {
        if (!value.Contains('\\', StringComparison.Ordinal)) { return value; }
        var plain = new StringBuilder(value.Length);
        for (int i = 0; i < value.Length; i++)
        {
            if (value[i] == '\\' && i + 1 < value.Length) { i++; }
            plain.Append(value[i]);
        }
        return plain.ToString();
    }

    private static string Required(string name, string? value) => string.IsNullOrEmpty(value) ? throw NeedsPath(name) : value;

    private static OverlayMountException NeedsPath(string name) => new($"{name} needs a value: {name}=SOMETHING.");

    private static bool Flag(string name, string? value) =>
        value is null ? true : throw new OverlayMountException($"{name}={value} is not understood: {name} takes no value.");

    private static T Choose<T>(string name, string? value, params ReadOnlySpan<(string Word, T Meaning)> choices)
    {
        var words = new StringBuilder();
        for (int i = 0; i < choices.Length; i++)
        {
            if (choices[i].Word == value) { return choices[i].Meaning; }
            words.Append(i == 0 ? "" : i == choices.Length - 1 ? " or " : ", ").Append(choices[i].Word);
        }
        throw new OverlayMountException(value is null
            ? $"{name} needs a value: {words}."
            : $"{name}={value} is not understood: {name} is {words}.");
    }

    private void Warn(string sentence)
    {
        if (!warnings.Contains(sentence)) { warnings.Add(sentence); }
    }

    /// <summary>Names worth suggesting for one that is misspelt.</summary>
    private static readonly string[] Names =
    [
        "lowerdir", "lowerdir+", "upperdir", "workdir", "redirect_dir", "metacopy", "index", "xino", "uuid", "nfs_export",
        "verity", "userxattr", "volatile", "fsync", "errors", "sync_on_unmount", "revocable", "coherent", "passthrough", "io_uring", "threads", "inuse", "pin", "allow_other",
        "default_permissions", "fsname", "debug", "remount", "ro", "rw", "nosuid", "nodev", "noexec", "noatime",
        "relatime", "strictatime", "nodiratime", "dirsync", "nosymfollow",
    ];

    private static OverlayMountException Unknown(string name)
    {
        string? nearest = null;
        int least = Math.Min(3, name.Length / 2); // a short name that is half wrong is another name
        foreach (string candidate in Names)
        {
            int distance = Distance(name, candidate);
            if (distance < least) { (nearest, least) = (candidate, distance); }
        }
        return new OverlayMountException(nearest is null
            ? $"The option {name} is unknown: take it out, or see veneer mount --help for those that exist."
            : $"The option {name} is unknown: did you mean {nearest}?");
    }

    /// <summary>How many characters must be inserted, deleted or replaced to turn one name into the other (Levenshtein).</summary>
    private static int Distance(string from, string to)
    {
        int[] row = new int[to.Length + 1];
        for (int j = 0; j <= to.Length; j++) { row[j] = j; }
        for (int i = 1; i <= from.Length; i++)
        {
            int diagonal = row[0];
            row[0] = i;
            for (int j = 1; j <= to.Length; j++)
            {
                int above = row[j];
                row[j] = Math.Min(Math.Min(row[j - 1], above) + 1, diagonal + (from[i - 1] == to[j - 1] ? 0 : 1));
                diagonal = above;
            }
        }
        return row[^1];
    }
}
