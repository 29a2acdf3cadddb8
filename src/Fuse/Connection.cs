using Veneer.Fuse.Wire;

namespace Veneer.Fuse;

/// <summary>What a filesystem may use of the connection that serves it.</summary>
/// <param name="Flags">The capabilities in force.</param>
/// <param name="MaxStackDepth">How many stacked filesystems may lie below a passed-through file.</param>
/// <param name="Device">For backing ids.</param>
/// <param name="Notifier">For invalidations.</param>
/// <param name="Workers">For announcing long work.</param>
public sealed record Connection(InitFlags Flags, uint MaxStackDepth, Device Device, Notifier Notifier, Workers Workers);
