using System.Diagnostics;

namespace Veneer.Fuse;

/// <summary>Whether the threads of the rings stay awake for a moment after a request, so that the caller stays where it is.</summary>
/// <remarks>
/// The thread that serves a caller runs on the caller's CPU, so the kernel sees that one busy when the reply wakes the
/// caller, and moves it to a CPU that sleeps, if there is one. Waking that CPU costs more than the request, and the next
/// request leaves the first one asleep. While threads stay awake on the CPUs that the caller has left, it stays. Done only
/// for one caller that is moved about, and only while it helps; now and then it is tried without. One for a connection;
/// its threads write it without a lock, since it only has to be right most of the time. See docs/adr/0007-how-requests-come.md.
/// </remarks>
internal sealed class BusyPoll
{
    /// <summary>Requests after which to judge anew.</summary>
    private const int Period = 32;

    /// <summary>Periods for which a judgement holds.</summary>
    private const int Term = 64;

    /// <summary>One on the CPU where the caller is, and one on another.</summary>
    private const int MaxAwake = 2;

    /// <summary>How long after the last request of any caller, in ticks of the clock.</summary>
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

    /// <summary>Whether threads stay awake now.</summary>
    public bool IsOn => isOn;

    /// <summary>A request of this thread has come from this CPU; thread 0 is nobody who waits.</summary>
    public void Saw(uint thread, int cpu)
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
            term = isMoved ? Term : 0; // in vain: not for a while; else: is it still wanted?
        }
        else if (isMoved)
        {
            Volatile.Write(ref lastRequest, Stopwatch.GetTimestamp());
            isOn = true;
            term = Term;
        }
    }

    /// <summary>Begins to stay awake, unless enough others do. <see cref="Leave"/> follows.</summary>
    public bool TryEnter()
    {
        if (!isOn) { return false; }
        if (Interlocked.Increment(ref awake) <= MaxAwake) { return true; }
        Leave();
        return false;
    }

    /// <summary>Whether it is time to sleep; else lets others run first.</summary>
    public bool IsOver()
    {
        if (!isOn || Stopwatch.GetTimestamp() - Volatile.Read(ref lastRequest) > patience) { return true; }
        Thread.Yield();
        return false;
    }

    /// <summary>The end of what <see cref="TryEnter"/> began.</summary>
    public void Leave() => Interlocked.Decrement(ref awake);
}
