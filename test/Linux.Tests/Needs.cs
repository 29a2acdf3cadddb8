namespace Veneer.Linux.Tests;

/// <summary>What a test needs of the machine: without it the test is skipped, or fails where CI is set.</summary>
internal static class Needs
{
    /// <summary>Root, with its capabilities.</summary>
    public static void Root() => That(Libc.EffectiveUid == 0, "root");

    /// <summary>Anything else.</summary>
    public static void That(bool met, string what)
    {
        if (met) { return; }
        if (Environment.GetEnvironmentVariable("CI") is { Length: > 0 }) { Assert.Fail($"This test needs {what}"); }
        Assert.Skip($"This test needs {what}");
    }
}
