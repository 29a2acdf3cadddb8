using System.Globalization;
using Veneer.Linux;

namespace Veneer.Overlay.Host;

/// <summary>Notices when only servers are left in a mount namespace.</summary>
/// <remarks>
/// A mount namespace, with all its mounts, ends with its last process. But the server of a mount is such a process, so that
/// namespace, mount and server would keep each other for ever, and with them the layers. The kernel reports nothing. So the
/// watch looks for another process in the namespace and waits for its end. While there is one, it does nothing else.
/// <para>
/// What cannot be seen must not count as absent. The initial mount namespace is not watched, and a process that hides its
/// namespace counts as being in it, unless it can only have come from outside.
/// </para>
/// </remarks>
public static class NamespaceWatch
{
    /// <summary>How long to wait between two looks, in milliseconds, and how many looks in a row must find no process.</summary>
    private const int Patience = 250, Looks = 4;

    /// <summary>How long to wait, in milliseconds, while a bind mount or a descriptor keeps the namespace.</summary>
    private const int Later = 60_000;

    /// <summary>Starts to watch this process's mount namespace on a separate thread, unless it is the initial one.</summary>
    /// <param name="isAlone">Called once when only servers are left.</param>
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
            // Without /proc, with the /proc of another pid namespace, or with one that hides processes, absence cannot be
            // seen.
            if (!processes.Contains(1) || Processes.Link("/proc/self") != Libc.ProcessId.ToString(CultureInfo.InvariantCulture)
                || Processes.NamespaceOf("self", "mnt") != own)
            {
                return;
            }
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

    /// <summary>Waits until a process has ended, or has left the namespace.</summary>
    /// <returns>False where its end cannot be waited for.</returns>
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

    /// <summary>Whether a process or one of its threads is in the namespace, and is neither a server nor a child of one.</summary>
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

    /// <summary>
    /// Whether a process that hides its namespace can only have come from outside: process 1, and, seen from a user
    /// namespace, all processes outside of that.
    /// </summary>
    private static bool ComesFromOutside(int process) => (process == 1 && Libc.EffectiveUid == 0) || Processes.IsInUserNamespace;

    /// <summary>Whether a process is a background server of this program, or was started by one.</summary>
    private static bool IsServer(string process) =>
        Processes.Link($"/proc/{process}/exe") is { } program && program == Processes.Link("/proc/self/exe")
            && Processes.LeadsSession(process);

    /// <summary>Whether a bind mount or a descriptor keeps the namespace.</summary>
    private static bool IsKept(ulong own)
    {
        if (new HostMounts().ReferencesTo(own).Count > 0) { return true; }
        string name = $"mnt:[{own}]";
        return Processes.All().Any(process => process != Libc.ProcessId
            && Processes.NumbersIn($"/proc/{process}/fd").Any(descriptor => Processes.Link($"/proc/{process}/fd/{descriptor}") == name));
    }
}
