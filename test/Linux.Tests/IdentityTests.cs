namespace Veneer.Linux.Tests;

/// <summary>Whom the kernel takes a thread for. Each test has a thread of its own, which ends changed.</summary>
public sealed class IdentityTests : IDisposable
{
    private readonly TemporaryDirectory directory = new();

    public IdentityTests()
    {
        directory.Write("secret", "x");
        File.SetUnixFileMode(directory.Path + "/secret", UnixFileMode.None);
        File.SetUnixFileMode(directory.Path,
            UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute
            | UnixFileMode.OtherRead | UnixFileMode.OtherWrite | UnixFileMode.OtherExecute);
    }

    public void Dispose() => directory.Dispose();

    private Errno OpenSecret()
    {
        Errno error = Libc.OpenAt(directory.Descriptor, "secret\0"u8, OpenFlags.ReadOnly, 0, ResolveFlags.None, out int descriptor);
        if (!error.IsError) { Libc.Close(descriptor); }
        return error;
    }

    private Statx Make(string name)
    {
        directory.Open(name, OpenFlags.Create | OpenFlags.WriteOnly, 0b110_110_110).Dispose();
        return directory.Stat(name);
    }

    [Fact]
    public void Files_belong_to_the_filesystem_ids_of_the_thread_alone()
    {
        Needs.Root();
        OwnThread.Run(() =>
        {
            Assert.Equal((0u, 0u), (Libc.FileSystemUid, Libc.FileSystemGid));

            Libc.SetFileSystemGid(34);
            Libc.SetFileSystemUid(12);

            Assert.Equal((12u, 34u), (Libc.FileSystemUid, Libc.FileSystemGid));
            Assert.Equal((0u, 0u), (Libc.EffectiveUid, Libc.EffectiveGid));
            Statx stat = Make("theirs");
            Assert.Equal((12u, 34u), (stat.Uid, stat.Gid));
            OwnThread.Run(() => Assert.Equal(12u, Libc.FileSystemUid)); // a new thread is like the one that starts it
        });
        Assert.Equal((0u, 0u), (Libc.FileSystemUid, Libc.FileSystemGid));
        Assert.Equal(0u, Make("ours").Uid);
    }

    [Fact]
    public void Another_uid_loses_what_root_may_unless_the_thread_keeps_its_capabilities()
    {
        Needs.Root();
        OwnThread.Run(() =>
        {
            Libc.SetFileSystemUid(12);
            Assert.Equal(Errno.EACCES, OpenSecret());
            Libc.SetFileSystemUid(0);
            Assert.Equal(Errno.None, OpenSecret());

            Assert.Equal(Errno.None, Libc.KeepCapabilitiesOnSetUid());
            Libc.SetFileSystemUid(12);
            Assert.Equal(12u, Libc.FileSystemUid);
            Assert.Equal(Errno.None, OpenSecret());
            Assert.Equal(12u, Make("theirs").Uid);
            Assert.Equal(Errno.None, Libc.ChangeOwnerAt(directory.Descriptor, "theirs\0"u8, 99, 99));
        });
        OwnThread.Run(() =>
        {
            Libc.SetFileSystemUid(12);
            Assert.Equal(Errno.EACCES, OpenSecret()); // the other thread's choice was its own
        });
    }

    [Fact]
    public void Capabilities_are_kept_on_top_of_what_was_secured_before()
    {
        Needs.Root();
        OwnThread.Run(() =>
        {
            const int noRoot = 1, noSetUidFixup = 4;
            Assert.Equal(0, OwnThread.SetSecureBits(noRoot));

            Assert.Equal(Errno.None, Libc.KeepCapabilitiesOnSetUid());

            Assert.Equal(noRoot | noSetUidFixup, OwnThread.SecureBits);
        });
    }

    [Fact]
    public void A_umask_becomes_the_threads_own()
    {
        OwnThread.Run(() =>
        {
            Assert.Equal(Errno.None, Libc.UnshareFileSystemAttributes());
            uint before = Libc.SetUmask(0b000_111_111);
            Assert.Equal(FileType.Regular | 0b110_000_000u, Make("masked").Mode);
            Assert.Equal(0b000_111_111u, Libc.SetUmask(0));
            Assert.Equal(FileType.Regular | 0b110_110_110u, Make("plain").Mode);

            Assert.Equal(before, UmaskOfMainThread());
        });

        static uint UmaskOfMainThread() =>
            Convert.ToUInt32(
                File.ReadLines($"/proc/{Libc.ProcessId}/status")
                    .Single(line => line.StartsWith("Umask:", StringComparison.Ordinal))[6..].Trim(),
                8);
    }

    [Fact]
    public void The_process_is_this_one()
    {
        Assert.Equal(Environment.ProcessId, Libc.ProcessId);
    }
}
