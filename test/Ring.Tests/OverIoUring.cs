using System.Runtime.CompilerServices;
using Veneer.Mount.Tests;

namespace Veneer.Ring.Tests;

/// <summary>
/// Has every mount of these tests get its requests over io_uring, which the kernel must be told to offer, from a server that
/// checks the order of its locks: so all tests run once with that one, and once with the one that is shipped. Where the kernel
/// does not offer it, requests come from /dev/fuse.
/// </summary>
internal static class OverIoUring
{
    /// <summary>Why the kernel does not offer it, or null.</summary>
    public static string? Missing { get; private set; }

    /// <summary>Whether the server is the one that checks its locks, and not one that VENEER_TEST_BINARY names.</summary>
    public static bool IsChecked { get; private set; }

#pragma warning disable CA2255 // a test program has no other place that runs before the runner starts threads
    [ModuleInitializer]
    internal static void Demand()
    {
        MountRequirement.Enter(); // starts this program again, which then puts the switch back
        Missing = IoUringSwitch.TurnOn();
        if (Missing is null) { Environment.SetEnvironmentVariable("VENEER_TEST_OPTIONS", "io_uring"); }
        IsChecked = Environment.GetEnvironmentVariable("VENEER_TEST_BINARY") is null;
        if (IsChecked) { Environment.SetEnvironmentVariable("VENEER_TEST_BINARY", Mounter.CheckedBinary); }
        LockRecord.Begin();
    }
#pragma warning restore CA2255
}
