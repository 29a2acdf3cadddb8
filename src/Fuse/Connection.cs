using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>What a filesystem may use of the connection that serves it.</summary>
/// <param name="Flags">The capabilities in force.</param>
/// <param name="MaxStackDepth">How many stacked filesystems may lie below a passed-through file.</param>
/// <param name="Device">For backing ids.</param>
/// <param name="Notifier">For invalidations.</param>
/// <param name="Workers">For announcing long work.</param>
/// <param name="Gate">For refusing requests from now on.</param>
/// <param name="Statistics">What was served.</param>
/// <param name="RingError">Why requests do not come over io_uring, although both sides wanted it.</param>
public sealed record Connection(InitFlags Flags, uint MaxStackDepth, Device Device, Notifier Notifier, Workers Workers, Gate Gate, Statistics Statistics, Errno RingError);
