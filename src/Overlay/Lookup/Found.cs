using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Lookup;

/// <summary>What the lowers of a directory have under a name, which never changes; upper may have something over it.</summary>
internal struct Below
{
    /// <summary>Whether they were asked.</summary>
    public bool IsKnown;

    /// <summary>Why they did not answer.</summary>
    public Errno Error;

    /// <summary>What is found where upper has nothing.</summary>
    public Found Found;

    /// <summary>Whether they show something. Kernel: ovl_lower_positive().</summary>
    /// <remarks>If something is there that we cannot reach: a whiteout more does no harm, one less would uncover it.</remarks>
    public readonly bool IsPositive => Error.IsError || Found.Exists;
}

/// <summary>What is on top under a name in a directory of the overlay. It is enough to know an inode again.</summary>
internal struct Found
{
    /// <summary>Whether users see an object under the name.</summary>
    public bool Exists;

    /// <summary>Whether upper has the object.</summary>
    public bool HasUpper;

    /// <summary>Whether upper has a whiteout under the name.</summary>
    public bool IsWhiteout;

    /// <summary>Attributes of the topmost real object.</summary>
    public Statx Stat;

    /// <summary>The directory that holds the topmost object, when that is in a lower.</summary>
    public RealDirectory? LowerDirectory;

    /// <summary>Position of <see cref="LowerDirectory"/> among the lowers of the directory that was looked in.</summary>
    public int LowerPosition;
}

/// <summary>All that is behind an object of the overlay: what upper's attributes say of it, and what the lowers have of it.</summary>
internal struct Whole
{
    /// <summary>The directory that holds the topmost lower object; null where there is none, and for a directory.</summary>
    public RealDirectory? LowerDirectory;

    /// <summary>The topmost lower object's name there, with its NUL; null means the name that was looked up.</summary>
    public byte[]? LowerName;

    /// <summary>Attributes of the topmost lower object, when there is one.</summary>
    public Statx LowerStat;

    /// <summary>For a directory: every lower directory that shows through, topmost first.</summary>
    public RealDirectory[] Lowers;

    /// <summary>The upper directory's redirect, without NUL.</summary>
    public byte[]? Redirect;

    /// <summary>Whether the upper directory is opaque.</summary>
    public bool IsOpaque;

    /// <summary>Whether the upper directory is impure.</summary>
    public bool IsImpure;

    /// <summary>What upper's protattr attribute forbids.</summary>
    public Protection Protection;

    /// <summary>Where the data of a metacopy is.</summary>
    public RealName? Metacopy;

    /// <summary>Whether upper names an origin that exists.</summary>
    public bool HasOrigin;

    /// <summary>The origin's device.</summary>
    public ulong OriginDevice;

    /// <summary>The origin's inode number.</summary>
    public ulong OriginIno;
}
