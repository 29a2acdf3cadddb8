using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Tree;

namespace Veneer.Overlay.Upper;

/// <summary>Whether a name in upper that has the number of a known file is one more name of it.</summary>
/// <remarks>
/// Where upper's filesystem passes on the numbers of others (FUSE, what a hypervisor shares), it may as well be another file
/// of the same number. What tells them apart everywhere is a link: a name more of the one is seen at the other, or not.
/// <para>
/// Crash safety. The link is made in work, which the next mount empties.
/// </para>
/// </remarks>
internal sealed class SameFile(ObjectTree tree, UpperLayer upper, Action<string> log)
{
    private int isLogged;

    /// <summary>Asks upper. Caller holds no lock, and a reference to the inode.</summary>
    /// <param name="inode">The file that is known by the number.</param>
    /// <param name="parent">The directory of the name, in upper.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="version">The directory's version before the name was found.</param>
    /// <param name="found">What was found there.</param>
    /// <returns><see cref="Errno.EAGAIN"/> when it is to be found again; <see cref="Errno.EIO"/> when it is another file, or may be.</returns>
    public Errno Check(Inode inode, DirectoryInode parent, ReadOnlySpan<byte> name, int version, in Statx found)
    {
        using (tree.RenameLock.Exclude()) // nobody gives either of them a name meanwhile
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
                        tree.Inodes.Unhash(inode); // the number was its own, and is another one's now
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
            log($"veneer: the filesystem of the upper directory {upper.Path} gives several files one inode number, such as {Text.Printable(name[..^1])} and one that is in use: what cannot be told from it gives EIO. Put upper where each file has a number of its own");
        }
        return Errno.EIO;
    }

    /// <remarks>Links are made under the rename lock only, but what is in work goes at any time.</remarks>
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
