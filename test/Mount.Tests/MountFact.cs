using System.Runtime.CompilerServices;
using Xunit.v3;

namespace Veneer.Mount.Tests;

/// <summary>A test that mounts: skipped where that is impossible, with the reason, unless CI is set.</summary>
[AttributeUsage(AttributeTargets.Method)]
public class MountFactAttribute : FactAttribute
{
    public MountFactAttribute([CallerFilePath] string? file = null, [CallerLineNumber] int line = -1)
        : base(file, line) => Skip = MountRequirement.Missing;

    /// <summary>Why this cannot be found true of kernel overlayfs, which every other test can.</summary>
    public string? NotOfKernel
    {
        get;
        set
        {
            field = value;
            Skip ??= MountRequirement.WhereKernel(value);
        }
    }

    /// <summary>Why this cannot be found true of another overlay than Veneer.</summary>
    public string? OnlyVeneer
    {
        get;
        set
        {
            field = value;
            Skip ??= MountRequirement.WhereOther(value);
        }
    }

    /// <summary>Whether the test is about files that the kernel reads without the server.</summary>
    public bool PassesThrough
    {
        get;
        set
        {
            field = value;
            if (value && !Mounter.UnderTest.PassesUpper) { Skip ??= "With these options the kernel reads no file without the server."; }
        }
    }

    /// <summary>What Veneer does instead, today. Found true of the kernel all the same.</summary>
    public string? NotYet
    {
        get;
        set
        {
            field = value;
            Skip ??= MountRequirement.WhereVeneer(value);
        }
    }
}

/// <summary>As <see cref="MountFactAttribute"/>, for each of several data.</summary>
[AttributeUsage(AttributeTargets.Method)]
[XunitTestCaseDiscoverer(typeof(TheoryDiscoverer))]
public sealed class MountTheoryAttribute([CallerFilePath] string? file = null, [CallerLineNumber] int line = -1)
    : MountFactAttribute(file, line), ITheoryAttribute
{
    public bool DisableDiscoveryEnumeration { get; set; }

    public bool IncludeTestCaseIndex { get; set; }

    public bool SkipTestWithoutData { get; set; }
}

internal static class MountRequirement
{
    /// <summary>What is missing, or null: in CI nothing may be, so that the test fails instead.</summary>
    public static string? Missing => Needs.IsAutomatic ? null : PrivateNamespace.Obstacle;

    /// <summary>The reason, where the kernel's overlay is tested.</summary>
    public static string? WhereKernel(string? reason) => Mounter.UnderTest.IsKernel ? reason : null;

    /// <summary>The reason, where another overlay than Veneer is tested.</summary>
    public static string? WhereOther(string? reason) => Mounter.UnderTest.IsVeneer ? null : reason;

    /// <summary>The reason, where Veneer is tested.</summary>
    public static string? WhereVeneer(string? reason) => Mounter.UnderTest.IsVeneer ? reason : null;

#pragma warning disable CA2255 // a test program has no other place that runs before the runner starts threads
    [ModuleInitializer]
    internal static void Enter() => PrivateNamespace.Enter();
#pragma warning restore CA2255
}
