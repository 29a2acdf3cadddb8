using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Upper;

/// <summary>Makes whiteouts in the form that upper's filesystem takes.</summary>
internal static class Whiteout
{
    /// <summary>Makes a whiteout. A file may only be made in work, a device in any directory.</summary>
    /// <remarks>
    /// Crash safety. A device is made by one system call. A file takes two: killed between them, it is an ordinary empty file.
    /// </remarks>
    /// <param name="directory">A descriptor of the directory.</param>
    /// <param name="name">The name, with its NUL.</param>
    /// <param name="form">The form of the whiteout.</param>
    /// <param name="xattr">The names of the overlay's attributes in upper.</param>
    public static Errno Make(int directory, ReadOnlySpan<byte> name, WhiteoutForm form, OverlayXattr xattr) =>
        form == WhiteoutForm.Device
            ? Libc.MakeNodeAt(directory, name, FileType.CharacterDevice, 0)
            : MakeFile(directory, name, xattr);

    /// <summary>Makes a whiteout as a file. After an error the name does not exist.</summary>
    /// <param name="directory">A descriptor of the directory.</param>
    /// <param name="name">The name, with its NUL.</param>
    /// <param name="xattr">The names of the overlay's attributes in upper.</param>
    public static Errno MakeFile(int directory, ReadOnlySpan<byte> name, OverlayXattr xattr)
    {
        Errno error = Libc.MakeNodeAt(directory, name, FileType.Regular | 0x180, 0);
        if (error.IsError) { return error; }
        error = Libc.SetXattrAt(directory, name, xattr.Whiteout, "y"u8, XattrFlags.None);
        if (error.IsError) { _ = Libc.UnlinkAt(directory, name); } // best effort: the next mount empties work
        return error;
    }

    /// <summary>
    /// Marks a directory of upper in which files may be whiteouts, before the first one gets a name there. Whoever lists a directory
    /// looks for such whiteouts only if it has the mark.
    /// </summary>
    /// <param name="directory">A descriptor of the directory.</param>
    /// <param name="form">The form of whiteouts in upper. Devices need no mark.</param>
    /// <param name="xattr">The names of the overlay's attributes in upper.</param>
    public static Errno Announce(int directory, WhiteoutForm form, OverlayXattr xattr)
    {
        if (form == WhiteoutForm.Device) { return Errno.None; }
        Span<byte> value = stackalloc byte[1];
        Errno known = Libc.GetXattrAt(directory, Libc.Self, xattr.Opaque, value, out int length);
        // An opaque directory ("y") needs no mark: a whiteout there covers nothing, and is removed again.
        if (!known.IsError && length == 1 && value[0] is (byte)'x' or (byte)'y') { return Errno.None; }
        return Libc.SetXattrAt(directory, Libc.Self, xattr.Opaque, "x"u8, XattrFlags.None);
    }
}
