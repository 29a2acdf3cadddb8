using System.Reflection;

namespace Veneer.Rig;

/// <summary>A program in C beside the tests, built by gcc when it is first needed.</summary>
/// <param name="source">Its file, from the root of the repository.</param>
/// <param name="options">More options of gcc.</param>
public sealed class CProgram(string source, params string[] options)
{
    private readonly Lazy<FilePath> path = new(() =>
    {
        FilePath built = Scratch.New() / System.IO.Path.GetFileNameWithoutExtension(source);
        Command.Require(["gcc", "-O1", "-Wall", "-Wextra", "-Werror", .. options, "-o", built, System.IO.Path.Combine(Repository, source)]);
        return built;
    });

    /// <summary>The root of the repository that the tests were built from.</summary>
    internal static string Repository { get; } = typeof(CProgram).Assembly.GetCustomAttributes<AssemblyMetadataAttribute>().Single(a => a.Key == "RepositoryRoot").Value!;

    /// <summary>What was built.</summary>
    public FilePath Path => path.Value;
}
