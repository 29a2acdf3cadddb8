using Veneer.Linux;

namespace Veneer.Cli;

/// <summary>Starts this program once more, as a child that does a part of the work.</summary>
/// <remarks>
/// A process with the .NET runtime cannot fork. An environment variable says what the child is for. Its value is the
/// parent's pid, so that it means nothing to other processes.
/// </remarks>
internal static class Self
{
    /// <summary>How long a child may take to begin, in milliseconds.</summary>
    private const int LongestStart = 60_000;

    /// <summary>How many times longer a server may take to answer than the child took to begin.</summary>
    private const int AnswersPerStart = 20;

    /// <summary>In a child of <see cref="RunChild"/>: tells the parent that it has begun.</summary>
    public static void SignalStarted() => _ = Libc.Write(2, [0], out _); // best effort: perhaps nobody waits any more

    /// <summary>Whether this process is a child that was started for a purpose.</summary>
    public static bool IsStartedAs(string variable) => Environment.GetEnvironmentVariable(variable) == $"{Libc.ParentProcessId}";

    /// <summary>Makes the end of a sentence about a child that could not be started.</summary>
    /// <param name="error">The error of <see cref="Start"/>.</param>
    /// <param name="remedy">The advice when the reason is not a missing /proc.</param>
    public static string StartFailure(Errno error, string remedy) =>
        error == Errno.ENOENT && Libc.StatAt(Libc.AtCwd, "/proc/self/exe\0"u8, StatxMask.Basic, out _).IsError
            ? ", since there is no /proc: mount it, as with mount -t proc proc /proc."
            : $" ({error}): {remedy}.";

    /// <summary>
    /// Starts a child in a session of its own, with this process's working directory and none of its descriptors.
    /// </summary>
    /// <param name="variable">The environment variable that names the purpose.</param>
    /// <param name="arguments">All arguments, the program's name first, in bytes without NUL.</param>
    /// <param name="standardError">The descriptor that becomes its standard error, or -1 for /dev/null.</param>
    /// <param name="pid">The pid of the child.</param>
    /// <param name="kept">A descriptor that the child gets as number 3, or -1.</param>
    public static Errno Start(string variable, IReadOnlyList<byte[]> arguments, int standardError, out int pid, int kept = -1) =>
        Libc.Spawn(
            new SpawnOptions
            {
                Program = Executable(),
                Arguments = arguments,
                Environment = [.. EnvironmentVariables(), PathText.Encode($"{variable}={Libc.ProcessId}")[..^1]],
                StandardError = standardError,
                Kept = kept,
                NewSession = true,
                DescriptorRoom = 4096,
            },
            out pid);

    /// <summary>
    /// Starts a child for something that may never return, and waits for what it writes to standard error after
    /// <see cref="SignalStarted"/>.
    /// </summary>
    /// <remarks>
    /// A thread that waits for a hanging server cannot be interrupted, and keeps its process from ending. So a child waits,
    /// which is killed when the time is over. It ends at the latest when the server answers or ends.
    /// </remarks>
    /// <param name="variable">The environment variable that names the purpose.</param>
    /// <param name="arguments">All arguments, the program's name first, in bytes without NUL.</param>
    /// <param name="milliseconds">
    /// How long to wait from the child's beginning, in milliseconds, or -1 for no limit. It is longer on a machine that
    /// took long to start the child: a server there may also take longer to answer.
    /// </param>
    /// <param name="answer">The child's output; empty when there is none.</param>
    /// <param name="silence">How long the child was waited for in vain, in milliseconds; 0 when it has ended.</param>
    public static Errno RunChild(string variable, IReadOnlyList<byte[]> arguments, int milliseconds, out byte[] answer, out int silence)
    {
        answer = [];
        silence = 0;
        Errno error = Libc.Pipe(out int readEnd, out int writeEnd);
        if (error.IsError) { return error; }
        using var output = new Fd(readEnd);
        int pid;
        using (new Fd(writeEnd)) { error = Start(variable, arguments, writeEnd, out pid); }
        if (error.IsError) { return error; }

        bool hasBegun = false;
        int patience = Math.Max(milliseconds, LongestStart);
        long start = Environment.TickCount64;
        byte[] buffer = new byte[4096];
        int length = 0;
        while (true)
        {
            int left = milliseconds < 0 ? -1 : (int)Math.Max(0, start + patience - Environment.TickCount64);
            error = Libc.Poll(output.Value, PollEvents.In, left, out bool came);
            if (error == Errno.EINTR) { continue; }
            if (!error.IsError && !came)
            {
                silence = patience;
                _ = Libc.Kill(pid); // best effort: the child can be killed as long as the server has not taken its request
                return Errno.None;
            }
            if (length == buffer.Length) { Array.Resize(ref buffer, buffer.Length * 4); }
            int count = 0;
            if (!error.IsError) { error = Libc.Read(output.Value, buffer.AsSpan(length), out count); }
            if (error == Errno.EINTR) { continue; }
            if (error.IsError || count == 0) { break; }
            length += count;
            if (hasBegun) { continue; }
            hasBegun = true;
            long now = Environment.TickCount64;
            patience = (int)Math.Max(milliseconds, (now - start) * AnswersPerStart);
            start = now;
        }
        answer = buffer[Math.Min(1, length)..length];
        _ = Libc.Wait(pid, out _); // best effort: its output is complete
        return error;
    }

    /// <summary>The program's file, so that the child has its name; /proc/self/exe if the file has been replaced.</summary>
    private static string Executable()
    {
        Span<byte> buffer = stackalloc byte[4096];
        Errno error = Libc.ReadLinkAt(Libc.AtCwd, "/proc/self/exe\0"u8, buffer, out int length);
        if (error.IsError) { return "/proc/self/exe"; }
        string path = PathText.Decode(buffer[..length]);
        return path.EndsWith(" (deleted)", StringComparison.Ordinal) ? "/proc/self/exe" : path;
    }

    private static List<byte[]> EnvironmentVariables()
    {
        var variables = new List<byte[]>();
        _ = Libc.ReadWhole("/proc/self/environ\0"u8, out byte[] all); // best effort: the child needs none of them
        foreach (Range range in all.AsSpan().Split((byte)0))
        {
            if (all[range] is { Length: > 0 } variable) { variables.Add(variable); }
        }
        return variables;
    }
}
