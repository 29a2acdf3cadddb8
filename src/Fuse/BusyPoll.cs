using System.Diagnostics;

namespace Veneer.Fuse;

/// <summary>
/// Decides whether ring threads busy-poll for a moment after a request, so that the scheduler leaves the caller on its CPU.
/// </summary>
/// <remarks>
/// The thread that serves a caller runs on the caller's CPU. So the kernel sees that CPU busy when the reply wakes the
/// caller, and moves the caller to an idle CPU, if there is one. Waking that CPU costs more than the request, and the next
/// request leaves the first CPU idle. While threads busy-poll on the CPUs that the caller has left, the caller stays. This
/// is done only for a single caller that is moved about, and only while it helps; now and then, going without it is tried.
/// A connection has one of these. Its threads write it without a lock, since it need be right only most of the time. See
/// docs/adr/0007-how-requests-come.md.
/// </remarks>
internal sealed class BusyPoll
{
    /// <summary>The number of requests from one judgement to the next.</summary>
    private const int Period = 32;

    /// <summary>The number of periods for which a judgement holds.</summary>
    private const int Term = 64;

    /// <summary>The most threads that busy-poll: one on the caller's CPU, and one on another.</summary>
    private const int MaxAwake = 2;

    /// <summary>How long to busy-poll after the last request of any caller, in ticks of the clock.</summary>
    private static readonly long patience = Stopwatch.Frequency / 20_000; // 50 microseconds

    private volatile bool isOn;
    private uint lastCaller;
    private int lastCpu = -1;
    private long lastRequest;
    private int seen;
    private int changes;
    private int moves;
    private int term;
    private int awake;

    /// <summary>Whether threads busy-poll now.</summary>
    public bool IsOn => isOn;

    /// <summary>Counts a request of a thread that came from a CPU. Thread 0 is nobody who waits.</summary>
    public void CountRequest(uint thread, int cpu)
    {
        if (isOn) { Volatile.Write(ref lastRequest, Stopwatch.GetTimestamp()); }
        if (thread == 0) { return; }
        if (lastCaller != thread)
        {
            lastCaller = thread;
            changes++;
        }
        else if (lastCpu != cpu) { moves++; }
        lastCpu = cpu;
        if (++seen < Period) { return; }

        Judge(changes <= Period / 4, moves > Period / 8);
        seen = changes = moves = 0;
    }

    private void Judge(bool isOne, bool isMoved)
    {
        if (!isOne)
        {
            isOn = false;
            term = 0;
        }
        else if (term > 0 && --term > 0 && !(isOn && isMoved))
        {
            return;
        }
        else if (isOn)
        {
            isOn = false;
            term = isMoved ? Term : 0; // it did not help: stay off for a term; otherwise see at once whether it is still needed
        }
        else if (isMoved)
        {
            Volatile.Write(ref lastRequest, Stopwatch.GetTimestamp());
            isOn = true;
            term = Term;
        }
    }

    /// <summary>
    /// Begins to busy-poll. False when that is off, or when enough threads do. After true, <see cref="Leave"/> must follow.
    /// </summary>
    public bool TryEnter()
    {
        if (!isOn) { return false; }
        if (Interlocked.Increment(ref awake) <= MaxAwake) { return true; }
        Leave();
        return false;
    }

    /// <summary>Whether to stop busy-polling. If not, lets other threads of the CPU run first.</summary>
    public bool IsOver()
    {
        if (!isOn || Stopwatch.GetTimestamp() - Volatile.Read(ref lastRequest) > patience) { return true; }
        Thread.Yield();
        return false;
    }

    /// <summary>Ends what <see cref="TryEnter"/> began.</summary>
    public void Leave() => Interlocked.Decrement(ref awake);
}
