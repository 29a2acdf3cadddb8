using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Upper;

/// <summary>Makes whiteouts, in the form that upper's filesystem takes.</summary>
internal static class Whiteout
{
    /// <summary>Makes one in work, or as a device wherever it is needed.</summary>
    /// <param name="directory">Where.</param>
    /// <param name="name">With its NUL.</param>
    /// <param name="form">As a device it is there whole or not at all; as a file it is whole when this has returned.</param>
    /// <param name="xattr">Names of upper's attributes.</param>
    public static Errno Make(int directory, ReadOnlySpan<byte> name, WhiteoutForm form, OverlayXattr xattr) =>
        form == WhiteoutForm.Device ? Libc.MakeNodeAt(directory, name, FileType.CharacterDevice, 0) : MakeFile(directory, name, xattr);

    /// <summary>Makes one as a file; after an error there is nothing under the name.</summary>
    public static Errno MakeFile(int directory, ReadOnlySpan<byte> name, OverlayXattr xattr)
    {
        Errno error = Libc.MakeNodeAt(directory, name, FileType.Regular | 0x180, 0);
        if (error.IsError) { return error; }
        error = Libc.SetXattrAt(directory, name, xattr.Whiteout, "y"u8, XattrFlags.None);
        if (error.IsError) { _ = Libc.UnlinkAt(directory, name); } // best effort: the next mount empties work
        return error;
    }

    /// <summary>Says on a directory of upper that files in it may be whiteouts, before the first gets a name there: whoever lists it looks for them only then.</summary>
    public static Errno Announce(int directory, WhiteoutForm form, OverlayXattr xattr)
    {
        if (form == WhiteoutForm.Device) { return Errno.None; }
        Span<byte> value = stackalloc byte[1];
        Errno known = Libc.GetXattrAt(directory, Libc.Self, xattr.Opaque, value, out int length);
        // Where nothing below shows through, a whiteout is on its way out again.
        if (!known.IsError && length == 1 && value[0] is (byte)'x' or (byte)'y') { return Errno.None; }
        return Libc.SetXattrAt(directory, Libc.Self, xattr.Opaque, "x"u8, XattrFlags.None);
    }
}
