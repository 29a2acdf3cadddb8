using System.Globalization;
using Veneer.Linux;

namespace Veneer.Overlay.Host;

/// <summary>Notices when nobody but servers is left in a mount namespace of its own.</summary>
/// <remarks>
/// With its last process a mount namespace ends, and all its mounts. But the server of a mount is such a process, so that
/// namespace, mount and server would keep each other for ever, and the layers with them. The kernel tells nobody: so
/// processes are looked for that are there, and the end of one of them is waited for. While there is one, nothing is done.
/// <para>
/// What is not seen must not be taken for nothing. In the namespace of the first process of all nothing is watched, and
/// where a process hides its namespace it counts as one that is there, unless it could only have come from outside.
/// </para>
/// </remarks>
public static class NamespaceWatch
{
    /// <summary>So long nobody must be there, in milliseconds, and how often that is looked at.</summary>
    private const int Patience = 250, Looks = 4;

    /// <summary>Something that is no process keeps the namespace: it is looked at again after so long.</summary>
    private const int Later = 60_000;

    /// <summary>Starts to watch this process's mount namespace, on a thread of its own, if it may end at all.</summary>
    /// <param name="isAlone">Called once when nobody is left.</param>
    public static void Start(Action isAlone)
    {
        ulong own = Processes.NamespaceOf("self", "mnt"), first = Processes.NamespaceOf("1", "mnt");
        if (own == 0 || own == first) { return; }
        new Thread(() => Watch(own, isAlone), 256 << 10) { IsBackground = true, Name = "namespace" }.Start();
    }

    private static void Watch(ulong own, Action isAlone)
    {
        for (int looks = 0; looks < Looks;)
        {
            List<int> processes = Processes.All();
            // Without /proc, with that of another pid namespace, or one that hides processes, nobody can be seen to be alone.
            if (!processes.Contains(1) || Processes.Link("/proc/self") != Libc.ProcessId.ToString(CultureInfo.InvariantCulture) || Processes.NamespaceOf("self", "mnt") != own) { return; }
            if (processes.FirstOrDefault(process => IsThere(process, own), -1) is > 0 and int there)
            {
                looks = 0;
                if (!WaitFor(there, own)) { return; }
                continue;
            }
            if (IsKept(own))
            {
                looks = 0;
                Thread.Sleep(Later);
                continue;
            }
            looks++;
            Thread.Sleep(Patience);
        }
        isAlone();
    }

    /// <summary>Waits until a process has ended, or is not there any more.</summary>
    /// <returns>False where that cannot be waited for.</returns>
    private static bool WaitFor(int process, ulong own)
    {
        Errno error = Libc.OpenProcess(process, out int descriptor);
        if (error == Errno.ESRCH) { return true; }
        if (error.IsError) { return false; }
        using var opened = new Fd(descriptor);
        if (!IsThere(process, own)) { return true; }
        do { error = Libc.Poll(descriptor, PollEvents.In, -1, out _); } while (error == Errno.EINTR);
        return !error.IsError;
    }

    /// <summary>Whether a process, or one of its threads, is in the namespace, and no server or child of one.</summary>
    private static bool IsThere(int process, ulong own)
    {
        string name = process.ToString(CultureInfo.InvariantCulture);
        if (process == Libc.ProcessId || IsServer(name) || IsServer(Processes.ParentOf(name))) { return false; }
        foreach (int thread in Processes.NumbersIn($"/proc/{name}/task"))
        {
            ulong space = Processes.NamespaceOf($"{name}/task/{thread}", "mnt");
            if (space == own) { return true; }
            if (space == 0 && !Processes.HasEnded($"{name}/task/{thread}") && !ComesFromOutside(process)) { return true; }
        }
        return false;
    }

    /// <summary>Whether a process that hides its namespace can only have come from outside: the first of all, and to a user namespace all that are not in it.</summary>
    private static bool ComesFromOutside(int process) => (process == 1 && Libc.EffectiveUid == 0) || Processes.IsInUserNamespace;

    /// <summary>Whether a process is this program in the background, or started by it.</summary>
    private static bool IsServer(string process) =>
        Processes.Link($"/proc/{process}/exe") is { } program && program == Processes.Link("/proc/self/exe") && Processes.LeadsSession(process);

    /// <summary>Whether a bind mount or a descriptor keeps the namespace.</summary>
    private static bool IsKept(ulong own)
    {
        if (new HostMounts().KeepersOf(own).Count > 0) { return true; }
        string name = $"mnt:[{own}]";
        return Processes.All().Any(process => process != Libc.ProcessId
            && Processes.NumbersIn($"/proc/{process}/fd").Any(descriptor => Processes.Link($"/proc/{process}/fd/{descriptor}") == name));
    }
}
