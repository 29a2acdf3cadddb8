using Veneer.Linux;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Lookup;

/// <summary>Which of a directory's lowers is the first that has anything under a name, be it a whiteout.</summary>
/// <remarks>
/// Images have dozens of layers, and most names are in one of them: without this each lookup asks all that lie above.
/// Lower layers do not change, so it stays true. It is a hint only in one direction: a layer that is named may not have
/// the name after all (two names with one hash), one above it has it never.
/// </remarks>
internal sealed class LowerNames
{
    /// <summary>Larger directories are asked name by name, as a bound to memory and to the time that the reading takes.</summary>
    private const int MaxNames = 16 << 10;

    private readonly Dictionary<ulong, short> firsts = [];

    private LowerNames() { }

    /// <summary>The first of the lowers that can have the name, or -1 when none has.</summary>
    /// <param name="name">With its NUL.</param>
    public int FirstOf(ReadOnlySpan<byte> name) => firsts.TryGetValue(NameHash.Secret.Of(name), out short first) ? first : -1;

    /// <summary>Reads all lowers of a directory.</summary>
    /// <param name="directories">Where their descriptors are.</param>
    /// <param name="lowers">The lowers, topmost first.</param>
    /// <returns>Null when they cannot be read, have too many names, or find names that they do not list.</returns>
    public static LowerNames? Read(DirectoryCache directories, RealDirectory[] lowers)
    {
        var names = new LowerNames();
        for (short i = 0; i < lowers.Length; i++)
        {
            if (directories.Borrow(lowers[i], out BorrowedDirectory borrowed).IsError) { return null; }
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

    /// <summary>Whether a directory finds a name as it is written only, as far as this name tells; false when it has no letter.</summary>
    /// <remarks>Others exist (vfat, casefold of ext4 and tmpfs), and find what they do not list.</remarks>
    private static bool IsExact(int directory, ReadOnlySpan<byte> name)
    {
        int letter = name.IndexOfAnyInRange((byte)'a', (byte)'z');
        if (letter < 0) { letter = name.IndexOfAnyInRange((byte)'A', (byte)'Z'); }
        Span<byte> other = stackalloc byte[256];
        if (letter < 0 || name.Length > other.Length) { return false; }
        name.CopyTo(other);
        other[letter] ^= 0x20;
        Errno error = Libc.StatAt(directory, other[..name.Length], StatxMask.Basic, out Statx found);
        // Not what readdir(3) says of the number: vfat makes one up for what is in no cache.
        return error == Errno.ENOENT || (!error.IsError && !Libc.StatAt(directory, name, StatxMask.Basic, out Statx stat).IsError && found.Ino != stat.Ino);
    }
}
