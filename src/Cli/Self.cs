using Veneer.Linux;

namespace Veneer.Cli;

/// <summary>This program, started once more to do a part of the work.</summary>
/// <remarks>
/// A process with a runtime in it cannot fork. What the new process is for says a variable, whose value is the parent's
/// process id, so that it means nothing to anybody else.
/// </remarks>
internal static class Self
{
    /// <summary>How long a process may take to begin, in milliseconds.</summary>
    private const int LongestStart = 60_000;

    /// <summary>A server may take so many times longer to answer than a process took to begin.</summary>
    private const int AnswersPerStart = 20;

    /// <summary>In a process that <see cref="Ask"/> started: tells that it has begun.</summary>
    public static void Begin() => _ = Libc.Write(2, [0], out _); // best effort: nobody may wait for it any more

    /// <summary>Whether this process was started for what the variable stands for.</summary>
    public static bool IsStartedAs(string variable) => Environment.GetEnvironmentVariable(variable) == $"{Libc.ParentProcessId}";

    /// <summary>The end of a sentence about a process that was not started.</summary>
    /// <param name="error">What <see cref="Start"/> gave.</param>
    /// <param name="remedy">What to do, where it is not the want of /proc.</param>
    public static string WhyNot(Errno error, string remedy) =>
        error == Errno.ENOENT && Libc.StatAt(Libc.AtCwd, "/proc/self/exe\0"u8, StatxMask.Basic, out _).IsError
            ? ", since there is no /proc: mount it, as with mount -t proc proc /proc."
            : $" ({error}): {remedy}.";

    /// <summary>Starts it in a session of its own, with this process's working directory and none of its descriptors.</summary>
    /// <param name="variable">What for.</param>
    /// <param name="arguments">All, the program's name first, in bytes without NUL.</param>
    /// <param name="standardError">What becomes of its standard error.</param>
    /// <param name="pid">The new process.</param>
    /// <param name="kept">A descriptor that it gets as number 3, or -1.</param>
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

    /// <summary>Starts it for something that may never return, and waits for what it writes to standard error after <see cref="Begin"/>.</summary>
    /// <remarks>
    /// No signal ends the wait for a server that hangs, and neither a thread that waits nor its process could end. So it
    /// is another process, which is killed when the time is over; it goes at the latest when the server answers or ends.
    /// </remarks>
    /// <param name="variable">What for.</param>
    /// <param name="arguments">All, the program's name first, in bytes without NUL.</param>
    /// <param name="milliseconds">
    /// The time to wait from when it begins, or -1 for as long as it takes. On a machine that took long to start a
    /// process it is longer, since a server there may take as long to answer.
    /// </param>
    /// <param name="answer">What it wrote; empty when it wrote nothing.</param>
    /// <param name="silence">How long it was waited for in vain, in milliseconds; 0 when it has ended.</param>
    public static Errno Ask(string variable, IReadOnlyList<byte[]> arguments, int milliseconds, out byte[] answer, out int silence)
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
                _ = Libc.Kill(pid); // best effort: it can be killed as long as the server has not taken its request
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
        _ = Libc.Wait(pid, out _); // best effort: it has said what it had to say
        return error;
    }

    /// <summary>The file that we run from, so that the child has its name; /proc/self/exe if it has been replaced meanwhile.</summary>
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
