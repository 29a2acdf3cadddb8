namespace Veneer.Linux;

/// <summary>The identifier of the current boot, which differs from that of every other boot.</summary>
public static class BootId
{
    /// <summary>
    /// The UUID in <c>/proc/sys/kernel/random/boot_id</c>, or an empty string where that file cannot be read. See
    /// random(4).
    /// </summary>
    public static string Read() =>
        Libc.ReadWhole("/proc/sys/kernel/random/boot_id\0"u8, out byte[] content).IsError ? "" : PathText.Decode(content).TrimEnd();
}
