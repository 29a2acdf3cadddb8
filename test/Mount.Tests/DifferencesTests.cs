using static Veneer.Mount.Tests.BesideTheKernel;

namespace Veneer.Mount.Tests;

/// <summary>Rows of the other sections of docs/differences.md: what the kernel answers, and what Veneer does.</summary>
/// <remarks>Rows that need more than a few lines have tests where their subject is.</remarks>
public sealed class DifferencesTests
{
    // Without effect on users.

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void Numbers_of_what_was_copied_up_where_work_is_immutable() => Compare("as before", "of the copy", overlay =>
    {
        Sys.Append(overlay.Merged / "file", "!");
        ulong before = Sys.Stat(overlay.Merged / "file").Ino;
        try
        {
            overlay.Remount(() => Command.Require("chattr", "+i", overlay.Work));
            ulong now = Sys.Stat(overlay.Merged / "file").Ino;
            overlay.Unmount();
            return now == before ? "as before" : now == Sys.Stat(overlay.Upper / "file").Ino ? "of the copy" : "another";
        }
        finally
        {
            Command.Require("chattr", "-i", overlay.Work);
        }
    }, Tree.Of(("file", "x")), on: Filesystem.Ext4);

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void The_uuid_of_a_new_upper() =>
        Compare("True", "False", overlay => $"{Sys.HasXattr(overlay.Upper, "trusted.overlay.uuid")}", on: Filesystem.Ext4);

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void The_longest_name_where_a_lower_allows_longer_ones() =>
        CompareOverSquashfs("256", "255", overlay => $"{Sys.StatFileSystem(overlay.Merged).NameLength}");

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void Holes_of_a_copy() => Compare("12288, after more than the data", "12288, after the data", overlay =>
    {
        Sys.Append(overlay.Merged / "file", "");
        using Descriptor copy = Sys.Open(overlay.Upper / "file", OpenFlags.ReadOnly);
        return
            $"{copy.Seek(0, SeekWhence.Data)}, "
            + $"{(copy.Seek(12288, SeekWhence.Hole) == 16384 ? "after the data" : "after more than the data")}";
    }, Tree.Of(("file", Node.Sparse(12288, "data", 4 << 20))), on: Filesystem.Ext4);

    // Uppers that lack something.

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void A_file_with_an_access_list_where_upper_has_no_attributes() => Compare("None", "EOPNOTSUPP", overlay =>
        Said(() => Sys.Append(overlay.Merged / "file", "!")),
        Tree.Of(("file", Node.File("x").Attribute(
            "system.posix_acl_access", Acl.Of(owner: 6, user: (1001, 6), group: 4, mask: 6, other: 4)))),
        upperOn: UpperOn.Ramfs);

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void An_upper_whose_whiteouts_are_files() => Compare("gone ENOENT", " ENOENT", overlay =>
        $"{string.Join(' ', (overlay.Merged / "d").Entries())} {Said(() => Sys.Stat(overlay.Merged / "d/gone"))}",
        Tree.Of(("d/gone", "")),
        Tree.Of(("d", Node.Directory().Attribute("trusted.overlay.opaque", "x")),
            ("d/gone", Node.File().Attribute("trusted.overlay.whiteout", "y"))));

    // Not there yet.

    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void Whiteouts_of_AUFS_are_ordinary_files() =>
        Compare(".wh.file d file, .wh..wh..opq x", ".wh.file d file, .wh..wh..opq x", overlay =>
            $"{string.Join(' ', overlay.Merged.Entries())}, {string.Join(' ', (overlay.Merged / "d").Entries())}",
            Tree.Of(("file", ""), ("d/x", "")), Tree.Of((".wh.file", ""), ("d/.wh..wh..opq", "")));
}
