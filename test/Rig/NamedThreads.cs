using Veneer.Linux;

namespace Veneer.Rig;

/// <summary>The threads of another process, found by their names.</summary>
public static class NamedThreads
{
    private const string SysPoll = "7", SysFutex = "202";

    /// <summary>Whether a thread waits for something of a descriptor to happen, for as long as it takes.</summary>
    public static bool IsInPoll(IReadOnlyList<string> call) => call is [SysPoll, _, _, "0xffffffffffffffff" or "0xffffffff", ..];

    /// <summary>Whether a thread sleeps until another thread wakes it, for as long as it takes.</summary>
    public static bool SleepsUntilWoken(IReadOnlyList<string> call) => call is [SysFutex, _, _, _, "0x0", ..];

    /// <summary>What each thread of a name does: the number of its system call and the arguments, or <c>running</c>.</summary>
    /// <param name="process">The process.</param>
    /// <param name="name">The name, of at most 15 bytes.</param>
    /// <returns>In the words of proc_pid_syscall(5). A thread that ends meanwhile is left out.</returns>
    public static IReadOnlyList<IReadOnlyList<string>> CallsOf(int process, string name)
    {
        var calls = new List<IReadOnlyList<string>>();
        FilePath tasks = $"/proc/{process}/task";
        foreach (string task in tasks.Entries())
        {
            string thread = "", call = "";
            Errno error = Sys.ErrorOf(() =>
            {
                thread = Sys.ReadText(tasks / task / "comm").TrimEnd();
                call = Sys.ReadText(tasks / task / "syscall").TrimEnd();
            });
            if (!error.IsError && thread == name) { calls.Add(call.Split(' ')); }
        }
        return calls;
    }
}
