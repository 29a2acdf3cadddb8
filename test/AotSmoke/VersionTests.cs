using System.Diagnostics;
using System.Reflection;

namespace Veneer.AotSmoke;

public sealed class VersionTests
{
    private static readonly string Binary = Path.Combine(
        typeof(VersionTests).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().Single(a => a.Key == "RepositoryRoot").Value!,
        "out/veneer");

    [Fact]
    public void The_binary_says_its_version()
    {
        using var process = Process.Start(new ProcessStartInfo(Binary, ["--version"]) { RedirectStandardOutput = true })!;
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();

        Assert.Equal(0, process.ExitCode);
        Assert.Contains("0.1.0", output, StringComparison.Ordinal);
    }
}
