using System.Text;
using Veneer.Linux;

namespace Veneer.Overlay;

/// <summary>Parses mount options in the kernel's spelling, and options that callers of other overlays are known to pass.</summary>
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
    private MountFlags flags;
    private MountFlags cleared;

    /// <summary>
    /// The values as the options of the table give them. <see cref="Build"/> adds what follows from several of them.
    /// </summary>
    internal OverlayOptions Given { get; set; } = new() { LowerDirectories = [], MountPoint = "" };

    /// <summary>The source, if an option gives it.</summary>
    internal string? Source { get; set; }

    /// <summary>What redirect_dir says, if it is given: the default depends on other options.</summary>
    internal RedirectDirectory? Redirect { get; set; }

    /// <summary>What errors says, if it is given: the default depends on other options.</summary>
    internal OnError? Errors { get; set; }

    /// <summary>Whether coherent is given. It has no value of its own, since it is the default.</summary>
    internal bool Coherent { get; set; }

    /// <summary>The warnings: a sentence for each option that was accepted without effect.</summary>
    public IReadOnlyList<string> Warnings => warnings;

    /// <summary>Whether an existing mount is to be changed (<c>remount</c>), so that there is nothing to build.</summary>
    public bool Remount { get; internal set; }

    /// <summary>Whether to trace each request (<c>debug</c>).</summary>
    public bool Debug { get; internal set; }

    /// <summary>The flags of the mount so far, <see cref="MountFlags.ReadOnly"/> included.</summary>
    public MountFlags MountFlags => flags;

    /// <summary>Applies the options to the flags of an existing mount, for <see cref="Remount"/>.</summary>
    public MountFlags ApplyTo(MountFlags existing) => (existing & ~cleared) | flags;

    /// <summary>Whether an option was given that is not a flag of the mount.</summary>
    public bool HasOverlayOptions =>
        lowers.Count > 0 || Given.UpperDirectory is not null || Given.WorkDirectory is not null || spelled.Count > 0;

    /// <summary>
    /// Finds the first option that differs from those of a mount, or null, for <see cref="Remount"/>, which can change
    /// flags only.
    /// </summary>
    /// <param name="options">The mount's options as they were written, without layers and flags.</param>
    /// <param name="others">The mount's lowers as they were written, topmost first; an element is null where it is unknown.</param>
    /// <param name="otherUpper">The mount's upper as it was written; empty where there is none, null where it is unknown.</param>
    /// <param name="otherWork">The mount's work, like its upper.</param>
    public string? FindChange(IReadOnlyList<string> options, IReadOnlyList<string?> others, string? otherUpper, string? otherWork)
    {
        if (lowers.Count > 0 && others.All(other => other is not null) && !lowers.SequenceEqual(others, StringComparer.Ordinal))
        {
            return "lowerdir";
        }
        (string? upper, string? work) = (Given.UpperDirectory, Given.WorkDirectory);
        if (upper is not null && otherUpper is not null && upper != otherUpper) { return "upperdir"; }
        if (work is not null && otherWork is not null && work != otherWork) { return "workdir"; }
        OverlayOptions before = Settings(options);
        return spelled.Find(option =>
        {
            try { return Settings([.. options, option]) != before; }
            catch (OverlayMountException) { return true; } // the option contradicts one of the mount
        });

        static OverlayOptions Settings(IEnumerable<string> words)
        {
            var parser = new OptionParser();
            parser.Add("lowerdir=lower,upperdir=upper,workdir=work");
            foreach (string word in words) { parser.Add(word); }
            return parser.Build("", "") with { LowerDirectories = [], Spelled = [], AllowOther = null };
        }
    }

    /// <summary>Parses the argument of one <c>-o</c>.</summary>
    /// <exception cref="OverlayMountException">An option is unknown, or its value is not understood.</exception>
    public void Add(string options)
    {
        foreach (string option in Split(options))
        {
            if (option.Length > 0) { AddOne(option); }
        }
    }

    /// <summary>Splits the argument of one <c>-o</c> into its options, some of which may be empty, at commas that separate them.</summary>
    internal static IEnumerable<string> Split(string options)
    {
        int start = 0;
        while (true)
        {
            int length = LengthOfFirst(options.AsSpan(start));
            yield return options.Substring(start, length);
            start += length + 1;
            if (start > options.Length) { yield break; }
        }
    }

    /// <summary>Builds the options of the overlay from all options given.</summary>
    /// <exception cref="OverlayMountException">Options are missing, or contradict each other.</exception>
    public OverlayOptions Build(string? sourceName, string mountPoint)
    {
        if (lowers.Count == 0)
        {
            throw new OverlayMountException(
                "No lower directory is given: say which to show with -o lowerdir=DIR, or lowerdir=TOP:BELOW for several.");
        }
        if (lowers.Count > OverlayOptions.MaxLowerDirectories)
        {
            throw new OverlayMountException(
                $"{lowers.Count} lower directories are given, and an overlay has at most "
                + $"{OverlayOptions.MaxLowerDirectories}: merge some of them.");
        }
        (string? upper, string? work) = (Given.UpperDirectory, Given.WorkDirectory);
        if (upper is not null && work is null)
        {
            throw new OverlayMountException(
                $"upperdir={upper} needs a work directory: add workdir=DIR, an empty directory on the same filesystem, beside "
                + "the upper and not in it.");
        }
        if (upper is null && work is not null)
        {
            Warn($"workdir={work} has no effect without upperdir.");
        }

        // The kernel's dependencies between its options: ovl_fs_params_verify().
        RedirectDirectory redirected = Redirect ?? RedirectDirectory.Follow;
        if (Given.UserXattr)
        {
            // Any user can write these attributes, which must not lead the mounter to other names.
            if (Redirect is RedirectDirectory.On or RedirectDirectory.Follow)
            {
                throw new OverlayMountException(
                    "userxattr and redirect_dir exclude each other: leave redirect_dir out, or set redirect_dir=nofollow.");
            }
            if (Given.Metacopy)
            {
                throw new OverlayMountException("userxattr and metacopy=on exclude each other: leave one of them out.");
            }
            redirected = RedirectDirectory.NoFollow;
        }
        if (Given.Metacopy)
        {
            if (Redirect is not (null or RedirectDirectory.On))
            {
                throw new OverlayMountException("metacopy=on needs redirect_dir=on: leave redirect_dir out, or set it to on.");
            }
            redirected = RedirectDirectory.On;
        }
        if (Given.Revocable && Given.Passthrough == KernelFeature.Require)
        {
            throw new OverlayMountException("revocable and passthrough=require exclude each other: leave one of them out.");
        }
        if (Given.PassLower && (Given.Revocable || Coherent))
        {
            throw new OverlayMountException(
                $"{(Given.Revocable ? "revocable" : "coherent")} and passthrough=lower exclude each other: leave one of them out.");
        }

        return Given with
        {
            LowerDirectories = [.. lowers],
            WorkDirectory = upper is null ? null : work,
            MountPoint = mountPoint,
            Source = Source ?? (string.IsNullOrEmpty(sourceName) ? "veneer" : sourceName),
            ReadOnly = upper is null || (flags & MountFlags.ReadOnly) != 0,
            MountFlags = flags & ~MountFlags.ReadOnly,
            RedirectDirectory = redirected,
            Passthrough = Given.Revocable ? KernelFeature.Off : Given.Passthrough,
            Errors = Errors ?? (Given.Sync == Sync.Volatile ? OnError.Shutdown : OnError.Continue),
            Spelled = spelled.Count == 0 ? [] : [.. spelled],
        };
    }

    /// <summary>
    /// The length of the first option: it ends at a comma that is neither escaped nor in the quotes of an SELinux label.
    /// </summary>
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

    /// <summary>What the command line of a server says of the use of its layers by others: <c>inuse=</c>, given last.</summary>
    /// <param name="words">All words of the command line. They may be those of any other program.</param>
    internal static InUse InUseOf(IReadOnlyList<string> words)
    {
        const string longName = "--options";
        var parser = new OptionParser();
        for (int i = 0; i < words.Count && words[i] != "--"; i++)
        {
            string word = words[i];
            if (word is "-o" or longName) { Read(i + 1 < words.Count ? words[++i] : ""); }
            else if (word.StartsWith("-o", StringComparison.Ordinal)) { Read(word[2..]); }
            else if (word.StartsWith(longName + "=", StringComparison.Ordinal)) { Read(word[(longName.Length + 1)..]); }
        }
        return parser.Given.InUse;

        void Read(string list)
        {
            foreach (string option in Split(list).Where(option => option.StartsWith("inuse=", StringComparison.Ordinal)))
            {
                try { parser.AddOne(option); }
                catch (OverlayMountException) { } // no server was started so
            }
        }
    }

    /// <summary>Whether a text is a single option, and does not name directories or an action.</summary>
    public static bool IsOneOfNoLayer(string option)
    {
        if (option.Length == 0 || LengthOfFirst(option + ",") != option.Length) { return false; }
        string name = option.Split('=')[0];
        return name is not ("source" or "") && OptionTable.Find(name) is not { Kind: OptionKind.Place or OptionKind.Request };
    }

    /// <summary>Whether all words, separated by commas, are flags of a mount.</summary>
    public static bool AreFlags(string words) => words.Split(',').All(word => OptionTable.Find(word) is { Kind: OptionKind.Flag });

    private void AddOne(string option)
    {
        int equals = option.IndexOf('=', StringComparison.Ordinal);
        string name = equals < 0 ? option : option[..equals];
        MountOption known = OptionTable.Find(name) ?? throw Unknown(name);
        known.Read(this, name, equals < 0 ? null : option[(equals + 1)..]);
        if (known.Kind == OptionKind.Behaviour) { spelled.Add(option); }
    }

    /// <summary>Sets some flags of the mount and clears others.</summary>
    internal void Change(MountFlags set, MountFlags clear)
    {
        flags = (flags & ~clear) | set;
        cleared = (cleared & ~set) | clear;
    }

    /// <summary>Reads the value of <c>lowerdir=</c>. Kernel: ovl_parse_param_split_lowerdirs().</summary>
    internal void SetLowers(string value)
    {
        lowers.Clear();
        if (value.Length == 0) { return; } // as in the kernel: forgets the layers given so far
        var path = new StringBuilder();
        for (int i = 0; i <= value.Length; i++)
        {
            if (i == value.Length || value[i] == ':')
            {
                if (path.Length == 0)
                {
                    throw new OverlayMountException(value.Contains("::", StringComparison.Ordinal)
                        ? $"lowerdir={value} has '::', which marks data-only layers, and Veneer does not support these yet: use one "
                            + "colon if the layers may be seen."
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

    internal void AddLower(string path) => lowers.Add(path);

    /// <summary>Drops each backslash and keeps the character after it. Kernel: ovl_unescape().</summary>
    internal static string Unescape(string value)
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

    /// <summary>Adds a sentence to <see cref="Warnings"/>, unless it is there already.</summary>
    internal void Warn(string sentence)
    {
        if (!warnings.Contains(sentence)) { warnings.Add(sentence); }
    }

    private static OverlayMountException Unknown(string name)
    {
        // A short name with two wrong letters is another name.
        string? nearest = Spelling.Nearest(name, OptionTable.All.Where(option => option.IsShown).Select(option => option.Name),
            Math.Min(2, (name.Length / 2) - 1));
        return new OverlayMountException(nearest is null
            ? $"The option {name} is unknown: take it out, or{(name.Contains('/', StringComparison.Ordinal)
                ? ", if it is part of a path, write \\, for the comma before it."
                : " see veneer mount --help for those that exist.")}"
            : $"The option {name} is unknown: did you mean {nearest}?");
    }
}
