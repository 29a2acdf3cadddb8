namespace Veneer.Overlay.Layers;

/// <summary>The form of whiteouts in upper; the kernel knows two.</summary>
internal enum WhiteoutForm
{
    /// <summary>A character device 0:0.</summary>
    Device,
    /// <summary>
    /// An empty regular file with an attribute, in a directory that is marked. Needed where upper itself lies in an overlay.
    /// </summary>
    Attribute,
}

/// <summary>The namespace of the overlay's attributes in upper.</summary>
internal enum AttributeSpace
{
    /// <summary><c>trusted.overlay.*</c>.</summary>
    Trusted,
    /// <summary><c>user.overlay.*</c>.</summary>
    User,
    /// <summary>Upper has no extended attributes.</summary>
    None,
}

/// <summary>What upper's filesystem can do. Features that it lacks are replaced, or refused at the call that needs them.</summary>
internal sealed record UpperFeatures
{
    /// <summary>The features of an overlay without upper.</summary>
    public static readonly UpperFeatures None = new();

    /// <summary>O_TMPFILE. Without it, copies are built under a name in work, and users get EOPNOTSUPP.</summary>
    public bool TemporaryFiles { get; init; }

    /// <summary>RENAME_NOREPLACE. Without it, the name is looked up before the rename.</summary>
    public bool NoReplace { get; init; }

    /// <summary>RENAME_EXCHANGE. Without it, an exchange takes several steps, see <see cref="Upper.Steps"/>.</summary>
    public bool Exchange { get; init; }

    /// <summary>RENAME_WHITEOUT. Without it, such a rename takes several steps, see <see cref="Upper.Steps"/>.</summary>
    public bool RenameWhiteout { get; init; }

    /// <summary>Hard links. Without them, a copy gets its name by a rename, and link(2) fails.</summary>
    public bool Links { get; init; }

    /// <summary>
    /// Whether unlinking an open file leaves nothing in its directory. If not, it is moved to work and unlinked there: libfuse
    /// and NFS would give it another name in its place.
    /// </summary>
    public bool UnlinksOpenFilesAtOnce { get; init; }

    /// <summary>The form of whiteouts.</summary>
    public WhiteoutForm Whiteouts { get; init; }

    /// <summary>The namespace of the overlay's attributes.</summary>
    public AttributeSpace Attributes { get; init; }

    /// <summary>Whether a directory can be marked opaque. If not, whiteouts for everything below stand in for the mark.</summary>
    public bool HasOpaque => Attributes != AttributeSpace.None;

    /// <summary>The features that are missing, by the names that <c>veneer status</c> has for them, and what replaces each.</summary>
    /// <param name="isUserChosen">Whether user attributes were chosen without being asked for.</param>
    public IReadOnlyList<(string What, string Instead)> Lacks(bool isUserChosen)
    {
        var lacks = new List<(string, string)>();
        if (isUserChosen) { lacks.Add(("trusted.overlay.* attributes", "user.overlay.* ones")); }
        if (Attributes == AttributeSpace.None)
        {
            lacks.Add(("attributes", "whiteouts for opaque; no redirects, metacopies, persistent inode numbers or volatile"));
        }
        if (Whiteouts == WhiteoutForm.Attribute) { lacks.Add(("whiteout devices", "empty files with the attribute overlay.whiteout")); }
        if (!Exchange) { lacks.Add(("RENAME_EXCHANGE", "several steps, noted in work")); }
        if (!RenameWhiteout) { lacks.Add(("RENAME_WHITEOUT", "several steps, noted in work")); }
        if (!NoReplace) { lacks.Add(("RENAME_NOREPLACE", "a look before the rename")); }
        if (!TemporaryFiles) { lacks.Add(("O_TMPFILE", "a name in work; EOPNOTSUPP for users")); }
        if (!Links) { lacks.Add(("hard links", "a rename; EPERM or the like for users")); }
        if (!UnlinksOpenFilesAtOnce) { lacks.Add(("unlinking open files without a trace", "a rename to work before")); }
        return lacks;
    }
}
