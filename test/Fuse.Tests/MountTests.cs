using System.Collections.Concurrent;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Linux.Tests;

namespace Veneer.Fuse.Tests;

/// <summary>What the kernel does at the beginning and the end of a mount.</summary>
public sealed class MountTests
{
    private const string IoUringOffer = "/sys/module/fuse/parameters/enable_uring";

    private static void SkipUnlessMounting() =>
        Needs.That(Environment.IsPrivilegedProcess && File.Exists("/dev/fuse"), "root and /dev/fuse");

    [Fact]
    public void Io_uring_that_is_switched_off_while_the_mount_begins_is_done_without()
    {
        SkipUnlessMounting();
        Needs.That(File.Exists(IoUringOffer), "a kernel with FUSE over io_uring (Linux 6.14)");
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

    /// <summary>The kernel gives the smallest device number that is free.</summary>
    [Fact]
    public void What_has_ended_takes_no_other_mount_with_its_device_number()
    {
        SkipUnlessMounting();
        string home = Directory.CreateTempSubdirectory("veneer-fuse-").FullName;
        var mounts = new List<Mount>();
        try
        {
            Mount ended = Attach("ended");
            Assert.Equal(Errno.None, ended.Detach());
            while (mounts[^1].DeviceNumber != ended.DeviceNumber || mounts.Count == 1)
            {
                Assert.SkipWhen(mounts.Count > 200, "The number is in use elsewhere.");
                _ = Attach($"{mounts.Count}");
            }
            Mount other = mounts[^1];

            Assert.Equal(Errno.ENOENT, ended.Detach());
            Assert.Equal(Errno.None, ended.Abort());

            Assert.Equal(Errno.None, Libc.Poll(other.Device.Descriptor, default, 0, out bool hasEnded));
            Assert.False(hasEnded);
            Assert.Equal(Errno.None, other.Abort());
            Assert.Equal(Errno.None, Libc.Poll(other.Device.Descriptor, default, 0, out hasEnded));
            Assert.True(hasEnded);
        }
        finally
        {
            foreach (Mount mount in mounts)
            {
                _ = Mount.Unmount(mount.MountPoint, lazy: true); // best effort
                mount.Device.Dispose();
            }
            Directory.Delete(home, recursive: true);
        }

        Mount Attach(string name)
        {
            mounts.Add(Mount.Attach(Directory.CreateDirectory(Path.Combine(home, name)).FullName, new MountOptions { Source = "test" }));
            return mounts[^1];
        }
    }
}
