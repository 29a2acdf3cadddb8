using Veneer.Linux;
using Veneer.Overlay.Format;

namespace Veneer.Overlay.Tests.Format;

/// <summary>Entries without a mapped id, and values that are no ACL. What ext4 inherits is in <see cref="FormatTests"/>.</summary>
public sealed class PosixAclTests
{
    private const string Version = "02000000";
    private const string UserObject = "01000700ffffffff", GroupObject = "04000500ffffffff";
    private const string Mask = "10000700ffffffff", Other = "20000500ffffffff";
    private const string User1001 = "02000600e9030000", Group1002 = "08000400ea030000";
    private const string UnmappedUser = "02000600ffffffff", UnmappedGroup = "08000400ffffffff";

    [Theory]
    [InlineData("", false)]
    [InlineData(Version, false)]
    [InlineData(Version + UserObject + GroupObject + Mask + Other, false)] // these have no id: -1 says nothing
    [InlineData(Version + UserObject + User1001 + GroupObject + Group1002 + Mask + Other, false)]
    [InlineData(Version + UnmappedUser, true)]
    [InlineData(Version + UserObject + User1001 + GroupObject + UnmappedGroup, true)]
    public void A_user_or_group_without_a_mapped_id_is_seen(string acl, bool unmapped) =>
        Assert.Equal(unmapped, PosixAcl.NamesUnmapped(Convert.FromHexString(acl)));

    [Theory]
    [InlineData("", "")]
    [InlineData("0200", "0200")]
    [InlineData(Version + UserObject + Other, Version + UserObject + Other)]
    [InlineData(Version + UnmappedUser + UnmappedGroup, Version)]
    [InlineData(
        Version + UserObject + UnmappedUser + User1001 + GroupObject + UnmappedGroup + Group1002 + Mask + Other,
        Version + UserObject + User1001 + GroupObject + Group1002 + Mask + Other)]
    public void Entries_without_a_mapped_id_are_taken_out(string acl, string left)
    {
        byte[] bytes = Convert.FromHexString(acl);

        int length = PosixAcl.WithoutUnmapped(bytes);

        Assert.Equal(left, Convert.ToHexStringLower(bytes.AsSpan(0, length)));
    }

    [Fact]
    public void Both_attributes_are_known_and_no_other_one()
    {
        Assert.True(PosixAcl.IsOne("system.posix_acl_access\0"u8));
        Assert.True(PosixAcl.IsOne("system.posix_acl_default\0"u8));
        Assert.False(PosixAcl.IsOne("system.posix_acl\0"u8));
    }

    [Theory]
    [InlineData("")]
    [InlineData("020000")]
    [InlineData(Version)] // neither a group nor a mask
    [InlineData(Version + UserObject + Other)]
    [InlineData("01000000" + UserObject + GroupObject + Other)] // another version
    [InlineData(Version + UserObject + GroupObject + Other + "0400")] // half an entry
    [InlineData(Version + UserObject + GroupObject + Other + "4000050000000000")] // an unknown tag
    public void What_is_no_acl_is_not_inherited(string acl)
    {
        uint mode = 0x1FF;

        Assert.False(PosixAcl.Inherit(Convert.FromHexString(acl), ref mode, out _));
    }

    [Theory]
    [InlineData(Version + UserObject + User1001 + GroupObject + Other)]
    [InlineData(Version + UserObject + GroupObject + Group1002 + Other)]
    public void A_named_user_or_group_must_be_stored(string acl)
    {
        uint mode = FileType.Regular | 0x1FF;

        Assert.True(PosixAcl.Inherit(Convert.FromHexString(acl), ref mode, out bool isExtended));

        Assert.True(isExtended);
    }
}
