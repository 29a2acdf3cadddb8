using System.Buffers.Text;
using System.Runtime.InteropServices;

namespace Veneer.Linux;

/// <summary>What a process that <see cref="Libc.Spawn"/> starts gets.</summary>
public sealed record SpawnOptions
{
    /// <summary>The program: a path, or a name to search for in PATH.</summary>
    public required string Program { get; init; }

    /// <summary>The arguments, the program's own name first, in bytes without NUL.</summary>
    public required IReadOnlyList<byte[]> Arguments { get; init; }

    /// <summary>The environment, <c>NAME=value</c>, in bytes without NUL.</summary>
    public required IReadOnlyList<byte[]> Environment { get; init; }

    /// <summary>The descriptor that becomes standard error, or -1 for /dev/null. Input and output are /dev/null.</summary>
    public int StandardError { get; init; } = -1;

    /// <summary>A descriptor that the process keeps as number 3, or -1. All other descriptors are closed.</summary>
    public int Kept { get; init; } = -1;

    /// <summary>Whether the process leads a session of its own, without a terminal.</summary>
    public bool NewSession { get; init; }

    /// <summary>The initial size of the process's descriptor table, as far as its limit allows.</summary>
    /// <remarks>
    /// When several threads share the table, the kernel enlarges it only after a grace period of RCU. For these
    /// milliseconds no thread gets a new descriptor. Kernel: expand_fdtable().
    /// </remarks>
    public int DescriptorRoom { get; init; }
}

/// <summary>The events of poll(2).</summary>
[Flags]
public enum PollEvents : ushort
{
    /// <summary>Nothing.</summary>
    None = 0,
    /// <summary>POLLIN: there is something to read; for a pidfd, the process has ended.</summary>
    In = 1,
}

/// <summary>What kcmp(2) compares between threads.</summary>
public enum ThreadPart
{
    /// <summary>KCMP_FILES: the table of descriptors.</summary>
    Descriptors = 2,
    /// <summary>KCMP_FS: the working directory and the root directory.</summary>
    Directories = 3,
}

public static unsafe partial class Libc
{
    private const long SysPidFdOpen = 434;
    private const long SysCompare = 312;
    private const int SpawnSetSignalDefault = 0x04;
    private const int SpawnSetSignalMask = 0x08;
    private const int SpawnSetSession = 0x80;

    /// <summary>More than any libc's posix_spawnattr_t, posix_spawn_file_actions_t or sigset_t.</summary>
    private const int Opaque = 512;

    [LibraryImport(Library, SetLastError = true)]
    private static partial nint getrandom(void* buffer, nuint length, uint flags);

    [LibraryImport(Library, SetLastError = true)]
    private static partial int sched_getaffinity(int pid, nuint size, byte* mask);

    [LibraryImport(Library, SetLastError = true)]
    private static partial int sched_setaffinity(int process, nuint size, byte* mask);

    [LibraryImport(Library)]
    private static partial void _exit(int status);

    [LibraryImport(Library)]
    private static partial int posix_spawnp(int* pid, byte* program, void* actions, void* attributes, byte** arguments, byte** environment);

    [LibraryImport(Library)]
    private static partial int posix_spawn_file_actions_init(void* actions);

    [LibraryImport(Library)]
    private static partial int posix_spawn_file_actions_destroy(void* actions);

    [LibraryImport(Library)]
    private static partial int posix_spawn_file_actions_addopen(void* actions, int descriptor, byte* path, int flags, uint mode);

    [LibraryImport(Library)]
    private static partial int posix_spawn_file_actions_adddup2(void* actions, int descriptor, int target);

    [LibraryImport(Library)]
    private static partial int posix_spawn_file_actions_addclosefrom_np(void* actions, int lowest);

    [LibraryImport(Library)]
    private static partial int posix_spawnattr_init(void* attributes);

    [LibraryImport(Library)]
    private static partial int posix_spawnattr_destroy(void* attributes);

    [LibraryImport(Library)]
    private static partial int posix_spawnattr_setflags(void* attributes, short flags);

    [LibraryImport(Library)]
    private static partial int posix_spawnattr_setsigdefault(void* attributes, void* signals);

    [LibraryImport(Library)]
    private static partial int posix_spawnattr_setsigmask(void* attributes, void* signals);

    [LibraryImport(Library)]
    private static partial int sigemptyset(void* signals);

    [LibraryImport(Library)]
    private static partial int sigfillset(void* signals);

    /// <summary>Ends this process at once, without running exit handlers. See _exit(2).</summary>
    [System.Diagnostics.CodeAnalysis.DoesNotReturn]
    public static void End(int exitCode)
    {
        _exit(exitCode);
        throw new System.Diagnostics.UnreachableException();
    }

    /// <summary>Returns an unpredictable number, also where there is no /dev/urandom. See getrandom(2).</summary>
    public static ulong RandomNumber()
    {
        ulong number;
        if (getrandom(&number, sizeof(ulong), 0) == sizeof(ulong)) { return number; }
        // A container's filter may refuse the call. The time in nanoseconds is hard to predict.
        return ((ulong)System.Diagnostics.Stopwatch.GetTimestamp() * 0x9E3779B97F4A7C15) ^ (ulong)ProcessId;
    }

    /// <summary>Starts another program, with no signal blocked or ignored. See posix_spawn(3).</summary>
    public static Errno Spawn(SpawnOptions options, out int pid)
    {
        byte* actions = stackalloc byte[Opaque];
        byte* attributes = stackalloc byte[Opaque];
        byte* signals = stackalloc byte[Opaque];
        using var arguments = new StringArray(options.Arguments);
        using var environment = new StringArray(options.Environment);
        int result;
        Errno nothing = OpenNowhere(out int opened);
        if (nothing.IsError)
        {
            pid = -1;
            return nothing;
        }
        using var nowhere = new Fd(opened);
        _ = posix_spawn_file_actions_init(actions); // cannot fail in glibc or musl, like the other calls that only fill memory
        _ = posix_spawnattr_init(attributes);
        fixed (byte* program = PathText.Encode(options.Program))
        {
            // Standard error first: its descriptor may be 0 or 1. /dev/null's is at least 3, and the kept one takes number
            // 3 last.
            _ = posix_spawn_file_actions_adddup2(actions, options.StandardError >= 0 ? options.StandardError : nowhere.Value, 2);
            _ = posix_spawn_file_actions_adddup2(actions, nowhere.Value, 0);
            _ = posix_spawn_file_actions_adddup2(actions, nowhere.Value, 1);
            if (options.Kept >= 0) { _ = posix_spawn_file_actions_adddup2(actions, options.Kept, 3); }
            // A high number enlarges the table while no other thread shares it. The table keeps its size.
            int highest = HighestDescriptor(options.DescriptorRoom);
            if (highest > 3) { _ = posix_spawn_file_actions_adddup2(actions, 2, highest); }
            _ = posix_spawn_file_actions_addclosefrom_np(actions, options.Kept >= 0 ? 4 : 3);

            _ = sigfillset(signals);
            _ = posix_spawnattr_setsigdefault(attributes, signals);
            _ = sigemptyset(signals);
            _ = posix_spawnattr_setsigmask(attributes, signals);
            _ = posix_spawnattr_setflags(attributes,
                (short)(SpawnSetSignalDefault | SpawnSetSignalMask | (options.NewSession ? SpawnSetSession : 0)));
            int started;
            result = posix_spawnp(&started, program, actions, attributes, arguments.Pointer, environment.Pointer);
            pid = result == 0 ? started : -1;
        }
        _ = posix_spawn_file_actions_destroy(actions);
        _ = posix_spawnattr_destroy(attributes);
        return (Errno)result; // posix_spawn returns the error and does not set errno
    }

    /// <summary>
    /// Opens /dev/null. Where it is missing, as in a bare chroot, opens an empty pipe: reading finds the end, and writing
    /// fails.
    /// </summary>
    public static Errno OpenNowhere(out int descriptor)
    {
        Errno error = OpenAt(AtCwd, "/dev/null\0"u8, OpenFlags.ReadWrite, 0, ResolveFlags.None, out descriptor);
        if (!error.IsError) { return error; }
        error = Pipe(out descriptor, out int writeEnd);
        if (!error.IsError) { Close(writeEnd); }
        return error;
    }

    private static int HighestDescriptor(int room) =>
        OpenFileLimit(out ulong limit).IsError ? 0 : (int)Math.Min((ulong)room, limit) - 1;

    [LibraryImport(Library)]
    private static partial int getppid();

    /// <summary>The pid of the parent process; 0 when the parent is in another pid namespace.</summary>
    public static int ParentProcessId => getppid();

    [LibraryImport(Library, SetLastError = true)]
    private static partial int waitpid(int pid, int* status, int options);

    /// <summary>Waits for a child to end. See waitpid(2).</summary>
    /// <param name="pid">The pid of the child.</param>
    /// <param name="exitCode">The child's exit status, or 128 plus the signal that ended it.</param>
    public static Errno Wait(int pid, out int exitCode)
    {
        int status;
        Errno error;
        do { error = Check(waitpid(pid, &status, 0)); } while (error == Errno.EINTR);
        exitCode = error.IsError ? -1 : (status & 0x7F) != 0 ? 128 + (status & 0x7F) : (status >> 8) & 0xFF;
        return error;
    }

    [LibraryImport(Library)]
    private static partial int pthread_sigmask(int how, ulong* set, ulong* before);

    /// <summary>Blocks all signals for the calling thread. See pthread_sigmask(3).</summary>
    /// <returns>The previous mask, for <see cref="RestoreSignals"/>.</returns>
    public static ulong BlockAllSignals()
    {
        const int block = 0, words = 16; // sigset_t has room for 1024 signals, of which there are 64
        ulong* all = stackalloc ulong[words], before = stackalloc ulong[words];
        for (int i = 0; i < words; i++) { all[i] = ulong.MaxValue; }
        _ = pthread_sigmask(block, all, before); // cannot fail
        return before[0];
    }

    /// <summary>Restores the calling thread's signal mask from before <see cref="BlockAllSignals"/>.</summary>
    public static void RestoreSignals(ulong before)
    {
        const int set = 2, words = 16;
        ulong* mask = stackalloc ulong[words];
        new Span<ulong>(mask, words).Clear();
        mask[0] = before;
        _ = pthread_sigmask(set, mask, null); // cannot fail
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial int kill(int pid, int signal);

    /// <summary>
    /// Kills a child. It must not have been waited for, since its pid may be recycled then. See SIGKILL in signal(7).
    /// </summary>
    public static Errno Kill(int pid) => Check(kill(pid, 9));

    /// <summary>Finds whether two threads share a part of their state. See kcmp(2).</summary>
    /// <param name="one">A thread's id.</param>
    /// <param name="other">Another thread's id.</param>
    /// <param name="kind">The part to compare.</param>
    /// <param name="isShared">Whether the threads share it. A thread that is ending has none.</param>
    /// <returns>
    /// <see cref="Errno.ENOSYS"/> where the kernel was built without kcmp(2), <see cref="Errno.EPERM"/> when this process
    /// may not inspect both threads.
    /// </returns>
    public static Errno Compare(int one, int other, ThreadPart kind, out bool isShared)
    {
        Errno error = SystemCall(SysCompare, one, other, (nint)kind, 0, out long result);
        isShared = !error.IsError && result == 0;
        return error;
    }

    /// <summary>Opens a process. The descriptor becomes readable when the process ends. See pidfd_open(2).</summary>
    public static Errno OpenProcess(int pid, out int descriptor)
    {
        Errno error = Check(syscall(SysPidFdOpen, pid, 0, 0, 0, 0, 0), out descriptor);
        if (error.IsError) { descriptor = -1; }
        return error;
    }

    [StructLayout(LayoutKind.Sequential)]
    private struct PollDescriptor
    {
        public int Descriptor;
        public ushort Events;
        public ushort Returned;
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial int poll(PollDescriptor* descriptors, ulong count, int timeout);

    /// <summary>Waits for events on a descriptor. See poll(2).</summary>
    /// <param name="descriptor">The descriptor.</param>
    /// <param name="events">The events to wait for.</param>
    /// <param name="milliseconds">The longest time to wait in milliseconds, or -1 for no limit.</param>
    /// <param name="happened">Whether an event came in that time.</param>
    public static Errno Poll(int descriptor, PollEvents events, int milliseconds, out bool happened)
    {
        var one = new PollDescriptor { Descriptor = descriptor, Events = (ushort)events };
        Errno error = Check(poll(&one, 1, milliseconds), out int count);
        happened = !error.IsError && count > 0;
        return error;
    }

    [LibraryImport(Library, SetLastError = true)]
    private static partial int chdir(byte* path);

    /// <summary>See chdir(2).</summary>
    public static Errno ChangeDirectory(ReadOnlySpan<byte> path)
    {
        fixed (byte* p = path) { return Check(chdir(p)); }
    }

    private const int LimitFileSize = 1;
    private const int LimitOpenFiles = 7;

    [LibraryImport(Library, SetLastError = true)]
    private static partial int getrlimit(int resource, ulong* limits);

    [LibraryImport(Library, SetLastError = true)]
    private static partial int setrlimit(int resource, ulong* limits);

    /// <summary>Raises the limit of open files of this process as far as allowed. See setrlimit(2).</summary>
    public static Errno RaiseOpenFileLimit()
    {
        ulong* limits = stackalloc ulong[2];
        Errno error = Check(getrlimit(LimitOpenFiles, limits));
        if (error.IsError || limits[0] >= limits[1]) { return error; }
        limits[0] = limits[1];
        return Check(setrlimit(LimitOpenFiles, limits));
    }

    private const nint IgnoreSignal = 1; // SIG_IGN
    private const int FileTooLarge = 25; // SIGXFSZ
    private const int FirstRealTime = 35, LastRealTime = 64; // the C library uses the numbers below, and the .NET runtime uses 34

    [LibraryImport(Library, SetLastError = true)]
    private static partial nint signal(int number, nint handler);

    /// <summary>
    /// Raises the limit of file sizes of this process as far as allowed. Writing beyond it returns
    /// <see cref="Errno.EFBIG"/> instead of ending the process. See RLIMIT_FSIZE in setrlimit(2), and SIGXFSZ in signal(7).
    /// </summary>
    public static Errno RaiseFileSizeLimit()
    {
        Errno error = Check(signal(FileTooLarge, IgnoreSignal));
        if (error.IsError) { return error; }
        ulong* limits = stackalloc ulong[2];
        error = Check(getrlimit(LimitFileSize, limits));
        if (error.IsError) { return error; }
        ulong* none = stackalloc ulong[2] { ulong.MaxValue, ulong.MaxValue };
        if (!Check(setrlimit(LimitFileSize, none)).IsError) { return Errno.None; }
        limits[0] = limits[1]; // exceeding the hard limit needs a privilege
        return Check(setrlimit(LimitFileSize, limits));
    }

    /// <summary>
    /// Ignores every signal that would end this process, except those that ask it to end and those that report a fault of
    /// its code. See signal(7).
    /// </summary>
    public static void IgnoreStraySignals()
    {
        // SIGUSR1, SIGUSR2, SIGPIPE, SIGALRM, SIGSTKFLT, SIGXCPU, SIGVTALRM, SIGPROF, SIGIO, SIGPWR
        foreach (int number in (ReadOnlySpan<int>)[10, 12, 13, 14, 16, 24, FileTooLarge, 26, 27, 29, 30])
        {
            _ = signal(number, IgnoreSignal); // cannot fail: these signals can be ignored
        }
        for (int number = FirstRealTime; number <= LastRealTime; number++)
        {
            _ = signal(number, IgnoreSignal);
        }
    }

    /// <summary>Gets how many files this process may have open. See getrlimit(2).</summary>
    public static Errno OpenFileLimit(out ulong limit)
    {
        ulong* limits = stackalloc ulong[2];
        Errno error = Check(getrlimit(LimitOpenFiles, limits));
        limit = error.IsError ? 0 : limits[0];
        return error;
    }

    /// <summary>Reads a file to its end, such as one of /proc.</summary>
    public static Errno ReadWhole(ReadOnlySpan<byte> path, out byte[] content) => ReadWhole(AtCwd, path, out content);

    /// <summary>Reads a file to its end, found from a directory.</summary>
    /// <param name="directory">The directory at which the path begins.</param>
    /// <param name="path">The path, with its NUL.</param>
    /// <param name="content">The content of the file.</param>
    /// <param name="most">The largest size to read, in bytes.</param>
    /// <returns><see cref="Errno.EFBIG"/> when the file is larger, or endless.</returns>
    public static Errno ReadWhole(int directory, ReadOnlySpan<byte> path, out byte[] content, int most = 256 << 20)
    {
        content = [];
        Errno error = OpenAt(directory, path, OpenFlags.ReadOnly, 0, ResolveFlags.None, out int descriptor);
        if (error.IsError) { return error; }
        using var file = new Fd(descriptor);
        byte[] buffer = new byte[4096];
        int length = 0;
        while (true)
        {
            if (length == buffer.Length) { Array.Resize(ref buffer, buffer.Length * 4); }
            error = Read(file.Value, buffer.AsSpan(length), out int count);
            if (error == Errno.EINTR) { continue; }
            if (error.IsError) { return error; }
            if (count == 0) { break; }
            length += count;
            if (length > most) { return Errno.EFBIG; }
        }
        content = buffer[..length];
        return Errno.None;
    }

    /// <summary>Restricts the calling thread to one CPU. See sched_setaffinity(2).</summary>
    /// <returns><see cref="Errno.EINVAL"/> when the CPU is offline, or not one that the process may use.</returns>
    public static Errno PinThread(int cpu)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)cpu, CpuMaskSize * 8u);
        Span<byte> mask = stackalloc byte[CpuMaskSize];
        mask.Clear();
        mask[cpu / 8] = (byte)(1 << (cpu % 8));
        return SetThreadCpus(mask);
    }

    /// <summary>The size in bytes of a mask of CPUs 0 to 8191, the most that a kernel can be built for.</summary>
    public const int CpuMaskSize = 1024;

    /// <summary>Gets the CPUs on which a thread may run, one bit each. See sched_getaffinity(2).</summary>
    /// <param name="thread">The thread's id; 0 for the calling thread.</param>
    /// <param name="mask">The mask, of <see cref="CpuMaskSize"/> bytes.</param>
    public static Errno GetThreadCpus(int thread, Span<byte> mask)
    {
        mask.Clear();
        fixed (byte* p = mask) { return Check(sched_getaffinity(thread, (nuint)mask.Length, p)); }
    }

    /// <summary>
    /// Lets the calling thread run on the CPUs of the process's first thread. A new thread has the CPUs of the thread that
    /// started it.
    /// </summary>
    public static Errno UnpinThread()
    {
        Span<byte> mask = stackalloc byte[CpuMaskSize];
        Errno error = GetThreadCpus(Environment.ProcessId, mask);
        return error.IsError ? error : SetThreadCpus(mask);
    }

    private static Errno SetThreadCpus(ReadOnlySpan<byte> mask)
    {
        fixed (byte* p = mask) { return Check(sched_setaffinity(0, (nuint)mask.Length, p)); }
    }

    /// <summary>Reads a list of CPUs from sysfs, such as <c>0-3,8</c>. See cpuset(7), "List format".</summary>
    /// <param name="path">The path of the list with its NUL, such as <c>/sys/devices/system/cpu/possible</c>.</param>
    /// <param name="cpus">The CPUs, in the order of the list.</param>
    /// <returns><see cref="Errno.EINVAL"/> when the file is not such a list.</returns>
    public static Errno ReadCpuList(ReadOnlySpan<byte> path, out List<int> cpus)
    {
        cpus = [];
        Errno error = ReadWhole(path, out byte[] content);
        if (error.IsError) { return error; }
        ReadOnlySpan<byte> rest = content.AsSpan().TrimEnd((byte)'\n');
        while (rest.Length > 0)
        {
            if (!Utf8Parser.TryParse(rest, out int first, out int used)) { return Errno.EINVAL; }
            rest = rest[used..];
            int last = first;
            if (rest.StartsWith("-"u8))
            {
                if (!Utf8Parser.TryParse(rest[1..], out last, out used)) { return Errno.EINVAL; }
                rest = rest[(used + 1)..];
            }
            for (int cpu = first; cpu <= last; cpu++) { cpus.Add(cpu); }
            if (rest.Length > 0 && rest[0] != ',') { return Errno.EINVAL; }
            rest = rest[Math.Min(1, rest.Length)..];
        }
        return Errno.None;
    }

    /// <summary>An array of C strings, with a null pointer at the end.</summary>
    private sealed class StringArray : IDisposable
    {
        public StringArray(IReadOnlyList<byte[]> strings)
        {
            Pointer = (byte**)NativeMemory.AllocZeroed((nuint)strings.Count + 1, (nuint)sizeof(byte*));
            for (int i = 0; i < strings.Count; i++)
            {
                Pointer[i] = (byte*)NativeMemory.AllocZeroed((nuint)strings[i].Length + 1);
                strings[i].CopyTo(new Span<byte>(Pointer[i], strings[i].Length));
            }
        }

        public byte** Pointer { get; private set; }

        public void Dispose()
        {
            if (Pointer is null) { return; }
            for (byte** p = Pointer; *p is not null; p++) { NativeMemory.Free(*p); }
            NativeMemory.Free(Pointer);
            Pointer = null;
        }
    }
}
