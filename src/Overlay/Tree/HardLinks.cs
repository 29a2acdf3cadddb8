namespace Veneer.Overlay.Tree;

/// <summary>What is known of a file that has several names in a lower layer.</summary>
/// <remarks>
/// A copy-up would break a lower hard link: one name would lead to the copy, and the others to the lower file. So all names stay
/// one inode while the overlay is mounted: each name that the kernel knows is linked to the copy before the first write.
/// </remarks>
internal sealed class HardLinks(uint count)
{
    /// <summary>
    /// What users see as st_nlink. Changed by LINK, UNLINK and RENAME, during which the kernel holds its own lock of the file.
    /// </summary>
    public uint Count = count;

    /// <summary>
    /// The key of the lower object for which <see cref="AliasTable"/> retains the inode, or null. Protected by the table.
    /// </summary>
    public RealKey? RetainedUnder;
}
