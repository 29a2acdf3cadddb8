using System.Text;
using FsCheck;
using FsCheck.Fluent;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Tests.Format;

/// <summary>
/// Values as kernel overlayfs wrote them (Linux 6.18, ext4 with UUID 01234567-89ab-cdef-0123-456789abcdef), and round trips.
/// </summary>
public sealed class FormatTests
{
    /// <summary>Of inode 32389 = 0x7e85, generation 0xa382cdfe.</summary>
    private static readonly byte[] KernelOrigin = Convert.FromHexString("00fb1d00010123456789abcdef0123456789abcdef857e0000fecd82a3");

    private static readonly byte[] Uuid = Convert.FromHexString("0123456789abcdef0123456789abcdef");

    [Fact]
    public void An_origin_of_the_kernel_is_read()
    {
        Assert.True(OriginHandle.TryDecode(KernelOrigin, out FileHandle handle, out ReadOnlySpan<byte> uuid));

        Assert.Equal(Uuid, uuid.ToArray());
        Assert.Equal(1, handle.Type);
        Assert.Equal(Convert.FromHexString("857e0000fecd82a3"), handle.Content.ToArray());
    }

    [Fact]
    public void An_origin_is_written_as_the_kernel_writes_it()
    {
        Span<byte> value = new byte[OriginHandle.MaxLength];

        int length = OriginHandle.Encode(new FileHandle(1, Convert.FromHexString("857e0000fecd82a3")), Uuid, value);

        Assert.Equal(KernelOrigin, value[..length].ToArray());
    }

    [Fact]
    public void Every_handle_comes_back_as_it_was() => Prop.ForAll<byte, byte[]>((type, content) =>
    {
        if (content.Length is 0 or > FileHandle.MaxLength) { return; }
        Span<byte> value = new byte[OriginHandle.MaxLength];
        int length = OriginHandle.Encode(new FileHandle(type, content), Uuid, value);
        Assert.True(OriginHandle.TryDecode(value[..length], out FileHandle handle, out ReadOnlySpan<byte> uuid));
        Assert.Equal(type, handle.Type);
        Assert.Equal(content, handle.Content.ToArray());
        Assert.Equal(Uuid, uuid.ToArray());
    }).QuickCheckThrowOnFailure();

    [Theory]
    [InlineData("", "empty: copied up, origin unknown")]
    [InlineData("00fb1d00010123456789abcdef0123456789abcdef", "cut off behind the UUID")]
    [InlineData("00fb1e00010123456789abcdef0123456789abcdef857e0000fecd82a3", "says that it is longer than it is")]
    [InlineData("01fb1d00010123456789abcdef0123456789abcdef857e0000fecd82a3", "a newer version")]
    [InlineData("00fc1d00010123456789abcdef0123456789abcdef857e0000fecd82a3", "another magic")]
    [InlineData("00fb1d01010123456789abcdef0123456789abcdef857e0000fecd82a3", "the other byte order")]
    [InlineData("00fb1d80010123456789abcdef0123456789abcdef857e0000fecd82a3", "an unknown flag")]
    [InlineData("00fb1500010123456789abcdef0123456789abcdef857e0000fecd82a3", "no room for a handle")]
    public void An_origin_that_says_nothing_is_unknown(string hex, string why) =>
        Assert.False(OriginHandle.TryDecode(Convert.FromHexString(hex), out _, out _), why);

    [Fact]
    public void No_bytes_at_all_break_the_reading_of_an_origin() =>
        Prop.ForAll<byte[]>(value => { _ = OriginHandle.TryDecode(value, out _, out _); }).QuickCheckThrowOnFailure();

    [Theory]
    [InlineData("d", true)]
    [InlineData("/e", true)]
    [InlineData("/a/b/c", true)]
    [InlineData("...", true)]
    [InlineData("", false)]
    [InlineData("/", false)]
    [InlineData("a/b", false)]
    [InlineData("//a", false)]
    [InlineData("/a//b", false)]
    [InlineData("/a/", false)]
    [InlineData("a\0b", true)]
    [InlineData("/a/\0", false)]
    public void A_redirect_is_a_name_or_a_path_of_names(string value, bool valid) =>
        Assert.Equal(valid, Redirect.TryRead(Encoding.UTF8.GetBytes(value), out _));

    [Theory]
    [InlineData("a\0/b", "a")]
    [InlineData("/a/b\0\0", "/a/b")]
    [InlineData("\0", "")]
    public void A_redirect_ends_at_a_NUL(string value, string read)
    {
        Assert.True(Redirect.TryRead(Encoding.UTF8.GetBytes(value), out ReadOnlySpan<byte> redirect));
        Assert.Equal(read, Encoding.UTF8.GetString(redirect));
    }

    [Theory]
    [InlineData(false, "user.x", "user.x")]
    [InlineData(false, "user.overlay.opaque", "user.overlay.opaque")]
    [InlineData(false, "trusted.overlay.opaque", "trusted.overlay.overlay.opaque")]
    [InlineData(false, "trusted.overlay.overlay.x", "trusted.overlay.overlay.overlay.x")]
    [InlineData(true, "user.overlay.opaque", "user.overlay.overlay.opaque")]
    [InlineData(true, "trusted.overlay.opaque", "trusted.overlay.opaque")]
    public void A_users_attribute_is_stored_under_its_escaped_name(bool userXattr, string name, string stored)
    {
        var xattr = new OverlayXattr(userXattr);

        Assert.Equal(Errno.None, xattr.Escape(Bytes(name), new byte[256], out ReadOnlySpan<byte> result));

        Assert.Equal(stored + "\0", Encoding.UTF8.GetString(result));
        Assert.False(xattr.IsPrivate(result));
    }

    [Fact]
    public void A_name_that_is_too_long_when_escaped_is_refused()
    {
        var xattr = new OverlayXattr(user: false);
        string longest = "trusted.overlay." + new string('x', 255 - "trusted.overlay.overlay.".Length);

        Assert.Equal(Errno.None, xattr.Escape(Bytes(longest), new byte[256], out _));
        Assert.Equal(Errno.EOPNOTSUPP, xattr.Escape(Bytes(longest + "x"), new byte[256], out _));
    }

    [Fact]
    public void A_list_shows_neither_private_names_nor_escapes()
    {
        byte[] list = Encoding.UTF8.GetBytes(
            "user.a\0trusted.overlay.origin\0trusted.overlay.overlay.foo\0security.capability\0trusted.overlay.impure\0");

        int length = new OverlayXattr(user: false).Filter(list);

        Assert.Equal("user.a\0trusted.overlay.foo\0security.capability\0", Encoding.UTF8.GetString(list, 0, length));
    }

    [Fact]
    public void What_is_stored_is_listed_under_the_name_it_was_given() => Prop.ForAll<NonEmptyString, bool>((suffix, user) =>
    {
        string name = (user ? "user.overlay." : "trusted.overlay.") + suffix.Get.Replace("\0", "", StringComparison.Ordinal);
        var xattr = new OverlayXattr(user);
        if (Bytes(name).Length > 200) { return; }
        xattr.Escape(Bytes(name), new byte[256], out ReadOnlySpan<byte> stored);
        byte[] list = stored.ToArray();
        Assert.Equal(Bytes(name), list[..xattr.Filter(list)]);
    }).QuickCheckThrowOnFailure();

    /// <summary>user::rwx user:1001:rw- group::r-x group:1002:r-- mask::rw- other::r-x</summary>
    private const string DefaultAcl =
        "0200000001000700ffffffff02000600e903000004000500ffffffff08000400ea03000010000600ffffffff20000500ffffffff";

    [Theory]
    [InlineData(0x1B6u, 0x1B4u,
        // touch: 0666 gives 0664
        "0200000001000600ffffffff02000600e903000004000500ffffffff08000400ea03000010000600ffffffff20000400ffffffff")]
    [InlineData(0x1C0u, 0x1C0u,
        // mkdir -m 700
        "0200000001000700ffffffff02000600e903000004000500ffffffff08000400ea03000010000000ffffffff20000000ffffffff")]
    public void A_default_acl_is_inherited_as_ext4_does(uint asked, uint given, string access)
    {
        byte[] acl = Convert.FromHexString(DefaultAcl);
        uint mode = FileType.Regular | asked;

        Assert.True(PosixAcl.Inherit(acl, ref mode, out bool isExtended));

        Assert.True(isExtended);
        Assert.Equal(FileType.Regular | given, mode);
        Assert.Equal(access, Convert.ToHexStringLower(acl));
    }

    [Fact]
    public void A_default_acl_that_only_says_a_mode_is_not_stored()
    {
        byte[] acl = Convert.FromHexString("0200000001000700ffffffff04000500ffffffff20000000ffffffff"); // rwx r-x ---
        uint mode = FileType.Regular | 0x1B6; // 0666

        Assert.True(PosixAcl.Inherit(acl, ref mode, out bool isExtended));

        Assert.False(isExtended);
        Assert.Equal(FileType.Regular | 0x1A0, mode); // 0640
    }

    [Fact]
    public void No_bytes_at_all_break_the_inheritance_of_an_acl() => Prop.ForAll<byte[]>(value =>
    {
        uint mode = 0x1FF;
        _ = PosixAcl.Inherit(value, ref mode, out _);
    }).QuickCheckThrowOnFailure();

    private static byte[] Bytes(string name) => Encoding.UTF8.GetBytes(name + "\0");

    [Fact]
    public void A_claim_comes_back_as_it_was()
    {
        var owner = new OwnerRecord
        {
            Role = "work",
            Boot = "0123",
            Pid = 4711,
            PidNamespace = 4026531836,
            MountNamespace = 4026531841,
            Since = DateTimeOffset.FromUnixTimeSeconds(1_700_000_000),
            Command = "veneer mount\n\\n =",
            MountPoint = PathText.Decode("/a\nb\\\xff="u8),
            MountId = 42,
            Device = "0:57",
        };

        Assert.Equal(owner, OwnerRecord.Parse(owner.ToBytes()));
    }

    [Fact]
    public void A_long_claim_is_cut_to_fit_an_attribute()
    {
        OwnerRecord own = InUseLock.OfThisProcess("upper", new string('x', 5000)) with { Command = new string('y', 5000) };
        OwnerRecord? owner = OwnerRecord.Parse(own.ToBytes());

        Assert.Equal((259, 99), (owner!.MountPoint.Length, owner.Command.Length));
        Assert.InRange(owner.ToBytes().Length, 0, 700);
    }

    [Fact]
    public void Whatever_lies_there_is_an_owner_or_none() =>
        Prop.ForAll<byte[]>(bytes => { _ = OwnerRecord.Parse(bytes); }).QuickCheckThrowOnFailure();

    [Theory]
    [InlineData("version=1", "version=2")]
    [InlineData("role=upper", "role=lower")]
    [InlineData("pid=", "pid=x")]
    [InlineData("since=", "since=99999999999999")]
    [InlineData("since=", "since=-")]
    public void A_broken_claim_is_none(string part, string instead)
    {
        string record = Encoding.UTF8.GetString(InUseLock.OfThisProcess("upper", "/m").ToBytes());

        Assert.NotNull(OwnerRecord.Parse(Encoding.UTF8.GetBytes(record)));
        Assert.Null(OwnerRecord.Parse(Encoding.UTF8.GetBytes(record.Replace(part, instead, StringComparison.Ordinal))));
    }
}
