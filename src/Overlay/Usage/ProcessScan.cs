using System.Collections.Concurrent;
using Veneer.Linux;
using Veneer.Overlay.Host;

namespace Veneer.Overlay.Usage;

/// <summary>Examines every process of the machine but this one, and waits for none of them for long.</summary>
internal static class ProcessScan
{
    /// <summary>
    /// How long examining a process may take before the others are examined without waiting for it, in milliseconds.
    /// </summary>
    private const int Patience = 500;

    /// <summary>How long examining a process may take in all, in milliseconds.</summary>
    private const int LongPatience = 10_000;

    /// <summary>Examines the processes, on threads that are left behind when a process keeps them.</summary>
    /// <param name="mounts">The mounts of the machine.</param>
    /// <param name="gaps">Receives a sentence about each process that could not be examined.</param>
    public static List<UsingProcess> Run(HostMounts mounts, List<string> gaps)
    {
        List<int> all = Processes.All();
        all.Remove(Libc.ProcessId);
        var users = new List<UsingProcess>();
        var late = new List<(int Pid, Worker Worker)>();
        for (int next = 0; next < all.Count;)
        {
            var worker = new Worker(all, next, mounts);
            next = worker.Collect(users);
            if (next < all.Count) { late.Add((all[next++], worker)); }
        }
        foreach ((int pid, Worker worker) in late)
        {
            if (!worker.CollectLast(users)) { gaps.Add($"Process {pid} does not let itself be looked at."); }
        }
        List<UsingProcess> hidden = users.FindAll(user => user.Space == 0);
        if (hidden.Count > 0)
        {
            gaps.Add(
                $"Process {hidden[0].Process.Pid} ({hidden[0].Process.Name}) "
                + $"{(hidden.Count == 1 ? "" : $"and {hidden.Count - 1} more ")}may not be looked at by this user.");
        }
        return users;
    }

    /// <summary>A thread that examines processes until one takes too long.</summary>
    private sealed class Worker
    {
        // not disposed of, since the thread may be left behind
        private readonly BlockingCollection<UsingProcess?> found = [];
        private readonly int first;
        private readonly int count;
        private volatile bool isLeft;
        private long began;

        /// <param name="all">The pids of all processes.</param>
        /// <param name="first">The index of the process with which to begin.</param>
        /// <param name="mounts">The mounts of the machine.</param>
        public Worker(List<int> all, int first, HostMounts mounts)
        {
            this.first = first;
            count = all.Count;
            began = Environment.TickCount64;
            new Thread(() =>
            {
                for (int i = first; i < all.Count && !isLeft; i++) { found.Add(ProcessReader.Read(all[i], mounts)); }
            }) { IsBackground = true }.Start();
        }

        /// <summary>Takes the processes that the thread has examined.</summary>
        /// <returns>The index of the process that took too long, or the number of processes.</returns>
        public int Collect(List<UsingProcess> users)
        {
            for (int i = first; i < count; i++)
            {
                began = Environment.TickCount64;
                if (!Take(users, Patience))
                {
                    isLeft = true;
                    return i;
                }
            }
            return count;
        }

        /// <summary>Takes the process that took too long, if it comes in time after all.</summary>
        public bool CollectLast(List<UsingProcess> users) => Take(users, (int)Math.Max(0, began + LongPatience - Environment.TickCount64));

        private bool Take(List<UsingProcess> users, int milliseconds)
        {
            if (!found.TryTake(out UsingProcess? user, milliseconds)) { return false; }
            if (user is not null) { users.Add(user); }
            return true;
        }
    }
}
