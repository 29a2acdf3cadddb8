namespace Veneer.Linux.Tests;

/// <summary>Commands to a driver over io_uring, with /dev/null as the driver: it takes every command and answers 0.</summary>
public sealed class IoUringTests : IDisposable
{
    private readonly Fd device;

    public IoUringTests()
    {
        Assert.Equal(Errno.None, Libc.OpenAt(Libc.AtCwd, "/dev/null\0"u8, OpenFlags.ReadWrite, 0, ResolveFlags.None, out int descriptor));
        device = new Fd(descriptor);
    }

    public void Dispose() => device.Dispose();

    private static IoUring New(int capacity)
    {
        Errno error = IoUring.Create(capacity, out IoUring? ring);
        Needs.That(!error.IsError, $"io_uring as of Linux 6.6 ({error})");
        return ring!;
    }

    [Fact]
    public unsafe void A_command_comes_back_with_its_user_data()
    {
        using IoUring ring = New(4);
        Assert.Equal(Errno.None, ring.Enable());
        for (int round = 0; round < 20; round++)
        {
            for (ulong i = 0; i < 4; i++) { ring.Prepare(device.Value, 1, null, 0, i + 100, i); }
            var seen = new List<ulong>();
            while (seen.Count < 4)
            {
                if (!ring.TryTake(out ulong userData, out int result))
                {
                    Assert.Equal(Errno.None, ring.SubmitAndWait());
                    continue;
                }
                Assert.Equal(0, result);
                seen.Add(userData);
            }
            Assert.Equal("100 101 102 103", string.Join(' ', seen.Order()));
            Assert.False(ring.TryTake(out _, out _));
        }
    }

    [Fact]
    public unsafe void A_descriptor_that_takes_no_commands_is_an_error_of_the_command()
    {
        using IoUring ring = New(1);
        Assert.Equal(Errno.None, ring.Enable());
        Assert.Equal(Errno.None, Libc.OpenAt(Libc.AtCwd, "/\0"u8, OpenFlags.ReadOnly, 0, ResolveFlags.None, out int descriptor));
        using var root = new Fd(descriptor);

        ring.Prepare(root.Value, 1, null, 0, 7, 0UL);
        Assert.Equal(Errno.None, ring.SubmitAndWait());

        Assert.True(ring.TryTake(out ulong userData, out int result));
        Assert.Equal((7UL, -(int)Errno.EOPNOTSUPP), (userData, result));
    }

    [Fact]
    public unsafe void More_commands_than_there_is_room_for_are_refused()
    {
        using IoUring ring = New(2);
        ring.Prepare(device.Value, 1, null, 0, 1, 0UL);
        ring.Prepare(device.Value, 1, null, 0, 2, 0UL);

        Assert.Throws<InvalidOperationException>(() => ring.Prepare(device.Value, 1, null, 0, 3, 0UL));
    }

    [Fact]
    public void Only_the_thread_that_enabled_it_may_use_it()
    {
        using IoUring ring = New(1);
        OwnThread.Run(() => Assert.Equal(Errno.None, ring.Enable()));

        Assert.Equal(Errno.EEXIST, ring.SubmitAndWait());
    }

    [Fact]
    public void No_capacity_is_an_error()
    {
        New(1).Dispose();

        Assert.Equal(Errno.EINVAL, IoUring.Create(0, out IoUring? ring));
        Assert.Null(ring);
    }

    [Fact]
    public void It_is_disposed_of_once()
    {
        IoUring ring = New(1);
        ring.Dispose();
        ring.Dispose();
    }

    [Theory]
    [InlineData("0\n", "0")]
    [InlineData("0-3\n", "0 1 2 3")]
    [InlineData("0-1,4,6-7", "0 1 4 6 7")]
    [InlineData("\n", "")]
    public void A_list_of_cpus_is_read(string content, string expected)
    {
        using var directory = new TemporaryDirectory();
        directory.Write("list", content);

        Assert.Equal(Errno.None, Libc.ReadCpuList(PathText.Encode(directory.Path + "/list"), out List<int> cpus));

        Assert.Equal(expected, string.Join(' ', cpus));
    }

    [Theory]
    [InlineData("x")]
    [InlineData("0-")]
    [InlineData("0 1")]
    [InlineData("1-x")]
    public void What_is_no_list_of_cpus_is_refused(string content)
    {
        using var directory = new TemporaryDirectory();
        directory.Write("list", content);

        Assert.Equal(Errno.EINVAL, Libc.ReadCpuList(PathText.Encode(directory.Path + "/list"), out _));
    }

    [Fact]
    public void A_pinned_thread_runs_on_its_cpu() => OwnThread.Run(() =>
    {
        byte[] before = new byte[Libc.CpuMaskSize], after = new byte[Libc.CpuMaskSize];
        Assert.Equal(Errno.None, Libc.GetThreadCpus(Environment.ProcessId, before));
        Assert.Equal(Errno.None, Libc.ReadCpuList("/sys/devices/system/cpu/online\0"u8, out List<int> online));
        foreach (int cpu in online)
        {
            if (Libc.PinThread(cpu).IsError) { continue; } // not one of those that this process may use
            Assert.Equal(cpu, Thread.GetCurrentProcessorId());
            Assert.Equal(Errno.None, Libc.GetThreadCpus(0, after));
            Assert.Equal(1, after.Sum(part => int.PopCount(part)));
        }
        Assert.Equal(Errno.None, Libc.UnpinThread());
        Assert.Equal(Errno.None, Libc.GetThreadCpus(0, after));
        Assert.Equal(before, after);
        Assert.Equal(Errno.EINVAL, Libc.PinThread(8191));
        Assert.Throws<ArgumentOutOfRangeException>(() => Libc.PinThread(8192));
    });
}
