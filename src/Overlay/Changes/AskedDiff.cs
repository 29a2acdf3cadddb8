using System.Text.Json;

namespace Veneer.Overlay.Changes;

/// <summary>The changes of a mount as its server tells them, part by part, for who cannot reach the layers.</summary>
/// <param name="ask">Asks for the part behind a position, which is empty at first; answers as docs/control.md has it.</param>
internal sealed class AskedDiff(Func<string, byte[]> ask)
{
    /// <summary>The changes, ordered by path as bytes.</summary>
    /// <param name="disturbed">Called with what disturbed a part.</param>
    /// <exception cref="OverlayQueryException">The answer is not understood.</exception>
    public IEnumerable<Change> Changes(Action<Disturbance> disturbed)
    {
        for (string? next = ""; next is not null;)
        {
            var changes = new List<Change>();
            try
            {
                using JsonDocument answer = JsonDocument.Parse(ask(next));
                JsonElement root = answer.RootElement;
                foreach (JsonElement change in root.GetProperty("changes"u8).EnumerateArray()) { changes.Add(ChangeJson.ReadChange(change)); }
                foreach (JsonElement disturbance in root.GetProperty("disturbances"u8).EnumerateArray()) { disturbed(ChangeJson.ReadDisturbance(disturbance)); }
                next = root.TryGetProperty("next"u8, out JsonElement position) ? position.GetString() : null;
            }
            catch (Exception problem) when (problem is JsonException or FormatException or KeyNotFoundException or InvalidOperationException)
            {
                throw new OverlayQueryException("What the server says of its changes is not understood: use the veneer that it was mounted with.", problem);
            }
            foreach (Change change in changes) { yield return change; }
        }
    }
}
