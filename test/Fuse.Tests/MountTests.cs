using System.Collections.Concurrent;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse.Tests;

/// <summary>What the kernel does at the beginning and the end of a mount.</summary>
public sealed class MountTests
{
    private const string IoUringOffer = "/sys/module/fuse/parameters/enable_uring";

    private static void SkipUnlessMounting() => Assert.SkipUnless(
        (Environment.IsPrivilegedProcess && File.Exists("/dev/fuse")) || Environment.GetEnvironmentVariable("CI") is not null, "Mounting needs root and /dev/fuse.");

    [Fact]
    public void Io_uring_that_is_switched_off_while_the_mount_begins_is_done_without()
    {
        SkipUnlessMounting();
        Assert.SkipUnless(File.Exists(IoUringOffer), "This kernel has no FUSE over io_uring (Linux 6.14).");
        string was = File.ReadAllText(IoUringOffer);
        string place = Directory.CreateTempSubdirectory("veneer-fuse-").FullName;
        var log = new ConcurrentQueue<string>();
        var fileSystem = new TestFileSystem { Wanted = InitFlags.OverIoUring, Starting = () => File.WriteAllText(IoUringOffer, "N") };
        try
        {
            File.WriteAllText(IoUringOffer, "Y");
            Mount mount = Mount.Attach(place, new MountOptions { Source = "test" });
            using Device device = mount.Device;
            using var server = new Server(device, fileSystem, new ServerOptions { Log = log.Enqueue, Abort = () => _ = mount.Abort() });
            try
            {
                Assert.Equal(Errno.None, server.Initialize());
                server.Start();
                Errno error = Errno.EIO;
                var caller = new Thread(() => error = Libc.StatAt(Libc.AtCwd, PathText.Encode(place), StatxMask.Basic, out _));
                caller.Start();

                Assert.True(caller.Join(10_000));
                Assert.Equal(Errno.None, error);
                Assert.Equal(InitFlags.OverIoUring, fileSystem.Offered & InitFlags.OverIoUring);
                Assert.True(SpinWait.SpinUntil(() => !log.IsEmpty, 10_000));
                Assert.Equal(["veneer: requests do not come over io_uring: it was switched off while the mount began"], log);
            }
            finally
            {
                _ = mount.Detach(); // best effort
            }
            server.WaitForEnd();
        }
        finally
        {
            File.WriteAllText(IoUringOffer, was);
            Directory.Delete(place);
        }
    }

    [Fact]
    public void An_aborted_connection_leaves_nobody_waiting()
    {
        SkipUnlessMounting();
        string place = Directory.CreateTempSubdirectory("veneer-fuse-").FullName;
        Mount mount = Mount.Attach(place, new MountOptions { Source = "test" });
        try
        {
            using Device device = mount.Device;
            Errno error = Errno.None;
            var caller = new Thread(() => error = Libc.StatAt(Libc.AtCwd, PathText.Encode(place + "/file"), StatxMask.Basic, out _));
            caller.Start(); // it waits for INIT to be answered

            Assert.Equal(Errno.None, mount.Abort());

            Assert.True(caller.Join(10_000));
            Assert.Equal(Errno.ENOTCONN, error);
        }
        finally
        {
            _ = mount.Detach(); // best effort
            Directory.Delete(place);
        }
    }
}
