namespace Veneer.Linux;

/// <summary>What tells one boot of this machine from every other.</summary>
public static class BootId
{
    /// <summary>The UUID in <c>/proc/sys/kernel/random/boot_id</c>, or nothing where it cannot be read. See random(4).</summary>
    public static string Read() =>
        Libc.ReadWhole("/proc/sys/kernel/random/boot_id\0"u8, out byte[] content).IsError ? "" : PathText.Decode(content).TrimEnd();
}
