using System.Diagnostics;
using System.Runtime.InteropServices;

namespace Veneer.Mount.Tests;

/// <summary>
/// A file that is copied up stays the inode it was, to whoever has it open, watches it, locks it or runs it: not only what
/// is read, but all that the kernel ties to an inode.
/// </summary>
public sealed class SameInodeTests
{
    /// <summary>The kinds of file that were ever treated differently: small, middling or large, an ELF image or not.</summary>
    public static TheoryData<int, bool> Files =>
        new() { { 3000, false }, { 100_000, false }, { 2 << 20, false }, { 100_000, true }, { 2 << 20, true } };

    [MountTheory]
    [MemberData(nameof(Files))]
    public void Watches_hear_of_what_is_written_later(int size, bool program)
    {
        RequireOneInode();
        using Overlay overlay = WithFile(size, program);
        using Descriptor reader = Sys.Open(overlay.Merged / "file", OpenFlags.ReadOnly);
        SysException.ThrowIf(Libc.OpenWatches(out int watches), "inotify_init1");
        using var queue = new Descriptor(watches);
        SysException.ThrowIf(Libc.AddWatch(watches, (overlay.Merged / "file").Bytes, (WatchEvents)InModify, out _), "inotify_add_watch");
        byte[] buffer = new byte[4096];
        for (int time = 0; time < 2; time++)
        {
            Sys.Append(overlay.Merged / "file", "x");

            SysException.ThrowIf(Libc.Read(watches, buffer, out int count), "read");
            Assert.True(count > 0);
            Assert.Equal(InModify, MemoryMarshal.Read<uint>(buffer.AsSpan(4)));
        }
    }

    [MountTheory]
    [MemberData(nameof(Files))]
    public void Locks_are_those_of_whoever_opens_the_file_later(int size, bool program)
    {
        RequireOneInode();
        using Overlay overlay = WithFile(size, program);
        using Actor me = Actor.Process();
        me.Do(() =>
        {
            using Descriptor reader = Sys.Open(overlay.Merged / "file", OpenFlags.ReadOnly);
            Assert.Equal(Errno.None, reader.Flock(LockType.Write));
            Assert.Equal(Errno.None, reader.Lock(LockType.Read, 0, 10, LockOwner.OpenFile));

            using Descriptor writer = Sys.Open(overlay.Merged / "file", OpenFlags.ReadWrite);

            Assert.Equal(Errno.EAGAIN, writer.Flock(LockType.Write));
            Assert.Equal(Errno.EAGAIN, writer.Lock(LockType.Write, 5, 1, LockOwner.OpenFile));
            Assert.Equal(Errno.None, writer.Lock(LockType.Write, 10, 1, LockOwner.OpenFile));
        });
    }

    [MountTheory]
    [MemberData(nameof(Files))]
    public void Whoever_has_the_file_open_sees_the_attributes_of_the_copy(int size, bool program)
    {
        RequireOneInode();
        using Overlay overlay = WithFile(size, program);
        using Descriptor reader = Sys.Open(overlay.Merged / "file", OpenFlags.ReadOnly),
            place = Sys.Open(overlay.Merged / "file", OpenFlags.Path);
        ulong ino = reader.Stat().Ino;

        Sys.Append(overlay.Merged / "file", "more");

        Assert.Equal((ino, (ulong)size + 4), (reader.Stat().Ino, reader.Stat().Size));
        using Descriptor again = reader.Reopen(OpenFlags.ReadWrite), other = place.Reopen(OpenFlags.ReadOnly);
        Assert.Equal("more", again.TextAt(size, 4));
        Assert.Equal("more", other.TextAt(size, 4));
    }

    /// <summary>A copy that a chmod made, and the data of a metacopy, are the file's as well.</summary>
    [MountTheory]
    [InlineData(100_000, "")]
    [InlineData(2 << 20, "")]
    [InlineData(100_000, "metacopy=on")]
    [InlineData(2 << 20, "metacopy=on")]
    public void Readers_from_before_and_after_a_change_of_attributes_see_what_is_written_then(int size, string options)
    {
        RequireOneInode();
        using Overlay overlay = WithFile(size, program: true, options);
        using Descriptor before = Sys.Open(overlay.Merged / "file", OpenFlags.ReadOnly);
        _ = before.ReadAt(0, 100);
        Sys.ChangeMode(overlay.Merged / "file", Oct(700));
        using Descriptor between = Sys.Open(overlay.Merged / "file", OpenFlags.ReadOnly);
        _ = between.ReadAt(0, 100);

        using Descriptor writer = Sys.Open(overlay.Merged / "file", OpenFlags.ReadWrite);
        writer.WriteAt("written", 50);

        Assert.Equal("written", before.TextAt(50, 7));
        Assert.Equal("written", between.TextAt(50, 7));
        Assert.Equal(before.Stat().Ino, writer.Stat().Ino);
    }

    [MountTheory]
    [InlineData(false, "")]
    [InlineData(true, "")]
    [InlineData(true, "metacopy=on")]
    public void A_program_that_runs_cannot_be_written(bool changed, string options)
    {
        RequireOneInode();
        using var overlay = Overlay.With(options: options, mounted: false);
        File.Copy("/bin/sleep", overlay.Lowers[0] / "program");
        overlay.Mount();
        FilePath program = overlay.Merged / "program";
        using Process running = Programs.Start(program, "60");
        try
        {
            if (changed)
            {
                Sys.ChangeMode(program, Oct(755));
                using Descriptor reader = Sys.Open(program, OpenFlags.ReadOnly);
            }
            Assert.Equal(Errno.ETXTBSY, Sys.ErrorOf(() => Sys.Open(program, OpenFlags.WriteOnly)));
            Assert.Equal(Errno.ETXTBSY, Sys.ErrorOf(() => Sys.Open(program, OpenFlags.ReadWrite | OpenFlags.Append)));
            Assert.Equal(Errno.ETXTBSY, Sys.ErrorOf(() => Sys.Open(program, OpenFlags.WriteOnly | OpenFlags.Truncate)));
            Assert.Equal(Errno.ETXTBSY, Sys.ErrorOf(() => Sys.Truncate(program, 0)));
        }
        finally
        {
            running.Kill();
            running.WaitForExit();
        }
        using Descriptor writer = Sys.Open(program, OpenFlags.ReadWrite);
        Assert.Equal(Errno.ETXTBSY,
            (Errno)Assert.Throws<System.ComponentModel.Win32Exception>(() => Programs.Start(program, "0")).NativeErrorCode);
    }

    private const uint InModify = 2;

    private static void RequireOneInode() =>
        Assert.SkipWhen(Mounter.UnderTest.PassesLower,
            "With passthrough=lower a file that is open gets another inode: docs/differences.md.");

    private static Overlay WithFile(int size, bool program, string options = "")
    {
        byte[] content = new byte[size];
        if (program) { "\u007FELF"u8.CopyTo(content); }
        return Overlay.With(lower: Tree.Of(("file", Node.File(content).Mode(Oct(755)))), options: options);
    }
}
