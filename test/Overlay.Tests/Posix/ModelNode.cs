using Veneer.Linux;

namespace Veneer.Overlay.Tests.Posix;

/// <summary>A name in a tree.</summary>
/// <param name="Path">The path from the root, without a slash at its beginning.</param>
/// <param name="Parent">The directory that has the name.</param>
/// <param name="Name">The name.</param>
/// <param name="Node">What has it.</param>
internal readonly record struct Named(string Path, ModelNode Parent, string Name, ModelNode Node);

/// <summary>An object of a plain POSIX tree, in memory.</summary>
internal sealed class ModelNode(uint type)
{
    public uint Type { get; } = type;
    public uint Mode;
    public uint Uid, Gid, Rdev;
    /// <summary>What a regular file holds.</summary>
    public byte[] Content = [];
    /// <summary>The target of a symbolic link.</summary>
    public string Target = "";
    public readonly SortedDictionary<string, byte[]> Xattrs = new(StringComparer.Ordinal);
    /// <summary>The entries of a directory.</summary>
    public readonly SortedDictionary<string, ModelNode> Children = new(StringComparer.Ordinal);
    /// <summary>The names that a directory once had.</summary>
    public readonly SortedSet<string> Former = new(StringComparer.Ordinal);
    /// <summary>The names under which a directory once had another one that a lower has.</summary>
    public readonly SortedSet<string> Buried = new(StringComparer.Ordinal);
    /// <summary>Of anything but a directory.</summary>
    public uint Nlink = 1;
    /// <summary>Null once a change has made it the present time.</summary>
    public (ulong Seconds, uint Nanoseconds)? ModifyTime;
    /// <summary>The inode number that was seen first; 0 before.</summary>
    public ulong Ino;
    /// <summary>A directory that was made in the overlay, so that nothing is below it.</summary>
    public bool IsMade;
    /// <summary>st_nlink in the lower layer, for a file that has several names there; else 0.</summary>
    public uint LowerNlink;

    public bool IsDirectory => Type == FileType.Directory;
    public bool IsRegular => Type == FileType.Regular;
    public bool IsSymbolicLink => Type == FileType.SymbolicLink;
    public bool TakesUserAttributes => IsDirectory || IsRegular;

    /// <summary>Every name in the tree, but that of the root, which has none.</summary>
    public IEnumerable<Named> Walk(string path = "")
    {
        foreach ((string name, ModelNode child) in Children)
        {
            string childPath = path.Length == 0 ? name : $"{path}/{name}";
            yield return new Named(childPath, this, name, child);
            if (child.IsDirectory)
            {
                foreach (Named inner in child.Walk(childPath)) { yield return inner; }
            }
        }
    }

    /// <summary>Whether a directory is this one or below it.</summary>
    public bool Contains(ModelNode other) =>
        ReferenceEquals(this, other) || Children.Values.Any(child => child.IsDirectory && child.Contains(other));
}
