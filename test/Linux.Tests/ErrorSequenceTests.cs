namespace Veneer.Linux.Tests;

/// <summary>
/// The kernel's count of failed writes. That it moves is seen where writing fails: VolatileWriteErrorTests of Mount.Tests.
/// </summary>
public sealed class ErrorSequenceTests
{
    [Fact]
    public void A_filesystem_where_nothing_has_failed_has_none()
    {
        Needs.Root();
        Needs.That(!Libc.StatAt(Libc.AtCwd, "/sys/kernel/btf/vmlinux\0"u8, StatxMask.Basic, out _).IsError,
            "a kernel that describes its types");
        Assert.Equal(Errno.None,
            Libc.OpenAt(Libc.AtCwd, "/proc\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None, out int descriptor));
        using var directory = new Fd(descriptor);

        for (int i = 0; i < 3; i++)
        {
            Errno error = ErrorSequence.Read(descriptor, out uint value);
            if (error == Errno.EPERM) { Needs.That(false, "CAP_BPF and CAP_PERFMON"); }
            Assert.Equal((Errno.None, 0u), (error, value));
        }
    }

    [Fact]
    public void A_descriptor_that_is_not_open_has_none()
    {
        Needs.Root();
        Errno error = ErrorSequence.Read(0x7FFF_FFF0, out uint value);

        Assert.True(error.IsError);
        Assert.Equal(0u, value);
    }
}
