namespace Veneer.Overlay.Layers;

/// <summary>In which of the kernel's two forms upper holds whiteouts.</summary>
internal enum WhiteoutForm
{
    /// <summary>A character device 0:0.</summary>
    Device,
    /// <summary>An empty regular file with an attribute, in a directory that is marked. An overlay takes no others as a layer of its own.</summary>
    Attribute,
}

/// <summary>Which attributes upper holds for the overlay.</summary>
internal enum AttributeSpace
{
    /// <summary><c>trusted.overlay.*</c>.</summary>
    Trusted,
    /// <summary><c>user.overlay.*</c>.</summary>
    User,
    /// <summary>None at all.</summary>
    None,
}

/// <summary>What the upper's filesystem can do. What it cannot is done in another way, or refused at the call that needs it.</summary>
internal sealed record UpperFeatures
{
    /// <summary>Of an overlay without an upper.</summary>
    public static readonly UpperFeatures None = new();

    /// <summary>O_TMPFILE. Else copies are built under a name in work, and users get EOPNOTSUPP.</summary>
    public bool TemporaryFiles { get; init; }

    /// <summary>RENAME_NOREPLACE. Else it is looked whether there is such a name.</summary>
    public bool NoReplace { get; init; }

    /// <summary>RENAME_EXCHANGE. Else it takes several steps, see <see cref="Upper.Steps"/>.</summary>
    public bool Exchange { get; init; }

    /// <summary>RENAME_WHITEOUT. Else it takes several steps, see <see cref="Upper.Steps"/>.</summary>
    public bool RenameWhiteout { get; init; }

    /// <summary>Hard links. Else a copy gets its name by a rename, and link(2) fails.</summary>
    public bool Links { get; init; }

    /// <summary>Whether nothing is left in the directory of an open file that is unlinked. Else it is unlinked in work: libfuse and NFS give it another name where it was.</summary>
    public bool ForgetsNames { get; init; }

    /// <summary>What whiteouts are.</summary>
    public WhiteoutForm Whiteouts { get; init; }

    /// <summary>Where the overlay's attributes are.</summary>
    public AttributeSpace Attributes { get; init; }

    /// <summary>Whether a directory can be marked as opaque. Else whiteouts for all that lies below stand in for the mark.</summary>
    public bool HasOpaque => Attributes != AttributeSpace.None;

    /// <summary>What is not there, by the names that <c>veneer status</c> has for it, and what stands in its place.</summary>
    /// <param name="isUserChosen">Whether the user's attributes were chosen though nobody asked for them.</param>
    public IReadOnlyList<(string What, string Instead)> Lacks(bool isUserChosen)
    {
        var lacks = new List<(string, string)>();
        if (isUserChosen) { lacks.Add(("trusted.overlay.* attributes", "user.overlay.* ones")); }
        if (Attributes == AttributeSpace.None) { lacks.Add(("attributes", "whiteouts for opaque; no redirects, metacopies, persistent inode numbers or volatile")); }
        if (Whiteouts == WhiteoutForm.Attribute) { lacks.Add(("whiteout devices", "empty files with the attribute overlay.whiteout")); }
        if (!Exchange) { lacks.Add(("RENAME_EXCHANGE", "several steps, noted in work")); }
        if (!RenameWhiteout) { lacks.Add(("RENAME_WHITEOUT", "several steps, noted in work")); }
        if (!NoReplace) { lacks.Add(("RENAME_NOREPLACE", "a look before the rename")); }
        if (!TemporaryFiles) { lacks.Add(("O_TMPFILE", "a name in work; EOPNOTSUPP for users")); }
        if (!Links) { lacks.Add(("hard links", "a rename; EPERM or the like for users")); }
        if (!ForgetsNames) { lacks.Add(("unlinking open files without a trace", "a rename to work before")); }
        return lacks;
    }
}
