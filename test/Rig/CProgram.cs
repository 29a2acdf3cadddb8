using System.Reflection;

namespace Veneer.Rig;

/// <summary>A program in C beside the tests, built by gcc when it is first needed.</summary>
/// <param name="source">Its file, from the root of the repository.</param>
/// <param name="options">More options of gcc.</param>
public sealed class CProgram(string source, params string[] options)
{
    private readonly Lazy<FilePath> path = new(() =>
    {
        // Where scripts in namespaces of their own see it as well.
        string built = System.IO.Path.Combine(AppContext.BaseDirectory, System.IO.Path.GetFileNameWithoutExtension(source));
        string begun = $"{built}.{Environment.ProcessId}";
        Command.Require(["gcc", "-O1", "-Wall", "-Wextra", "-Werror", .. options, "-o", begun, System.IO.Path.Combine(Repository, source)]);
        File.Move(begun, built, overwrite: true); // another run may be running the old one
        return built;
    });

    /// <summary>The root of the repository that the tests were built from.</summary>
    internal static string Repository { get; } = typeof(CProgram)
        .Assembly.GetCustomAttributes<AssemblyMetadataAttribute>()
        .Single(a => a.Key == "RepositoryRoot").Value!;

    /// <summary>What was built.</summary>
    public FilePath Path => path.Value;
}
