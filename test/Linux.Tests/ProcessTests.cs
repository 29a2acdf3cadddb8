using System.Runtime.InteropServices;
using System.Text;

namespace Veneer.Linux.Tests;

/// <summary>Other programs, and talking to them.</summary>
public sealed partial class ProcessTests : IDisposable
{
    private readonly TemporaryDirectory directory = new();

    public void Dispose() => directory.Dispose();

    private static byte[][] Words(params string[] words) => [.. words.Select(Encoding.UTF8.GetBytes)];

    private static (int ExitCode, string Said) Run(
        string script, byte[][]? environment = null, int kept = -1, bool newSession = false, int descriptorRoom = 0)
    {
        Assert.Equal(Errno.None, Libc.Pipe(out int readEnd, out int writeEnd));
        using var reader = new Fd(readEnd);
        using (var writer = new Fd(writeEnd))
        {
            var options = new SpawnOptions
            {
                Program = "sh",
                Arguments = Words("sh", "-c", script),
                Environment = environment ?? Words("PATH=/usr/bin:/bin"),
                StandardError = writer.Value,
                Kept = kept,
                NewSession = newSession,
                DescriptorRoom = descriptorRoom,
            };
            Assert.Equal(Errno.None, Libc.Spawn(options, out int pid));
            writer.Dispose();
            string said = ReadAll(reader.Value);
            Assert.Equal(Errno.None, Libc.Wait(pid, out int exitCode));
            return (exitCode, said);
        }
    }

    private static string ReadAll(int descriptor)
    {
        var text = new StringBuilder();
        byte[] buffer = new byte[256];
        while (true)
        {
            Assert.Equal(Errno.None, Libc.Read(descriptor, buffer, out int count));
            if (count == 0) { return text.ToString(); }
            text.Append(Encoding.UTF8.GetString(buffer, 0, count));
        }
    }

    [Fact]
    public void A_program_gets_its_arguments_and_environment_and_says_how_it_ended()
    {
        Assert.Equal((3, "a b/value\n"), Run("echo \"a b/$V\" >&2; exit 3", Words("PATH=/usr/bin:/bin", "V=value")));
        Assert.Equal((128 + 9, ""), Run("kill -KILL $$"));
        Assert.Equal((0, ""), Run("echo this goes nowhere"));
    }

    [Fact]
    public void A_program_inherits_nothing_but_what_it_is_given()
    {
        const int number = 901;
        const string list = "exec >&2; for d in 3 901; do if [ -e /proc/$$/fd/$d ]; then echo $d; fi; done";
        Assert.Equal(Errno.None, Libc.Duplicate(directory.Descriptor, number)); // dup2 gives a descriptor that stays open on exec
        using var inheritable = new Fd(number);
        directory.Write("kept", "content");
        using Fd kept = directory.Open("kept", OpenFlags.ReadOnly);

        Assert.Equal((0, "3\n"), Run(list, kept: kept.Value));
        Assert.Equal((0, ""), Run(list));
        Assert.Equal((0, "content"), Run("cat <&3 >&2", kept: kept.Value));
    }

    [Fact]
    public void A_program_ignores_and_blocks_no_signal()
    {
        // The runtime ignores SIGPIPE, and would hand that on.
        // Read by the shell itself: while it starts another program it blocks all signals.
        (int exitCode, string said) =
            Run("while IFS= read -r line; do case $line in SigBlk*|SigIgn*) echo \"$line\" >&2;; esac; done </proc/$$/status");

        Assert.Equal(0, exitCode);
        ulong[] sets =
            [.. said.Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(line => Convert.ToUInt64(line.Split('\t')[1], 16))];
        const ulong ofTheLibrary = 3UL << 31; // 32 and 33, which glibc keeps for itself and leaves ignored
        Assert.Equal([0UL, 0UL], sets.Select(set => set & ~ofTheLibrary));
    }

    [Theory]
    [InlineData(0, 64)]
    [InlineData(1000, 1024)]
    [InlineData(int.MaxValue, 1024)] // no more than the limit allows
    public void A_program_has_room_for_descriptors(int room, int expected)
    {
        const string script = "while read -r name value; do case $name in FDSize:) echo $value >&2;; esac; done </proc/$$/status";
        (int exitCode, string said) = Run(script, descriptorRoom: room);

        Assert.Equal(0, exitCode);
        Assert.True(int.Parse(said, null) >= expected, said);
    }

    [Fact]
    public void A_new_session_is_led_by_the_program()
    {
        const string isLeader = "set -- $(cat /proc/$$/stat); [ $1 = $6 ]";
        Assert.Equal(0, Run(isLeader, newSession: true).ExitCode);
        Assert.Equal(1, Run(isLeader).ExitCode);
    }

    [Fact]
    public void A_program_that_is_not_there_is_an_error_and_no_process()
    {
        var options = new SpawnOptions { Program = "/nonexistent", Arguments = Words("x"), Environment = [] };

        Assert.Equal(Errno.ENOENT, Libc.Spawn(options, out int pid));
        Assert.Equal(-1, pid);
    }

    [Fact]
    public void The_end_of_a_process_can_be_waited_for()
    {
        var options = new SpawnOptions { Program = "sleep", Arguments = Words("sleep", "0.2"), Environment = [] };
        Assert.Equal(Errno.None, Libc.Spawn(options, out int pid));
        Assert.Equal(Errno.None, Libc.OpenProcess(pid, out int descriptor));
        using var process = new Fd(descriptor);

        Assert.Equal(Errno.None, Libc.Poll(process.Value, PollEvents.In, 0, out bool ended));
        Assert.False(ended);
        Assert.Equal(Errno.None, Libc.Poll(process.Value, PollEvents.In, 30_000, out ended));
        Assert.True(ended);

        Assert.Equal(Errno.None, Libc.Wait(pid, out int exitCode));
        Assert.Equal(0, exitCode);
        Assert.True(Libc.Wait(pid, out exitCode).IsError);
        Assert.Equal(-1, exitCode);
        Assert.Equal(Errno.ESRCH, Libc.OpenProcess(pid, out descriptor));
        Assert.Equal(-1, descriptor);
    }

    [Fact]
    public void What_is_sent_to_a_socket_arrives_at_the_other_end()
    {
        Assert.Equal(Errno.None, Libc.SocketPair(out int one, out int other));
        using Fd first = new(one), second = new(other);

        Assert.Equal(Errno.None, Libc.Send(first.Value, "hello"u8));
        byte[] buffer = new byte[16];
        Assert.Equal(Errno.None, Libc.Read(second.Value, buffer, out int count));
        Assert.Equal("hello"u8, buffer.AsSpan(0, count));

        second.Dispose();
        Assert.Equal(Errno.EPIPE, Libc.Send(first.Value, "hello"u8));
    }

    [Fact]
    public void A_descriptor_that_does_not_come_is_missed()
    {
        Assert.Equal(Errno.None, Libc.SocketPair(out int one, out int other));
        using Fd first = new(one), second = new(other);

        Assert.Equal(Errno.None, Libc.Send(first.Value, "x"u8));
        Assert.Equal(Errno.ECONNABORTED, Libc.ReceiveDescriptor(second.Value, out int descriptor));
        Assert.Equal(-1, descriptor);
        first.Dispose();
        Assert.Equal(Errno.ECONNABORTED, Libc.ReceiveDescriptor(second.Value, out _));
    }

    [Fact]
    public void A_descriptor_is_received_and_closed_on_exec()
    {
        Assert.Equal(Errno.None, Libc.SocketPair(out int one, out int other));
        using Fd first = new(one), second = new(other);
        directory.Write("file", "content");
        using (Fd file = directory.Open("file", OpenFlags.ReadOnly)) { SendDescriptor(second.Value, file.Value); }

        Assert.Equal(Errno.None, Libc.ReceiveDescriptor(first.Value, out int descriptor));

        using var received = new Fd(descriptor);
        Assert.Equal("content", ReadAll(received.Value));
        Assert.Contains(File.ReadLines($"/proc/self/fdinfo/{descriptor}"),
            line => line.StartsWith("flags:", StringComparison.Ordinal) && line.EndsWith("02100000", StringComparison.Ordinal));
    }

    [LibraryImport("libc", SetLastError = true)]
    private static unsafe partial nint sendmsg(int socket, void* message, int flags);

    /// <summary>One byte, and a descriptor with it, as fusermount3 sends them.</summary>
    private static unsafe void SendDescriptor(int socket, int descriptor)
    {
        byte content = 0;
        ulong* vector = stackalloc ulong[2] { (ulong)&content, 1 };
        ulong* control = stackalloc ulong[3] { 20, 1 | (1UL << 32), (uint)descriptor }; // CMSG_LEN(4), SOL_SOCKET, SCM_RIGHTS
        ulong* message = stackalloc ulong[7] { 0, 0, (ulong)vector, 1, (ulong)control, 24, 0 };
        Assert.Equal(1, sendmsg(socket, message, 0));
    }

    [Fact]
    public void A_datagram_reaches_the_socket_with_that_path()
    {
        using var receiver = new System.Net.Sockets.Socket(System.Net.Sockets.AddressFamily.Unix, System.Net.Sockets.SocketType.Dgram,
            System.Net.Sockets.ProtocolType.Unspecified);
        receiver.Bind(new System.Net.Sockets.UnixDomainSocketEndPoint(directory.Path + "/socket"));

        Assert.Equal(Errno.None, Libc.ConnectDatagram(TemporaryDirectory.Name(directory.Path + "/socket"), out int descriptor));
        using var sender = new Fd(descriptor);
        Assert.Equal(Errno.None, Libc.Send(sender.Value, "message"u8));

        byte[] buffer = new byte[16];
        Assert.Equal("message"u8, buffer.AsSpan(0, receiver.Receive(buffer)));
        Assert.Equal(Errno.ENOENT, Libc.ConnectDatagram(TemporaryDirectory.Name(directory.Path + "/none"), out descriptor));
        Assert.Equal(-1, descriptor);
        Assert.Equal(Errno.ENAMETOOLONG, Libc.ConnectDatagram(new byte[200], out _));
    }

    [Fact]
    public void Sockets_that_are_bound_to_files_are_found()
    {
        using var bound = new System.Net.Sockets.Socket(System.Net.Sockets.AddressFamily.Unix, System.Net.Sockets.SocketType.Stream,
            System.Net.Sockets.ProtocolType.Unspecified);
        bound.Bind(new System.Net.Sockets.UnixDomainSocketEndPoint(directory.Path + "/a socket"));
        var found = new List<BoundSocket>();

        Assert.Equal(Errno.None, Libc.FindBoundSockets(found));

        string link = new FileInfo($"/proc/self/fd/{bound.Handle}").LinkTarget!;
        BoundSocket socket = Assert.Single(found, one => $"socket:[{one.Number}]" == link);
        Assert.Equal(Errno.None, Libc.StatPlace(directory.Descriptor, Libc.Self, out Statx stat));
        Assert.Equal((directory.Path + "/a socket", stat.DevMajor, stat.DevMinor), (socket.Path, socket.DeviceMajor, socket.DeviceMinor));
    }

    [Fact]
    public void Threads_are_asked_what_they_share() => OwnThread.Run(() =>
    {
        int thread = int.Parse(Path.GetFileName(new FileInfo("/proc/thread-self").LinkTarget!), null);

        Assert.Equal(Errno.None, Libc.UnshareFileSystemAttributes());

        Assert.Equal(Errno.None, Libc.Compare(Environment.ProcessId, thread, ThreadPart.Directories, out bool isShared));
        Assert.False(isShared);
        Assert.Equal(Errno.None, Libc.Compare(Environment.ProcessId, thread, ThreadPart.Descriptors, out isShared));
        Assert.True(isShared);
        Assert.Equal(Errno.ESRCH, Libc.Compare(Environment.ProcessId, int.MaxValue, ThreadPart.Descriptors, out isShared));
        Assert.False(isShared);
    });

    [Fact]
    public void A_file_in_memory_has_the_name_that_it_was_given()
    {
        Assert.Equal(Errno.None, Libc.CreateMemoryFile("a name\0"u8, out int descriptor));
        using var file = new Fd(descriptor);

        Assert.Equal(Errno.None, Libc.Write(descriptor, "content"u8, out _));

        Assert.StartsWith("/memfd:a name", new FileInfo($"/proc/self/fd/{descriptor}").LinkTarget, StringComparison.Ordinal);
        Assert.Equal(Errno.None, Libc.ReadWhole(TemporaryDirectory.Name($"/proc/self/fd/{descriptor}"), out byte[] content));
        Assert.Equal("content"u8, content);
    }

    [Fact]
    public void A_small_file_is_read_whole()
    {
        Assert.Equal(Errno.None, Libc.ReadWhole("/proc/self/status\0"u8, out byte[] content));
        Assert.StartsWith("Name:", Encoding.UTF8.GetString(content), StringComparison.Ordinal);

        directory.Write("file", new string('x', 100_000));
        Assert.Equal(Errno.None, Libc.ReadWhole(TemporaryDirectory.Name(directory.Path + "/file"), out content));
        Assert.Equal(100_000, content.Length);
        Assert.Equal(Errno.ENOENT, Libc.ReadWhole("/nonexistent\0"u8, out content));
        Assert.Empty(content);
    }

    [Fact]
    public void The_working_directory_of_a_thread_of_its_own_is_changed() => OwnThread.Run(() =>
    {
        Assert.Equal(Errno.None, Libc.UnshareFileSystemAttributes());
        Assert.Equal(Errno.None, Libc.ChangeDirectory(TemporaryDirectory.Name(directory.Path)));
        directory.Write("here", "");
        Assert.Equal(Errno.None, Libc.StatAt(Libc.AtCwd, "here\0"u8, StatxMask.Basic, out _));
        Assert.Equal(Errno.ENOENT, Libc.ChangeDirectory("nowhere\0"u8));
    });

    [Fact]
    public void The_limit_of_open_files_is_raised_as_far_as_it_goes()
    {
        Assert.Equal(Errno.None, Libc.RaiseOpenFileLimit());

        string[] limits = File.ReadLines("/proc/self/limits")
            .Single(line => line.StartsWith("Max open files", StringComparison.Ordinal))
            .Split(' ', StringSplitOptions.RemoveEmptyEntries);
        Assert.Equal(limits[4], limits[3]);
    }
}
