using Veneer.Overlay.Layers;
using Veneer.Overlay.Lookup;

namespace Veneer.Overlay.Changes;

/// <summary>A name as the lower layers alone show it.</summary>
/// <param name="Directory">The directory that holds it; it has no upper.</param>
/// <param name="Name">With its NUL.</param>
/// <param name="Path">From the root of the baseline, without NUL.</param>
/// <param name="Found">What is there.</param>
internal sealed record Baseline(DirectoryStack Directory, byte[] Name, byte[] Path, Found Found)
{
    /// <summary>The object that holds the attributes.</summary>
    public RealName Real => new(Found.LowerDirectory!, Name);
}
