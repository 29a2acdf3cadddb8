using Veneer.Linux;

namespace Veneer.Fuse.Tests;

/// <summary>A mount that nobody serves.</summary>
public sealed class MountTests
{
    [Fact]
    public void An_aborted_connection_leaves_nobody_waiting()
    {
        bool isPossible = Environment.IsPrivilegedProcess && File.Exists("/dev/fuse");
        Assert.SkipUnless(isPossible || Environment.GetEnvironmentVariable("CI") is not null, "Mounting needs root and /dev/fuse.");
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
