using System.Runtime.CompilerServices;
using Veneer.Mount.Tests;

namespace Veneer.Ring.Tests;

/// <summary>
/// Has every mount of these tests get its requests over io_uring, which the kernel must be told to offer, from a server that
/// checks the order of its locks: so all tests run once with that one, and once with the one that is shipped.
/// </summary>
internal static class OverIoUring
{
#pragma warning disable CA2255 // a test program has no other place that runs before the runner starts threads
    [ModuleInitializer]
    internal static void Demand()
    {
        MountRequirement.Enter(); // starts this program again, which then puts the switch back
        Environment.SetEnvironmentVariable("VENEER_TEST_OPTIONS", "io_uring");
        if (Environment.GetEnvironmentVariable("VENEER_TEST_BINARY") is null)
        {
            Environment.SetEnvironmentVariable("VENEER_TEST_BINARY", Mounter.CheckedBinary);
        }
        MountRequirement.OfThisProgram = IoUringSwitch.TurnOn();
    }
#pragma warning restore CA2255
}
