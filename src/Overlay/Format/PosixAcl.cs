using System.Buffers.Binary;

namespace Veneer.Overlay.Format;

/// <summary>Computes what a new object inherits from its directory's default ACL, and drops unmapped entries.</summary>
/// <remarks>
/// The attribute's value is a version (2) and entries of 8 bytes: tag, permissions, id. Inheriting is needed only where the
/// object is made in work instead of its directory. Kernel: posix_acl_create(), posix_acl_create_masq(); see acl(5).
/// </remarks>
internal static class PosixAcl
{
    /// <summary>The attribute of the access ACL, which applies to the object itself.</summary>
    public static ReadOnlySpan<byte> AccessName => "system.posix_acl_access\0"u8;
    /// <summary>The attribute of the default ACL, which a directory hands on to new objects.</summary>
    public static ReadOnlySpan<byte> DefaultName => "system.posix_acl_default\0"u8;

    /// <summary>Whether an attribute is one of these two.</summary>
    public static bool IsOne(ReadOnlySpan<byte> attribute) => attribute.SequenceEqual(AccessName) || attribute.SequenceEqual(DefaultName);

    /// <summary>The size of the largest ACL that a filesystem stores, in bytes.</summary>
    public const int MaxLength = 4 + 8 * 512;

    private const int UserObject = 1, User = 2, GroupObject = 4, Group = 8, MaskEntry = 16, Other = 32;

    /// <summary>
    /// Whether an ACL names a user or group that is not mapped in this user namespace. Such an entry has the id -1, which
    /// cannot be written.
    /// </summary>
    public static bool NamesUnmapped(ReadOnlySpan<byte> acl)
    {
        for (int at = 4; at + 8 <= acl.Length; at += 8)
        {
            if (IsUnmapped(acl.Slice(at, 8))) { return true; }
        }
        return false;
    }

    /// <summary>
    /// Removes the entries of users and groups that are not mapped in this user namespace, which the kernel accepts from
    /// nobody. They apply to no process here.
    /// </summary>
    /// <returns>The new length in bytes.</returns>
    public static int WithoutUnmapped(Span<byte> acl)
    {
        int length = Math.Min(4, acl.Length);
        for (int at = length; at + 8 <= acl.Length; at += 8)
        {
            if (IsUnmapped(acl.Slice(at, 8))) { continue; }
            acl.Slice(at, 8).CopyTo(acl[length..]);
            length += 8;
        }
        return length;
    }

    private static bool IsUnmapped(ReadOnlySpan<byte> entry) =>
        BinaryPrimitives.ReadUInt16LittleEndian(entry) is User or Group
            && BinaryPrimitives.ReadUInt32LittleEndian(entry[4..]) == uint.MaxValue;

    /// <summary>Turns a copy of the directory's default ACL into the new object's access ACL, in place.</summary>
    /// <param name="acl">The default ACL.</param>
    /// <param name="mode">In: the mode asked for, without the umask. Out: the mode for the object.</param>
    /// <param name="isExtended">Whether the ACL says more than the mode, so that it must be stored.</param>
    /// <returns>False when the value is not an ACL.</returns>
    public static bool Inherit(Span<byte> acl, ref uint mode, out bool isExtended)
    {
        isExtended = false;
        if (acl.Length < 4 || (acl.Length - 4) % 8 != 0 || BinaryPrimitives.ReadUInt32LittleEndian(acl) != 2) { return false; }
        int group = -1, mask = -1;
        for (int at = 4; at < acl.Length; at += 8)
        {
            Span<byte> entry = acl.Slice(at, 8);
            ushort permissions = BinaryPrimitives.ReadUInt16LittleEndian(entry[2..]);
            switch (BinaryPrimitives.ReadUInt16LittleEndian(entry))
            {
                case UserObject:
                    permissions &= (ushort)((mode >> 6) | ~7u);
                    mode &= (uint)(permissions << 6) | ~0x1C0u;
                    break;
                case Other:
                    permissions &= (ushort)(mode | ~7u);
                    mode &= permissions | ~7u;
                    break;
                case GroupObject:
                    group = at;
                    break;
                case MaskEntry:
                    mask = at;
                    isExtended = true;
                    break;
                case User:
                case Group:
                    isExtended = true;
                    break;
                default:
                    return false;
            }
            BinaryPrimitives.WriteUInt16LittleEndian(entry[2..], permissions);
        }
        int owner = mask >= 0 ? mask : group;
        if (owner < 0) { return false; }
        ushort groupPermissions = BinaryPrimitives.ReadUInt16LittleEndian(acl[(owner + 2)..]);
        groupPermissions &= (ushort)((mode >> 3) | ~7u);
        mode &= (uint)(groupPermissions << 3) | ~0x38u;
        BinaryPrimitives.WriteUInt16LittleEndian(acl[(owner + 2)..], groupPermissions);
        return true;
    }
}
