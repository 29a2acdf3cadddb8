using Veneer.Linux;

namespace Veneer.Rig;

/// <summary>The layers of an overlay, and where it is to be mounted.</summary>
public sealed record Layers(IReadOnlyList<FilePath> Lowers, FilePath? Upper, FilePath? Work, FilePath Merged, string Options);

/// <summary>Somebody who can mount an overlay: Veneer, the kernel, or any other by its command line.</summary>
/// <remarks>
/// <c>VENEER_TEST_MOUNT</c> chooses who is tested: <c>kernel</c>, <c>fuse-overlayfs</c>, or a command with the
/// placeholders <c>{options}</c> (or <c>{branches}</c>) and <c>{mnt}</c>, unmounted with <c>VENEER_TEST_UMOUNT</c> (default
/// <c>umount {mnt}</c>).
/// <c>VENEER_TEST_OPTIONS</c> are further options for every mount by Veneer.
/// Whatever is expected of Veneer as an overlay must also be found true of the kernel.
/// </remarks>
public abstract class Mounter
{
    public static readonly Mounter Kernel = new KernelMounter();

    public static readonly Mounter UnderTest = FromEnvironment();

    /// <summary>The binary under test, for those who start it in their own way.</summary>
    public static string Binary =>
        Environment.GetEnvironmentVariable("VENEER_TEST_BINARY")
        ?? Path.Combine(CProgram.Repository, "out/veneer");

    /// <summary>The one that checks the order of its locks; <c>make out-checked/veneer</c> builds it.</summary>
    public static string CheckedBinary => Path.Combine(CProgram.Repository, "out-checked/veneer");

    public bool IsKernel => this == Kernel;

    public abstract bool IsVeneer { get; }

    public abstract void Mount(Layers layers);

    /// <summary>Unmounts, and returns when the layers are free.</summary>
    public abstract void Unmount(FilePath merged);

    /// <summary>Whether the kernel reads and writes files of upper without the server.</summary>
    public bool PassesUpper => IsVeneer && !IsGiven("passthrough=off") && !IsGiven("revocable");

    /// <summary>Whether the kernel reads large lower files without the server, and a reader goes on seeing them after a copy-up.</summary>
    public bool PassesLower => IsVeneer && IsGiven("passthrough=lower");

    /// <summary>Whether the work directory has the mark of a volatile mount, also when a test asks for none.</summary>
    public bool LeavesMark => IsVeneer && IsGiven("volatile");

    /// <summary>The further options of a mount, but for those that what a test asks for by itself leaves no place for.</summary>
    public static IEnumerable<string> Further(string own) =>
        FurtherOptions.Where(option => !own.Split(',').Any(other => Exclude(NameOf(option), NameOf(other))));

    private static string[] FurtherOptions { get; } =
        Environment.GetEnvironmentVariable("VENEER_TEST_OPTIONS")?.Split(',', StringSplitOptions.RemoveEmptyEntries) ?? [];

    private static bool IsGiven(string option) => FurtherOptions.Contains(option);

    private static string NameOf(string option) => option.Split('=')[0];

    private static bool Exclude(string one, string other) =>
        one == other || Excluding.Contains((one, other)) || Excluding.Contains((other, one));

    private static readonly (string, string)[] Excluding =
    [
        ("userxattr", "metacopy"), ("userxattr", "redirect_dir"), ("metacopy", "redirect_dir"),
        ("volatile", "fsync"), ("volatile", "ro"), ("passthrough", "revocable"),
    ];

    /// <summary>Options in the kernel's spelling.</summary>
    public static string OptionsOf(Layers layers, params IEnumerable<string> further)
    {
        var words = new List<string> { "lowerdir=" + string.Join(':', layers.Lowers.Select(l => Escaped(l))) };
        if (layers.Upper is { } upper) { words.Add($"upperdir={upper}"); }
        if (layers.Work is { } work) { words.Add($"workdir={work}"); }
        if (layers.Options.Length > 0) { words.Add(layers.Options); }
        words.AddRange(further);
        return string.Join(',', words);
    }

    /// <summary>Whoever <c>VENEER_TEST_MOUNT</c> or the command line of a test tool names.</summary>
    public static Mounter Parse(string? mount, string? unmount) => mount switch
    {
        // Of a kernel overlay that was on the same directories a process keeps a copy that a test beside this one starts in
        // a mount namespace of its own: they are in use, but not against us.
        null or "" or "veneer" => new CommandMounter($"{Binary} mount -o {{options}},inuse=warn {{mnt}}", $"{Binary} umount {{mnt}}",
            veneer: true),
        "kernel" => Kernel,
        "fuse-overlayfs" => new CommandMounter("fuse-overlayfs -o {options} {mnt}", "umount {mnt}", veneer: false),
        _ => new CommandMounter(mount, unmount ?? "umount {mnt}", veneer: false),
    };

    /// <summary>Veneer, started by a command that sets its limits or what its kernel offers.</summary>
    /// <param name="command">The words before those of Veneer, as <c>prlimit --nofile=256</c>.</param>
    /// <param name="options">Further options, each behind a comma.</param>
    public static Mounter VeneerUnder(string command, string options = "") =>
        Parse($"{command} {Binary} mount -o {{options}}{options} {{mnt}}", $"{Binary} umount {{mnt}}");

    /// <summary>The layers as unionfs-fuse and mergerfs name them.</summary>
    private static string BranchesOf(Layers layers) =>
        string.Join(':',
            [.. layers.Upper is { } upper ? [$"{upper}=RW"] : Array.Empty<string>(), .. layers.Lowers.Select(lower => $"{lower}=RO")]);

    private static Mounter FromEnvironment() =>
        Parse(Environment.GetEnvironmentVariable("VENEER_TEST_MOUNT"), Environment.GetEnvironmentVariable("VENEER_TEST_UMOUNT"));

    private static string Escaped(string path) =>
        path.Replace("\\", "\\\\", StringComparison.Ordinal).Replace(":", "\\:", StringComparison.Ordinal);

    /// <summary>Unmounts with umount2(2); others may look at a mount for a moment, so that it tries again when it is busy.</summary>
    protected static void UnmountPatiently(FilePath merged)
    {
        for (int attempt = 0; ; attempt++)
        {
            Errno error = Libc.Unmount(merged.Bytes, lazy: false);
            if (error == Errno.EBUSY && attempt < 100)
            {
                Thread.Sleep(20);
                continue;
            }
            SysException.ThrowIf(error, $"umount({merged})");
            return;
        }
    }

    private sealed class KernelMounter : Mounter
    {
        public override bool IsVeneer => false;

        public override void Mount(Layers layers)
        {
            MountFlags flags = MountFlags.None;
            var options = new List<string>();
            foreach (string option in OptionsOf(layers).Split(','))
            {
                MountFlags flag = option switch
                {
                    "ro" => MountFlags.ReadOnly,
                    "noatime" => MountFlags.NoAccessTime,
                    "nodiratime" => MountFlags.NoDirectoryAccessTime,
                    "relatime" => MountFlags.RelativeAccessTime,
                    "strictatime" => MountFlags.StrictAccessTime,
                    _ => MountFlags.None,
                };
                flags |= flag;
                if (flag == MountFlags.None) { options.Add(option); }
            }
            SysException.ThrowIf(
                Libc.Mount("overlay\0"u8, layers.Merged.Bytes, "overlay\0"u8, flags, PathText.Encode(string.Join(',', options))),
                $"mount -t overlay -o {OptionsOf(layers)}");
        }

        public override void Unmount(FilePath merged) => UnmountPatiently(merged);

        public override string ToString() => "kernel";
    }

    private sealed class CommandMounter(string mount, string unmount, bool veneer) : Mounter
    {
        public override bool IsVeneer => veneer;

        public override void Mount(Layers layers) =>
            Run(mount.Replace("{branches}", BranchesOf(layers), StringComparison.Ordinal), layers.Merged,
                OptionsOf(layers, veneer ? Further(layers.Options) : []));

        public override void Unmount(FilePath merged)
        {
            for (int attempt = 0; ; attempt++)
            {
                try
                {
                    Run(unmount, merged, "");
                    return;
                }
                catch (InvalidOperationException problem) when (
                    attempt < 40 && problem.Message.Contains("in use", StringComparison.Ordinal))
                {
                    Thread.Sleep(50);
                }
            }
        }

        private static void Run(string template, FilePath merged, string options) =>
            Command.Require([.. template.Split(' ', StringSplitOptions.RemoveEmptyEntries).Select(word =>
                word.Replace("{options}", options, StringComparison.Ordinal).Replace("{mnt}", merged, StringComparison.Ordinal))]);

        public override string ToString() => mount.Split(' ')[0];
    }
}
