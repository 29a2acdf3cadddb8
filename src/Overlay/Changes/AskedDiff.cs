using Veneer.Overlay.Documents;

namespace Veneer.Overlay.Changes;

/// <summary>Reads the changes of a mount from its server, part by part, for callers that cannot reach the layers.</summary>
/// <param name="ask">
/// Asks for the part after a position, which is empty at first, and returns the answer as docs/control.md has it.
/// </param>
internal sealed class AskedDiff(Func<string, byte[]> ask)
{
    /// <summary>Reads the changes, ordered by path as bytes.</summary>
    /// <param name="disturbed">Called with each disturbance of a part.</param>
    /// <exception cref="OverlayQueryException">The answer is not understood.</exception>
    public IEnumerable<Change> Changes(Action<Disturbance> disturbed)
    {
        for (string? next = ""; next is not null;)
        {
            ChangesPart part = Read(ask(next));
            next = part.Next;
            foreach (Disturbance disturbance in part.Disturbances) { disturbed(disturbance); }
            foreach (Change change in part.Changes) { yield return change; }
        }
    }

    private static ChangesPart Read(byte[] answer)
    {
        try
        {
            return Document.Read(answer, DocumentJson.Default.ChangesPart);
        }
        catch (FormatException problem)
        {
            const string sentence = "What the server says of its changes is not understood: use the veneer that it was mounted with.";
            throw new OverlayQueryException(sentence, problem);
        }
    }
}
