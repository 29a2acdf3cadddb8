using Veneer.Oracle;

namespace Veneer.Mount.Tests;

/// <summary>Random operations answered as kernel overlayfs answers them. <c>make oracle</c> does the same for as long as asked.</summary>
public sealed class OracleTests
{
    [MountTheory(OnlyVeneer = "It compares Veneer with the kernel.")]
    [InlineData(Filesystem.Tmpfs, "")]
    [InlineData(Filesystem.Ext4, "")]
    [InlineData(Filesystem.Tmpfs, "redirect_dir=on")]
    [InlineData(Filesystem.Tmpfs, "userxattr")]
    [InlineData(Filesystem.Tmpfs, "metacopy=on")]
    public void Random_operations_do_what_they_do_in_the_kernel(Filesystem filesystem, string options)
    {
        var said = new List<string>();
        // What the kernel has as well goes to both.
        string[] both = [
            .. ((string[])[options]).Where(option => option.Length > 0),
            .. Mounter.Further(options).Where(option => option.Contains("redirect_dir") || option.Contains("metacopy"))];
        var settings = new Settings
        {
            Filesystem = filesystem,
            Options = string.Join(',', both),
            LastSeed = 100,
            Time = TimeSpan.FromSeconds(15),
        };

        Report report = Search.Run(settings, said.Add);

        Assert.True(report.Findings.Count == 0, string.Join('\n', said));
        Assert.True(report.Seeds > 0);
    }
}
