using Veneer.Linux;

namespace Veneer.Cli;

/// <summary>This program, started once more to do a part of the work.</summary>
/// <remarks>
/// A process with a runtime in it cannot fork. What the new process is for says a variable, whose value is the parent's
/// process id, so that it means nothing to anybody else.
/// </remarks>
internal static class Self
{
    /// <summary>Whether this process was started for what the variable stands for.</summary>
    public static bool IsStartedAs(string variable) => Environment.GetEnvironmentVariable(variable) == $"{Libc.ParentProcessId}";

    /// <summary>Starts it in a session of its own, with this process's working directory and none of its descriptors.</summary>
    /// <param name="variable">What for.</param>
    /// <param name="arguments">All, the program's name first, in bytes without NUL.</param>
    /// <param name="standardError">What becomes of its standard error.</param>
    /// <param name="pid">The new process.</param>
    public static Errno Start(string variable, IReadOnlyList<byte[]> arguments, int standardError, out int pid) =>
        Libc.Spawn(
            new SpawnOptions
            {
                Program = Executable(),
                Arguments = arguments,
                Environment = [.. EnvironmentVariables(), PathText.Encode($"{variable}={Libc.ProcessId}")[..^1]],
                StandardError = standardError,
                NewSession = true,
            },
            out pid);

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
