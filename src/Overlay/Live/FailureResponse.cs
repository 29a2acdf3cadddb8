using Veneer.Fuse;
using Veneer.Linux;
using Veneer.Overlay.Durability;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Live;

/// <summary>Responds to a failed write to upper, or the loss of a layer, in the way that the option errors chooses.</summary>
/// <param name="session">The connection to the kernel.</param>
/// <param name="mark">The mark of a volatile upper; null when upper is not volatile.</param>
/// <param name="options">The options of the mount.</param>
/// <param name="shutDown">Shuts the overlay down.</param>
/// <param name="log">Receives messages for which there is no caller.</param>
internal sealed class FailureResponse(
    KernelSession session, VolatileMark? mark, OverlayOptions options, Func<string, Errno> shutDown,
    Action<string> log)
{
    /// <summary>Responds to a failed writeback. Called once, on a thread of its own.</summary>
    public void ActOnError(Errno error)
    {
        NoteFailure(error);
        Act(
            $"writing to the filesystem of the upper directory {options.UpperDirectory} failed ({error})",
            what => $"fsync fails from now on: {what}");
    }

    /// <summary>
    /// Responds to a layer that was moved or removed. Open files go on, but the next mount will not find it. Called on a thread
    /// of its own, once for each layer.
    /// </summary>
    /// <param name="what">What happened, as a sentence without its full stop.</param>
    public void ActOnLoss(string what) => Act(what, what => $"{what}: see who did it, and unmount");

    private void Act(string what, Func<string, string> warning)
    {
        switch (session.Gate is null ? OnError.Continue : options.Errors) // before requests are served, there is nothing to end
        {
            case OnError.Shutdown:
                _ = shutDown($": {what}"); // the shutdown logs its own failure
                break;
            case OnError.ReadOnly:
                log($"veneer: the overlay cannot be changed any more: {what}");
                session.Gate?.Close(Service.Reading);
                break;
            default:
                log($"veneer: {warning(what)}");
                break;
        }
    }

    /// <summary>Records on a volatile upper, for the next mount, that a write to it failed.</summary>
    public void NoteFailure(Errno error)
    {
        if (mark?.NoteFailure(error) is { IsError: true } problem)
        {
            log($"veneer: that writing to upper failed cannot be noted down ({problem}): discard it");
        }
    }
}
