using System.Text.Json.Serialization;

namespace Veneer.Overlay.Documents;

/// <summary>The answer to <see cref="Control.Query.Remounted"/>.</summary>
public sealed record Remounted
{
    /// <summary>Why upper could not be synced, such as <c>EIO</c>; null when nothing failed.</summary>
    [JsonIgnore(Condition = JsonIgnoreCondition.Never)]
    public string? Failure { get; init; }
}
