using Veneer.Overlay.Layers;
using Veneer.Overlay.Lookup;

namespace Veneer.Overlay.Changes;

/// <summary>A name as the lower layers alone show it.</summary>
/// <param name="Directory">The directory that holds the name, without upper.</param>
/// <param name="Name">With its NUL.</param>
/// <param name="Path">The path from the root of the baseline, without a NUL.</param>
/// <param name="Found">The topmost real object under the name.</param>
internal sealed record Baseline(DirectoryStack Directory, byte[] Name, byte[] Path, Found Found)
{
    /// <summary>The real object that holds the attributes.</summary>
    public RealName Real => new(Found.LowerDirectory!, Name);
}
