using Veneer.Fuse;
using Veneer.Linux;
using Veneer.Overlay.Durability;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Live;

/// <summary>What is done when writing to upper fails, or a layer is lost.</summary>
/// <param name="session">The connection to the kernel.</param>
/// <param name="mark">The mark of a volatile upper; null when upper is none.</param>
/// <param name="options">As the user asked.</param>
/// <param name="shutDown">Shuts the overlay down.</param>
/// <param name="log">For what is told to no caller.</param>
internal sealed class FailureResponse(
    KernelSession session, VolatileMark? mark, OverlayOptions options, Func<string, Errno> shutDown,
    Action<string> log)
{
    /// <summary>Writing something back has failed. Called once, by a thread of its own.</summary>
    public void ActOnError(Errno error)
    {
        NoteFailure(error);
        Act($"writing to the filesystem of the upper directory {options.UpperDirectory} failed ({error})", what => $"fsync fails from now on: {what}");
    }

    /// <summary>A layer was moved or removed. What is open goes on, but the next mount will not find it. Called by a thread of its own, once for each.</summary>
    /// <param name="what">A sentence without its full stop.</param>
    public void ActOnLoss(string what) => Act(what, what => $"{what}: see who did it, and unmount");

    private void Act(string what, Func<string, string> warning)
    {
        switch (session.Gate is null ? OnError.Continue : options.Errors) // before it is served, there is nothing to end
        {
            case OnError.Shutdown:
                _ = shutDown($": {what}"); // what it could not do is logged
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

    /// <summary>Notes down on a volatile upper that writing to it failed, for the next mount.</summary>
    public void NoteFailure(Errno error)
    {
        if (mark?.NoteFailure(error) is { IsError: true } problem)
        {
            log($"veneer: that writing to upper failed cannot be noted down ({problem}): discard it");
        }
    }
}
