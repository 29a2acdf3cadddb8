using System.Globalization;

namespace Veneer.Overlay.Tests.Posix;

/// <summary>
/// A whole overlay over real directories does what a plain tree in memory does, whatever it is asked through FUSE. There is no mount:
/// <see cref="Veneer.Fuse.Tests.FakeKernel"/> is the other end.
/// </summary>
/// <remarks>
/// What the layers show is told by <see cref="RealLayers"/>, which shares no code with the overlay: first to know what the lowers
/// show, and after each session to know whether upper says the same as the overlay did. VENEER_TEST_SEED is added to every seed.
/// </remarks>
public sealed class PosixModelTests : IDisposable
{
    private readonly DirectoryInfo scratch = Directory.CreateTempSubdirectory("veneer-posix-");

    public void Dispose() => scratch.Delete(recursive: true);

    [Theory]
    [InlineData("", 1)]
    [InlineData("", 2)]
    [InlineData("", 3)]
    [InlineData("redirect_dir", 4)]
    [InlineData("redirect_dir", 5)]
    [InlineData("redirect_dir", 6)]
    [InlineData("metacopy", 7)]
    [InlineData("metacopy", 8)]
    [InlineData("userxattr", 10)]
    [InlineData("userxattr", 11)]
    [InlineData("no upper", 12)]
    public void An_overlay_is_a_plain_tree(string variant, int seed)
    {
        bool isAutomatic = Environment.GetEnvironmentVariable("CI") is not null;
        Assert.SkipUnless(Environment.IsPrivilegedProcess || isAutomatic, "Attributes trusted.* need root.");
        string? other = Environment.GetEnvironmentVariable("VENEER_TEST_SEED");
        if (!string.IsNullOrEmpty(other)) { seed += int.Parse(other, CultureInfo.InvariantCulture); }
        new PosixRun(scratch.FullName, variant, seed).Run();
    }
}
