using System.Runtime.CompilerServices;
using Veneer.Mount.Tests;

namespace Veneer.Ring.Tests;

/// <summary>Has every mount of these tests get its requests over io_uring, which the kernel must be told to offer.</summary>
internal static class OverIoUring
{
    private const string Switch = "/sys/module/fuse/parameters/enable_uring";

#pragma warning disable CA2255 // a test program has no other place that runs before the runner starts threads
    [ModuleInitializer]
    internal static void Demand()
    {
        Environment.SetEnvironmentVariable("VENEER_TEST_OPTIONS", "io_uring");
        MountRequirement.OfThisProgram = Obstacle();
    }
#pragma warning restore CA2255

    /// <summary>Why the kernel does not offer it, or null. It is put back to what it was when the tests have ended.</summary>
    private static string? Obstacle()
    {
        if (!File.Exists(Switch)) { return "This kernel has no FUSE over io_uring (Linux 6.14)."; }
        string was = File.ReadAllText(Switch);
        if (was.StartsWith('Y')) { return null; }
        try
        {
            File.WriteAllText(Switch, "Y");
        }
        catch (Exception problem) when (problem is IOException or UnauthorizedAccessException)
        {
            return $"FUSE over io_uring is off: {problem.Message}";
        }
        AppDomain.CurrentDomain.ProcessExit += (_, _) => File.WriteAllText(Switch, was);
        return null;
    }
}
