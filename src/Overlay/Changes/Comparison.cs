using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Lookup;

namespace Veneer.Overlay.Changes;

/// <summary>Compares an object with the one that the baseline has.</summary>
internal sealed class Comparison(LayerSet layers)
{
    private readonly byte[] ours = new byte[128 * 1024];
    private readonly byte[] theirs = new byte[128 * 1024];

    /// <summary>Compares two objects of the same type.</summary>
    /// <param name="step">The present object.</param>
    /// <param name="was">The object of the baseline.</param>
    /// <param name="content">Whether the content differs.</param>
    /// <param name="attributes">Whether the attributes differ.</param>
    /// <returns>The error that prevented the comparison; <see cref="Errno.ESTALE"/> when the object changed meanwhile.</returns>
    public Errno Run(Step step, Baseline was, out bool content, out bool attributes)
    {
        content = false;
        Statx now = step.Found.Stat, then = was.Found.Stat;
        attributes = now.Mode != then.Mode || now.Uid != then.Uid || now.Gid != then.Gid;
        Errno error = now.Type switch
        {
            FileType.Regular => CompareData(step, was, out content),
            FileType.SymbolicLink => CompareTargets(step.Real, was.Real, out content),
            _ => Errno.None,
        };
        if (now.Type is FileType.CharacterDevice or FileType.BlockDevice) { content = now.Rdev != then.Rdev; }
        if (error.IsError) { return error; }
        if (!now.IsDirectory && !content && Timestamp.Of(now.ModifyTime) != Timestamp.Of(then.ModifyTime)) { attributes = true; }
        return attributes ? Errno.None : CompareXattrs(step.Real, was.Real, out attributes);
    }

    private Errno CompareData(Step step, Baseline was, out bool differ)
    {
        differ = false;
        if (step.Whole.Metacopy is not null) { return Errno.None; } // its data is that of the baseline
        differ = step.Found.Stat.Size != was.Found.Stat.Size;
        if (differ) { return Errno.None; }

        // The object of the baseline may itself be a metacopy, with its data in a layer below.
        Errno error = layers.Lookup.Complete(was.Directory, was.Name, was.Found, out Whole whole);
        if (error.IsError) { return error; }
        error = layers.Open(step.Real, OpenFlags.ReadOnly, out int descriptor);
        if (error.IsError) { return error; }
        using var one = new Fd(descriptor);
        error = layers.Open(whole.Metacopy ?? was.Real, OpenFlags.ReadOnly, out descriptor);
        if (error.IsError) { return error; }
        using var other = new Fd(descriptor);
        long size = (long)step.Found.Stat.Size;
        for (long at = 0; ;)
        {
            // Where both files have a hole, both have zeros.
            at = Math.Min(EndOfHole(one.Value, at, size), EndOfHole(other.Value, at, size));
            error = ReadFully(one.Value, ours, at, out int count);
            if (!error.IsError)
            {
                error = ReadFully(other.Value, theirs, at, out int counted);
                differ = counted != count;
            }
            if (error.IsError) { return error; }
            differ |= !ours.AsSpan(0, count).SequenceEqual(theirs.AsSpan(0, count));
            if (differ || count == 0) { break; }
            at += count;
        }
        // The file may have changed since it was read.
        error = Libc.StatAt(one.Value, Libc.Self, StatxMask.Basic, out Statx now);
        return !error.IsError && Timestamp.Of(now.ChangeTime) != Timestamp.Of(step.Found.Stat.ChangeTime) ? Errno.ESTALE : error;
    }

    /// <summary>
    /// Finds where data begins, from an offset on. Returns the offset itself when it is in data, or holes are not reported.
    /// </summary>
    /// <param name="descriptor">The file; its file offset is changed.</param>
    /// <param name="at">The offset in bytes.</param>
    /// <param name="size">The file's size, which is the answer when there is no more data.</param>
    public static long EndOfHole(int descriptor, long at, long size)
    {
        if (at >= size) { return at; }
        Errno error = Libc.Seek(descriptor, at, SeekWhence.Data, out long data);
        return error == Errno.ENXIO && EndsAt(descriptor, size) ? size : error.IsError ? at : Math.Min(Math.Max(data, at), size);
    }

    /// <summary>
    /// Finds where a hole begins, from an offset in data on. Returns <paramref name="size"/> when there is no hole, or holes
    /// are not reported.
    /// </summary>
    public static long EndOfData(int descriptor, long at, long size) =>
        Libc.Seek(descriptor, at, SeekWhence.Hole, out long hole).IsError || hole <= at ? size : hole;

    /// <summary>
    /// Whether a file is still as large as it was. If it shrank, ENXIO does not mean that a hole reaches to its old end.
    /// </summary>
    private static bool EndsAt(int descriptor, long size) =>
        !Libc.StatAt(descriptor, Libc.Self, StatxMask.Basic, out Statx now).IsError && (long)now.Size >= size;

    /// <summary>Reads until the buffer is full or the file ends.</summary>
    public static Errno ReadFully(int descriptor, Span<byte> buffer, long offset, out int count)
    {
        for (count = 0; count < buffer.Length;)
        {
            Errno error = Libc.ReadAt(descriptor, buffer[count..], offset + count, out int read);
            if (error == Errno.EINTR) { continue; }
            if (error.IsError) { return error; }
            if (read == 0) { break; }
            count += read;
        }
        return Errno.None;
    }

    private Errno CompareTargets(RealName one, RealName other, out bool differ)
    {
        differ = false;
        Errno error = layers.ReadLink(one, out byte[] now);
        if (error.IsError) { return error; }
        error = layers.ReadLink(other, out byte[] then);
        if (error.IsError) { return error; }
        differ = !now.AsSpan().SequenceEqual(then);
        return Errno.None;
    }

    private Errno CompareXattrs(RealName one, RealName other, out bool differ)
    {
        differ = false;
        Errno error = layers.ReadXattrs(one, out SortedDictionary<string, byte[]> now);
        if (error.IsError) { return error; }
        error = layers.ReadXattrs(other, out SortedDictionary<string, byte[]> then);
        if (error.IsError) { return error; }
        differ = now.Count != then.Count
            || now.Any(pair => !then.TryGetValue(pair.Key, out byte[]? value) || !value.AsSpan().SequenceEqual(pair.Value));
        return Errno.None;
    }
}
