using System.Diagnostics;

namespace Veneer.Linux.Tests;

/// <summary>Runs a program, which sees what the calling thread sees, and must succeed.</summary>
internal static class Command
{
    /// <summary>Where a program of the system is, or null; /usr/sbin need not be on the PATH.</summary>
    public static string? Find(string command) =>
        new[] { "/usr/bin/", "/bin/", "/usr/sbin/", "/sbin/" }.Select(directory => directory + command).FirstOrDefault(File.Exists);

    public static string Run(string command, params string[] arguments)
    {
        var start = new ProcessStartInfo(command, arguments) { RedirectStandardOutput = true, RedirectStandardError = true };
        using Process process = Process.Start(start)!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        Assert.True(process.WaitForExit(60_000), $"{command} does not end");
        Assert.True(process.ExitCode == 0, $"{command} failed:\n{errors.Result}");
        return output;
    }
}
