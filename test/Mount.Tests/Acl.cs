using System.Buffers.Binary;

namespace Veneer.Mount.Tests;

/// <summary>POSIX access control lists as their extended attribute has them. See acl(5).</summary>
internal static class Acl
{
    /// <summary>A list with one named user; permissions are 0 to 7.</summary>
    public static byte[] Of(int owner, (uint Id, int Permissions) user, int group, int mask, int other)
    {
        (ushort Tag, int Permissions, uint Id)[] entries =
        [
            (0x01, owner, uint.MaxValue), (0x02, user.Permissions, user.Id), (0x04, group, uint.MaxValue), (0x10, mask, uint.MaxValue),
            (0x20, other, uint.MaxValue),
        ];
        byte[] list = new byte[4 + (8 * entries.Length)];
        list[0] = 2;
        for (int i = 0; i < entries.Length; i++)
        {
            Span<byte> entry = list.AsSpan(4 + (8 * i));
            BinaryPrimitives.WriteUInt16LittleEndian(entry, entries[i].Tag);
            BinaryPrimitives.WriteUInt16LittleEndian(entry[2..], (ushort)entries[i].Permissions);
            BinaryPrimitives.WriteUInt32LittleEndian(entry[4..], entries[i].Id);
        }
        return list;
    }
}
