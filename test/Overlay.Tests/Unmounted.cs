namespace Veneer.Overlay.Tests;

/// <summary>Options of overlays that are served without a mount: data goes through the server, by read and write alone.</summary>
internal static class Unmounted
{
    /// <summary>An overlay of one lower, without an upper.</summary>
    public static OverlayOptions Over(string lower) => new()
    {
        LowerDirectories = [lower],
        MountPoint = "/nowhere",
        Passthrough = KernelFeature.Off,
        IoUring = KernelFeature.Off,
    };

    /// <summary>An overlay that can be written.</summary>
    public static OverlayOptions Over(string lower, string upper, string work) => Over(lower) with
    {
        UpperDirectory = upper,
        WorkDirectory = work,
        UserXattr = true,
        Sync = Sync.Volatile,
    };
}
