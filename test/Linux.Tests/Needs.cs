namespace Veneer.Linux.Tests;

/// <summary>What a test needs of the machine: without it the test is skipped, or fails where CI is set.</summary>
/// <remarks>CONTRIBUTING.md lists what a machine must have that runs CI.</remarks>
internal static class Needs
{
    /// <summary>Whether a test that cannot run must fail.</summary>
    public static bool IsAutomatic => Environment.GetEnvironmentVariable("CI") is { Length: > 0 };

    /// <summary>Root, with its capabilities.</summary>
    public static void Root() => That(Libc.EffectiveUid == 0, "root");

    /// <summary>A filesystem that the kernel knows.</summary>
    public static void FileSystem(string name) => That(
        File.ReadAllText("/proc/filesystems").Contains($"\t{name}\n", StringComparison.Ordinal), $"a kernel with {name}");

    /// <summary>Anything else.</summary>
    public static void That(bool met, string what)
    {
        if (met) { return; }
        if (IsAutomatic) { Assert.Fail($"This test needs {what}"); }
        Assert.Skip($"This test needs {what}");
    }
}
