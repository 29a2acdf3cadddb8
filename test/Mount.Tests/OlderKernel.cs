namespace Veneer.Mount.Tests;

/// <summary>
/// Runs programs as on a kernel that lacks some system calls, or in a container whose filter does not know them. See enosys.c.
/// </summary>
internal static class OlderKernel
{
    private static readonly CProgram program = new("test/Mount.Tests/Surroundings/enosys.c");

    /// <summary>How the command line of such a program begins.</summary>
    /// <param name="calls">What the kernel lacks: numbers of system calls, or <c>NUMBER:ARGUMENT</c> of those with that second
    /// argument; then <c>=ERRNO</c>, if they do not give ENOSYS.</param>
    public static string Without(string calls) => $"{program.Path} {calls}";
}
