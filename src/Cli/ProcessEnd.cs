using Veneer.Linux;
using Veneer.Overlay;

namespace Veneer.Cli;

/// <summary>Makes sure that this process ends, even if one of its threads hangs in a lower layer.</summary>
internal sealed class ProcessEnd : IDisposable
{
    /// <summary>
    /// How long ending may take, in milliseconds, while a request is still served, for which nobody waits any more. If
    /// none is served, the machine may just be busy, and ending may take the second time as well.
    /// </summary>
    private const int Patience = 5_000, LongPatience = 60_000;

    private readonly OverlayMount overlay;
    private readonly Action<string> log;
    private readonly Timer timer;
    private volatile bool isLate;

    /// <param name="overlay">The overlay, whose layers are released first.</param>
    /// <param name="log">Receives the reason if a layer does not answer.</param>
    public ProcessEnd(OverlayMount overlay, Action<string> log)
    {
        this.overlay = overlay;
        this.log = log;
        timer = new Timer(_ => Judge());
    }

    /// <summary>Whether a request is still being served.</summary>
    public Func<bool> IsServing { get; set; } = () => false;

    /// <summary>Starts the time limit: nothing is left to do that may take long.</summary>
    public void StartLimit()
    {
        isLate = false;
        timer.Change(Patience, Timeout.Infinite);
    }

    /// <summary>Stops the time limit: work begins that may take long.</summary>
    public void StopLimit() => timer.Change(Timeout.Infinite, Timeout.Infinite);

    private void Judge()
    {
        if (!isLate && !IsServing())
        {
            isLate = true;
            timer.Change(LongPatience, Timeout.Infinite);
            return;
        }
        log("veneer: a layer does not answer: this process ends though requests wait for it");
        End(ExitCode.Failure);
    }

    /// <summary>Ends this process without waiting for any thread.</summary>
    public void End(int exitCode)
    {
        overlay.Abandon();
        Libc.End(exitCode);
    }

    public void Dispose() => timer.Dispose();
}
