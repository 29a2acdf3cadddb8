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

/// <summary>What a name in an overlay directory leads to.</summary>
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

    /// <summary>The topmost lower object's directory, and its name there; set by Complete for an object in upper.</summary>
    public RealDirectory? LowerDirectory;

    /// <summary>With its NUL; null means the name that was looked up.</summary>
    public byte[]? LowerName;

    /// <summary>Attributes of the topmost lower object, when there is one.</summary>
    public Statx LowerStat;

    /// <summary>Position in the parent's lowers where the topmost lower object was found.</summary>
    public int LowerPosition;

    /// <summary>For a directory: every lower directory that shows through, topmost first. Set by Complete.</summary>
    public RealDirectory[] Lowers;

    /// <summary>The upper directory's redirect, without NUL. Set by Complete.</summary>
    public byte[]? Redirect;

    /// <summary>Whether the upper directory is opaque. Set by Complete.</summary>
    public bool IsOpaque;

    /// <summary>Whether the upper directory is impure. Set by Complete.</summary>
    public bool IsImpure;

    /// <summary>What upper's protattr attribute forbids. Set by Complete.</summary>
    public Protection Protection;

    /// <summary>Where the data of a metacopy is. Set by Complete.</summary>
    public RealName? Metacopy;

    /// <summary>Whether upper names an origin that exists. Set by Complete.</summary>
    public bool HasOrigin;

    /// <summary>The origin's device. Set by Complete.</summary>
    public ulong OriginDevice;

    /// <summary>The origin's inode number. Set by Complete.</summary>
    public ulong OriginIno;
}
