namespace Veneer.Overlay.Format;

/// <summary>Paths from a root, as bytes: names with a slash between each two, without a NUL; empty for the root itself.</summary>
internal static class NamePath
{
    /// <summary>The path of a name in a directory.</summary>
    /// <param name="directory">The path of the directory.</param>
    /// <param name="name">Without its NUL. It may be a path from the directory.</param>
    public static byte[] Join(byte[] directory, ReadOnlySpan<byte> name) =>
        directory.Length == 0 ? name.ToArray() : [.. directory, (byte)'/', .. name];

    /// <summary>The path that leads through several names.</summary>
    /// <param name="names">The names from the object up to below the root, each with its NUL.</param>
    public static byte[] FromLowest(List<byte[]> names)
    {
        byte[] path = new byte[Math.Max(0, names.Sum(name => name.Length) - 1)]; // a slash replaces each NUL but the last
        int length = 0;
        for (int i = names.Count - 1; i >= 0; i--)
        {
            ReadOnlySpan<byte> name = names[i].AsSpan(..^1);
            name.CopyTo(path.AsSpan(length));
            length += name.Length;
            if (i > 0) { path[length++] = (byte)'/'; }
        }
        return path;
    }
}
