namespace Veneer.Mount.Tests;

/// <summary>
/// A filesystem on a loop device whose image lies on a tmpfs that a test can fill up: write(2) succeeds, and writing back
/// fails. On it are upper and work; lower and the mount point are beside it.
/// </summary>
public sealed class FailingDisk : IDisposable
{
    private readonly FilePath home;
    private readonly Filesystem kind;
    private bool isRebooted;

    public FailingDisk(Filesystem kind)
    {
        this.kind = kind;
        home = Scratch.New();
        Sys.MakeDirectory(home / "host", Oct(755));
        Scratch.MountTmpfs(home / "host", kind == Filesystem.Xfs ? "96m" : "48m"); // the smallest log of xfs has 64 MiB
        Command.Require("truncate", "-s", "512M", Image);
        string[] make = kind switch
        {
            Filesystem.Ext4 => ["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", Image],
            Filesystem.Xfs => ["mkfs.xfs", "-q", "-f", Image],
            _ => ["mkfs.btrfs", "-q", "-f", Image],
        };
        Command.Require(make);
        foreach (string name in (string[])["disk", "lower", "merged"]) { Sys.MakeDirectory(home / name, Oct(755)); }
        Sys.Write(home / "lower/file", "lower");
        MountDisk();
        Sys.MakeDirectory(Upper, Oct(755));
        Sys.MakeDirectory(Work, Oct(755));
        Command.Require("sync", "-f", Disk);
    }

    /// <summary>The filesystems that are tested.</summary>
    public static IReadOnlyList<Filesystem> Kinds { get; } = [Filesystem.Ext4, Filesystem.Xfs, Filesystem.Btrfs];

    public static TheoryData<Filesystem> Filesystems => [.. Kinds];

    public FilePath Disk => home / "disk";

    public FilePath Upper => Disk / "upper";

    public FilePath Work => Disk / "work";

    public FilePath Merged => home / "merged";

    private const string BootIdFile = "/proc/sys/kernel/random/boot_id";

    private string Image => home / "host/image";

    /// <summary>Where the record of a volatile upper is, beside the attributes.</summary>
    public FilePath Record => Work / "veneer-volatile";

    public FilePath DirtyMark => Work / "work/incompat/volatile/dirty";

    public FilePath Lower => home / "lower";

    /// <summary>A name beside the layers, on another filesystem than the disk.</summary>
    public FilePath Beside(string name) => home / name;

    /// <summary>Options for the layers.</summary>
    public string Layers => $"lowerdir={Lower},upperdir={Upper},workdir={Work}";

    private void MountDisk() => Command.Require("mount", "-o", "loop", Image, Disk);

    /// <summary>Runs veneer.</summary>
    public static Command.Result Veneer(params string[] words) => Command.Run([Mounter.Binary, .. words]);

    /// <summary>Runs a script as root of a new user namespace, with mounts of its own.</summary>
    public static Command.Result InUserNamespace(string script) =>
        Command.Run(["unshare", "--user", "--map-root-user", "--mount", "--propagation", "private", "sh", "-ec", script]);

    public Command.Result TryMount(string options) =>
        Veneer("mount", "-o", $"{Layers},{options}", Merged);

    public void Mount(string options)
    {
        Command.Result result = TryMount(options);
        Assert.True(result.ExitCode == 0, result.Text);
    }

    public void Unmount()
    {
        Command.Result result = Veneer("umount", Merged);
        Assert.True(result.ExitCode == 0, result.Text);
    }

    public void KillServer()
    {
        Overlay.Abort(Merged);
        Libc.Unmount(Merged.Bytes, lazy: true);
        while (Overlay.ServersOf(Merged).Count > 0) { Thread.Sleep(5); }
    }

    /// <summary>
    /// As if the machine had been started anew: the boot id is another, the files are the same. All tests of this process see
    /// that boot id until this disk is disposed of.
    /// </summary>
    public void Reboot()
    {
        if (isRebooted) { return; }
        Sys.Write(home / "boot", "99999999-2222-3333-4444-555555555555\n");
        Command.Require("mount", "--bind", home / "boot", BootIdFile);
        isRebooted = true;
    }

    public void RemountDisk()
    {
        Command.Require("umount", Disk);
        // Whoever has a copy of the mount keeps the filesystem as it is, and so the device.
        Patience.Eventually(() => Assert.Equal("", Command.Run(["losetup", "-j", Image]).Output.Trim()));
        MountDisk();
    }

    /// <summary>
    /// Makes the kernel fail to write something back, as it might half a minute after the write. Afterwards the disk works again.
    /// </summary>
    /// <param name="file">What cannot be written; by default something that has nothing to do with the overlay.</param>
    public void FailToWrite(FilePath? file = null)
    {
        FilePath target = file ?? Disk / "unrelated";
        using Descriptor real = Sys.Open(target, OpenFlags.ReadWrite | OpenFlags.Create, Oct(600));
        using IDisposable full = Fill();
        byte[] data = new byte[1 << 20];
        Random.Shared.NextBytes(data);
        for (int i = 0; i < 4; i++)
        {
            SysException.ThrowIf(Libc.WriteAt(real.Value, data, i * (long)data.Length, out _), $"write({target})");
        }
        using (Descriptor other = Sys.Open(target, OpenFlags.ReadWrite)) { Assert.NotEqual(Errno.None, Libc.SyncRange(other.Value, 0, 0)); }
    }

    /// <summary>From now on nothing can be written that has no place on the disk yet, until the result is disposed of.</summary>
    public IDisposable Fill()
    {
        using Descriptor filler = Sys.Open(Filler, OpenFlags.WriteOnly | OpenFlags.Create, Oct(600));
        // What the disk still writes by itself takes of what was free a moment ago.
        Patience.Eventually(() =>
        {
            StatFs free = Sys.StatFileSystem(home / "host");
            Assert.Equal(Errno.None,
                Sys.ErrorOf(() => filler.Allocate(AllocateMode.Default, 0, (long)(free.BlocksFree * (ulong)free.BlockSize))));
        });
        return new Fullness(Filler);
    }

    private FilePath Filler => home / "host/filler";

    private sealed class Fullness(FilePath filler) : IDisposable
    {
        public void Dispose() => Sys.Unlink(filler);
    }

    /// <summary>As if the machine had lost its power: what was not written to the device is gone, and the server as well.</summary>
    public void Crash()
    {
        FilePath copy = home / "copy";
        Command.Require("cp", "--sparse=always", Image, copy);
        if (Overlay.ServersOf(Merged).Count > 0) { KillServer(); }
        // A process that was killed disappears from /proc before it has closed its files.
        Patience.Eventually(() => Assert.Equal(0, Command.Run(["umount", Disk]).ExitCode));
        Command.Require("cp", "--sparse=always", copy, Image);
        Sys.Unlink(copy);
        MountDisk();
        Reboot();
    }

    /// <summary>Somebody else syncs the filesystem, and is told of the error.</summary>
    public void SomebodyElseSyncs() => Assert.NotEqual(0, Command.Run(["sync", "-f", Disk]).ExitCode);

    /// <summary>Whether something of a real file has not reached the disk.</summary>
    public static bool IsDirty(FilePath real)
    {
        using Descriptor file = Sys.Open(real, OpenFlags.ReadOnly);
        return Libc.IsDirty(file.Value, 0, 0);
    }

    /// <summary>The document of veneer status.</summary>
    public string Status() => Veneer("status", "--json", Merged).Output;

    /// <summary>What fsync(2) of a file of the overlay gives.</summary>
    public Errno SyncOf(string name, bool write = true)
    {
        using Descriptor file = Sys.Open(Merged / name, write ? OpenFlags.ReadWrite | OpenFlags.Create : OpenFlags.ReadOnly,
            write ? Oct(600) : 0);
        return Libc.Sync(file.Value, dataOnly: false);
    }

    public void Dispose()
    {
        if (Overlay.ServersOf(Merged).Count > 0) { KillServer(); }
        if (isRebooted) { Libc.Unmount(((FilePath)BootIdFile).Bytes, lazy: true); }
        Libc.Unmount(Disk.Bytes, lazy: true);
        Libc.Unmount((home / "host").Bytes, lazy: true);
        Sys.RemoveTree(home);
    }

    public override string ToString() => $"{kind}";
}
