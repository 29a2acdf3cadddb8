using Veneer.Linux;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Lookup;

/// <summary>Tells which of a directory's lowers is the first with an object or a whiteout under a name.</summary>
/// <remarks>
/// Images have dozens of layers, and most names are in one of them: without this, each lookup asks all layers above that
/// one. Lower layers do not change, so the answers stay true. The answer may be a layer that lacks the name, since two names
/// may have the same hash; the layers above it certainly lack the name.
/// </remarks>
internal sealed class LowerNames
{
    /// <summary>The most names that are read. Larger directories are asked name by name, which bounds memory and reading time.</summary>
    private const int MaxNames = 16 << 10;

    private readonly Dictionary<ulong, short> firsts = [];

    private LowerNames() { }

    /// <summary>The first of the lowers that can have the name, or -1 when none has.</summary>
    /// <param name="name">With its NUL.</param>
    public int FirstOf(ReadOnlySpan<byte> name) => firsts.TryGetValue(NameHash.Secret.Of(name), out short first) ? first : -1;

    /// <summary>Reads all lowers of a directory.</summary>
    /// <param name="reader">Lends the descriptors of the lowers.</param>
    /// <param name="lowers">The lowers, topmost first.</param>
    /// <returns>Null when the lowers cannot be read, have too many names, or find names that they do not list.</returns>
    public static LowerNames? Read(LayerReader reader, RealDirectory[] lowers)
    {
        var names = new LowerNames();
        for (short i = 0; i < lowers.Length; i++)
        {
            if (reader.Borrow(lowers[i], out BorrowedDirectory borrowed).IsError) { return null; }
            using (borrowed)
            {
                if (!names.TryAdd(borrowed.Descriptor, i)) { return null; }
            }
        }
        return names;
    }

    private bool TryAdd(int directory, short lower)
    {
        const OpenFlags flags = OpenFlags.ReadOnly | OpenFlags.Directory;
        Errno error = Libc.OpenAt(directory, ".\0"u8, flags | OpenFlags.NoAccessTime, 0, ResolveFlags.Confined, out int descriptor);
        // Only the owner may ask for O_NOATIME.
        if (error == Errno.EPERM) { error = Libc.OpenAt(directory, ".\0"u8, flags, 0, ResolveFlags.Confined, out descriptor); }
        if (error.IsError) { return false; }
        var reader = new DirectoryReader(descriptor);
        try
        {
            bool isEmpty = true, isExact = false;
            while (reader.MoveNext())
            {
                if (firsts.Count == MaxNames) { return false; }
                firsts.TryAdd(NameHash.Secret.Of(reader.TerminatedName), lower);
                isEmpty = false;
                isExact = isExact || IsExact(descriptor, reader.TerminatedName);
            }
            return !reader.Error.IsError && (isEmpty || isExact);
        }
        finally
        {
            reader.Dispose();
            Libc.Close(descriptor);
        }
    }

    /// <summary>Whether a directory finds names only as they are written, judged by one name. False when the name has no letter.</summary>
    /// <remarks>Directories that ignore case (vfat, casefold of ext4 and tmpfs) find names that they do not list.</remarks>
    private static bool IsExact(int directory, ReadOnlySpan<byte> name)
    {
        int letter = name.IndexOfAnyInRange((byte)'a', (byte)'z');
        if (letter < 0) { letter = name.IndexOfAnyInRange((byte)'A', (byte)'Z'); }
        Span<byte> other = stackalloc byte[256];
        if (letter < 0 || name.Length > other.Length) { return false; }
        name.CopyTo(other);
        other[letter] ^= 0x20;
        Errno error = Libc.StatAt(directory, other[..name.Length], StatxMask.Basic, out Statx found);
        // The inode number that readdir(3) gives cannot be compared: vfat makes one up for an entry that is in no cache.
        return error == Errno.ENOENT
            || (!error.IsError && !Libc.StatAt(directory, name, StatxMask.Basic, out Statx stat).IsError && found.Ino != stat.Ino);
    }
}
