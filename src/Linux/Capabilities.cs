using System.Globalization;

namespace Veneer.Linux;

/// <summary>Questions about the privileges of this process. See capabilities(7).</summary>
public static class Capabilities
{
    /// <summary>
    /// Whether this process can read <c>trusted.*</c> attributes. The kernel hides them from a process that cannot.
    /// </summary>
    /// <remarks>
    /// Needs CAP_SYS_ADMIN in the initial user namespace, whose inode number is fixed. See xattr(7), namespaces(7).
    /// </remarks>
    public static bool SeesTrustedAttributes
    {
        get
        {
            const string initialUserNamespace = "user:[4026531837]";
            const int systemAdministrator = 21;
            Span<byte> link = stackalloc byte[64];
            if (Libc.ReadLinkAt(Libc.AtCwd, "/proc/self/ns/user\0"u8, link, out int length).IsError
                || PathText.Decode(link[..length]) != initialUserNamespace)
            {
                return false;
            }
            if (Libc.ReadWhole("/proc/self/status\0"u8, out byte[] status).IsError) { return false; }
            foreach (string line in PathText.Decode(status).Split('\n'))
            {
                if (line.StartsWith("CapEff:", StringComparison.Ordinal)
                    && ulong.TryParse(line.AsSpan(7).Trim(), NumberStyles.HexNumber, CultureInfo.InvariantCulture, out ulong set))
                {
                    return (set >> systemAdministrator & 1) != 0;
                }
            }
            return false;
        }
    }
}
