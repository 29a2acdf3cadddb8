using System.Globalization;
using Veneer.Linux;

namespace Veneer.Overlay.Host;

/// <summary>What the caller of a request may do beyond its user id, which is all that the request says.</summary>
internal static class Privilege
{
    private const int SysAdmin = 21;

    /// <summary>Whether a thread has CAP_SYS_ADMIN in the user namespace of this process, which is that of the mount.</summary>
    /// <param name="thread">
    /// The caller, as the server sees it; 0 when it is in a pid namespace that the server cannot see into. It cannot end and
    /// its number cannot come to mean another, since it waits for us.
    /// </param>
    /// <remarks>
    /// Whoever reaches the mount is in its user namespace or in one below, and a capability counts there only in the former.
    /// </remarks>
    public static bool IsAdministrator(uint thread)
    {
        if (thread == 0) { return false; }
        string place = string.Create(CultureInfo.InvariantCulture, $"/proc/{thread}");
        Span<byte> own = stackalloc byte[64], theirs = stackalloc byte[64];
        if (Libc.ReadLinkAt(Libc.AtCwd, "/proc/self/ns/user\0"u8, own, out int length).IsError) { return false; }
        if (Libc.ReadLinkAt(Libc.AtCwd, PathText.Encode(place + "/ns/user"), theirs, out int theirLength).IsError) { return false; }
        if (!own[..length].SequenceEqual(theirs[..theirLength])) { return false; }
        if (Libc.ReadWhole(PathText.Encode(place + "/status"), out byte[] status).IsError) { return false; }
        foreach (string line in PathText.Decode(status).Split('\n'))
        {
            if (!line.StartsWith("CapEff:\t", StringComparison.Ordinal)) { continue; }
            ReadOnlySpan<char> digits = line.AsSpan("CapEff:\t".Length);
            return ulong.TryParse(digits, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out ulong capabilities)
                && (capabilities >> SysAdmin & 1) != 0;
        }
        return false;
    }
}
