using System.Reflection;

namespace Veneer.Mount.Tests;

/// <summary>Runs programs on a kernel that is older than some system call, or in a container whose filter does not know it. See enosys.c.</summary>
internal static class OlderKernel
{
    private static readonly Lazy<FilePath> program = new(Compile);

    /// <summary>How the command line of such a program begins.</summary>
    /// <param name="calls">What the kernel lacks: numbers of system calls, or <c>NUMBER:ARGUMENT</c> of those with that second argument; then <c>=ERRNO</c>, if they do not give ENOSYS.</param>
    public static string Without(string calls) => $"{program.Value} {calls}";

    private static FilePath Compile()
    {
        string root = typeof(OlderKernel).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().Single(a => a.Key == "RepositoryRoot").Value!;
        FilePath compiled = Scratch.New() / "enosys";
        _ = Command.Require("gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-o", compiled, Path.Combine(root, "test/Mount.Tests/Surroundings/enosys.c"));
        return compiled;
    }
}
