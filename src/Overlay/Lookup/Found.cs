using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Lookup;

/// <summary>What the lowers of a directory have under a name. Lowers do not change, but upper may cover the name.</summary>
internal struct Below
{
    /// <summary>Whether the lowers were asked.</summary>
    public bool IsKnown;

    /// <summary>Why the lowers could not be asked; <see cref="Errno.None"/> when they answered.</summary>
    public Errno Error;

    /// <summary>What a lookup finds if upper has nothing under the name.</summary>
    public Found Found;

    /// <summary>Whether the lowers show an object, or may show one. Kernel: ovl_lower_positive().</summary>
    /// <remarks>After an error the answer is yes: a needless whiteout does no harm, a missing one would uncover the object.</remarks>
    public readonly bool IsPositive => Error.IsError || Found.Exists;
}

/// <summary>The topmost real object under a name in a directory of the overlay. It suffices to recognise an inode.</summary>
internal struct Found
{
    /// <summary>Whether users see an object under the name.</summary>
    public bool Exists;

    /// <summary>Whether upper has the object.</summary>
    public bool HasUpper;

    /// <summary>Whether upper has a whiteout under the name.</summary>
    public bool IsWhiteout;

    /// <summary>The attributes of the topmost real object.</summary>
    public Statx Stat;

    /// <summary>The directory that holds the topmost object, when that is in a lower.</summary>
    public RealDirectory? LowerDirectory;

    /// <summary>The position of <see cref="LowerDirectory"/> among the lowers of the directory in which the name was looked up.</summary>
    public int LowerPosition;
}

/// <summary>Everything behind an object of the overlay: what the attributes in upper say of it, and its lower objects.</summary>
internal struct Whole
{
    /// <summary>The directory that holds the topmost lower object; null if there is no such object, and for a directory.</summary>
    public RealDirectory? LowerDirectory;

    /// <summary>
    /// The topmost lower object's name in <see cref="LowerDirectory"/>, with its NUL; null means the name that was looked up.
    /// </summary>
    public byte[]? LowerName;

    /// <summary>The attributes of the topmost lower object, if there is one.</summary>
    public Statx LowerStat;

    /// <summary>For a directory: every lower directory that shows through, topmost first.</summary>
    public RealDirectory[] Lowers;

    /// <summary>The upper directory's redirect, without a NUL; null if it has none.</summary>
    public byte[]? Redirect;

    /// <summary>Whether the upper directory is opaque.</summary>
    public bool IsOpaque;

    /// <summary>Whether the upper directory is impure.</summary>
    public bool IsImpure;

    /// <summary>What the protattr attribute in upper forbids.</summary>
    public Protection Protection;

    /// <summary>The file that holds the data of a metacopy; null if the object is no metacopy.</summary>
    public RealName? Metacopy;

    /// <summary>Whether the origin attribute in upper leads to a lower object that exists.</summary>
    public bool HasOrigin;

    /// <summary>The origin's device.</summary>
    public ulong OriginDevice;

    /// <summary>The origin's inode number.</summary>
    public ulong OriginIno;
}
