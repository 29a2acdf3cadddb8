using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse;

/// <summary>What a filesystem may use of its connection to the kernel.</summary>
/// <param name="Flags">The protocol's capabilities in force.</param>
/// <param name="MaxStackDepth">How many stacked filesystems may lie below a passed-through file.</param>
/// <param name="Device">The device, for backing ids.</param>
/// <param name="Notifier">Sends invalidations.</param>
/// <param name="Workers">The threads that serve, to be told of long work.</param>
/// <param name="Gate">Refuses requests from now on.</param>
/// <param name="Statistics">Counts what was served.</param>
/// <param name="RingError">
/// Why requests do not come over io_uring, although both sides wanted it; <see cref="Errno.None"/> otherwise.
/// </param>
public sealed record Connection(InitFlags Flags, uint MaxStackDepth, Device Device, Notifier Notifier, Workers Workers, Gate Gate,
    Statistics Statistics, Errno RingError);
