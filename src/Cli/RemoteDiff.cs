using System.Text.Json;
using Veneer.Overlay.Changes;
using Veneer.Overlay.Control;

namespace Veneer.Cli;

/// <summary>The changes of a mount as its server tells them, for who cannot reach the layers: somebody in a container.</summary>
internal sealed class RemoteDiff(string mountPoint)
{
    private readonly List<Disturbance> disturbances = [];

    /// <summary>What changed while it was read, each thing once.</summary>
    public IReadOnlyList<Disturbance> Disturbances => disturbances;

    /// <summary>The changes, ordered by path as bytes; the server is asked for one part after the other.</summary>
    /// <exception cref="LayerException">The answer is not understood.</exception>
    public IEnumerable<Change> Changes()
    {
        for (string? next = ""; next is not null;)
        {
            var changes = new List<Change>();
            try
            {
                using JsonDocument answer = JsonDocument.Parse(LiveMount.Ask(mountPoint, Query.Changes, next, -1)); // as long as it takes to read upper
                JsonElement root = answer.RootElement;
                foreach (JsonElement change in root.GetProperty("changes"u8).EnumerateArray()) { changes.Add(ChangeJson.ReadChange(change)); }
                foreach (JsonElement disturbed in root.GetProperty("disturbances"u8).EnumerateArray())
                {
                    Disturbance disturbance = ChangeJson.ReadDisturbance(disturbed);
                    if (!disturbances.Contains(disturbance)) { disturbances.Add(disturbance); }
                }
                next = root.TryGetProperty("next"u8, out JsonElement position) ? position.GetString() : null;
            }
            catch (Exception problem) when (problem is JsonException or FormatException or KeyNotFoundException or InvalidOperationException)
            {
                throw new LayerException($"The answer of the server of {mountPoint} is not understood: use the veneer that it was mounted with.", ExitCode.Failure);
            }
            foreach (Change change in changes) { yield return change; }
        }
    }
}
