using Veneer.Overlay.Host;

namespace Veneer.Overlay.Usage;

/// <summary>The directory, or the whole mount, whose users are wanted.</summary>
/// <param name="Device">The device number of its filesystem, as in mountinfo.</param>
/// <param name="Inside">Its path from the filesystem's root.</param>
/// <param name="Except">The id of the mount that was asked about, or -1.</param>
internal sealed record HeldObject(string Device, string Inside, int Except)
{
    /// <summary>The mounts that hold it.</summary>
    public List<(MountNamespace Space, MountUse Mount)> Mounts { get; } = [];

    /// <summary>The processes that use files in it.</summary>
    public List<ProcessUse> Users { get; } = [];

    /// <summary>
    /// Whether an object of a filesystem is in the held object. If its path is not known, it is in it only if the held object is the
    /// whole filesystem.
    /// </summary>
    public bool Has(string device, string? inside) =>
        device == Device && (Inside == "/" || inside == Inside || (inside is not null && Place.IsBelow(inside, Inside)));
}
