using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Upper;

/// <summary>Finds out whether a name in upper, with the inode number of a known file, is another name of that file.</summary>
/// <remarks>
/// It may also be another file with the same number, if upper's filesystem passes on the numbers of other filesystems, as FUSE
/// and the shares of hypervisors do. A link tells the two cases apart on every filesystem: a new link to the known file raises
/// the link count under the name only if both are one file. See ADR 18.
/// <para>
/// Crash safety. The link is made in work, which the next mount empties.
/// </para>
/// </remarks>
/// <param name="tree">The tree of the overlay.</param>
/// <param name="upper">Upper, as it is written.</param>
/// <param name="log">Tells, once, that the filesystem gives several files one number.</param>
internal sealed class SameFile(ObjectTree tree, UpperLayer upper, Action<string> log)
{
    private int isLogged;

    /// <summary>
    /// Checks a name, and gives it to the known file if it is one of its names. Caller holds no lock, and a reference to the inode.
    /// </summary>
    /// <param name="inode">The known file.</param>
    /// <param name="parent">The directory of the name, which is in upper.</param>
    /// <param name="name">The name, with its NUL.</param>
    /// <param name="version">The version of the directory before the name was found.</param>
    /// <param name="found">The attributes that were found under the name.</param>
    /// <returns>
    /// <see cref="Errno.EAGAIN"/> when the name must be looked up again. <see cref="Errno.EIO"/> when it is another file, or may be.
    /// </returns>
    public Errno Check(Inode inode, DirectoryInode parent, ReadOnlySpan<byte> name, int version, in Statx found)
    {
        using (tree.RenameLock.Exclude()) // no link is made meanwhile, to either file
        {
            if (tree.Inodes.VersionOf(parent) != version || !inode.HasUpper) { return Errno.EAGAIN; }
            Errno error = tree.Objects.Of(parent.Upper!, Libc.Self, out RealReference directory);
            if (error.IsError) { return error; }
            using (directory)
            {
                error = tree.Objects.ResolveLocked(inode, out RealReference known);
                if (error.IsError) { return error; }
                using (known)
                {
                    if (Libc.StatAnew(known.Directory, known.Name, StatxMask.Basic, out Statx now).IsError || now.Ino != found.Ino)
                    {
                        tree.Inodes.Unhash(inode); // the number now belongs to another file
                        return Errno.EAGAIN;
                    }
                    if (IsSame(known, directory.Directory, name))
                    {
                        tree.Aliases.Add(inode, parent, name, isUpper: true);
                        return Errno.None;
                    }
                }
            }
        }
        if (Interlocked.Exchange(ref isLogged, 1) == 0)
        {
            log($"veneer: the filesystem of the upper directory {upper.Path} gives several files one inode number, such as "
                + $"{PathText.PrintableAscii(name[..^1])} and one that is in use: what cannot be told from it gives EIO. "
                + "Put upper where each file has a number of its own");
        }
        return Errno.EIO;
    }

    /// <summary>Whether a new link to the known file shows in the link count under the name.</summary>
    /// <remarks>
    /// It tries again if the count is wrong: links are only made under the rename lock, but names in work are unlinked at any time.
    /// </remarks>
    private bool IsSame(in RealReference known, int directory, ReadOnlySpan<byte> name)
    {
        const int tries = 3;
        Span<byte> space = stackalloc byte[WorkDirectory.NameLength];
        for (int i = 0; i < tries; i++)
        {
            if (Libc.StatAnew(directory, name, StatxMask.Basic, out Statx before).IsError) { return false; }
            Errno error;
            Statx after;
            using (var link = new Temporary(upper.Work!, space))
            {
                error = known.Name.Length > 1
                    ? Libc.LinkAt(known.Directory, known.Name, link.Directory, link.Name)
                    : Libc.LinkDescriptor(known.Directory, link.Directory, link.Name);
                if (error.IsError) { return false; }
                error = Libc.StatAnew(directory, name, StatxMask.Basic, out after);
            }
            if (error.IsError) { return false; }
            if (after.Nlink == before.Nlink + 1) { return true; }
        }
        return false;
    }
}
