using System.Globalization;
using System.Text;

namespace Veneer.Compare;

/// <summary>Something that cannot be measured here, and why.</summary>
internal sealed class LeftOutException(string reason) : Exception(reason);

/// <summary>
/// The trees on which real work is done. What comes from the network is fetched once and kept in <c>artifacts/bench</c>;
/// measuring needs no network.
/// </summary>
internal sealed partial class Stand
{
    /// <summary>A front end's tools: some six hundred packages.</summary>
    private const string Packages = """
        { "name": "project", "version": "1.0.0", "private": true,
          "dependencies": { "express": "4.21.2" },
          "devDependencies": { "eslint": "8.57.1", "jest": "29.7.0", "typescript": "5.6.3", "webpack": "5.97.1" } }
        """;

    /// <summary>For the command line of .NET: no network, and no process that stays.</summary>
    public const string DotNetSettings =
        "export DOTNET_NOLOGO=1 DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_SYSTEM_GLOBALIZATION_INVARIANT=1 "
        + "DOTNET_GENERATE_ASPNET_CERTIFICATE=false "
        + "DOTNET_ADD_GLOBAL_TOOLS_TO_PATH=false DOTNET_CLI_USE_MSBUILD_SERVER=0 UseSharedCompilation=false;";

    /// <summary>Unpacks and configures packages that lie beside, in a Debian, with no mount left behind.</summary>
    public const string InstallPackages = """
        exec unshare --mount --propagation private --pid --fork --kill-child sh -ec '
            mount -t proc proc proc
            mount -t tmpfs tmpfs mnt
            mkdir mnt/archives
            mount --bind -o ro "$0" mnt/archives
            exec chroot . /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
                sh -ec "apt-get install -y --no-install-recommends -o Dpkg::Use-Pty=0 /mnt/archives/*.deb"' "$beside/archives"
        """;

    private static FilePath Kept(string name)
    {
        FilePath directory = Path.GetFullPath($"artifacts/bench/{name}");
        Directory.CreateDirectory(directory);
        return directory;
    }

    private static void Fetch(string what, string script)
    {
        try
        {
            Shell(script, 600);
        }
        catch (Exception problem) when (problem is InvalidOperationException or TimeoutException)
        {
            string[] lines = problem.Message.Split('\n', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);
            throw new LeftOutException($"{what} cannot be fetched here: {(lines.Length > 0 ? lines[^1] : "no word of why")}");
        }
    }

    /// <summary>A project whose packages npm has in its cache.</summary>
    private FilePath MakePackages(FilePath place)
    {
        FilePath kept = Kept("npm"), project = place / "project";
        if (!(kept / "package-lock.json").Exists)
        {
            Sys.Write(kept / "package.json", Packages);
            Fetch(
                "npm packages",
                $"cd {kept}; export HOME={Beside}; npm install --cache {kept}/cache --no-audit --no-fund --ignore-scripts --silent 2>&1; "
                + "rm -rf node_modules");
        }
        Command.Require("cp", "-r", kept / "cache", Beside / "npm");
        Sys.MakeDirectory(project, Octal.Oct(755));
        foreach (string file in (string[])["package.json", "package-lock.json"]) { Command.Require("cp", kept / file, project / file); }
        return place;
    }

    /// <summary>A program of three projects, with a hundred files each, that needs no package.</summary>
    private FilePath MakeApplication(FilePath place)
    {
        FilePath app = place / "app";
        string[] libraries = ["One", "Two"];
        Directory.CreateDirectory(app);
        Sys.Write(app / "nuget.config", "<configuration><packageSources><clear/></packageSources></configuration>", Octal.Oct(644));
        foreach (string project in (string[])[.. libraries, "App"])
        {
            Directory.CreateDirectory(app / project);
            string references = project == "App"
                ? string.Concat(libraries.Select(library => $"<ProjectReference Include=\"../{library}/{library}.csproj\"/>"))
                : "";
            string output = project == "App" ? "<OutputType>Exe</OutputType><UseAppHost>false</UseAppHost>" : "";
            Sys.Write(
                app / $"{project}/{project}.csproj",
                $"<Project Sdk=\"Microsoft.NET.Sdk\"><PropertyGroup><TargetFramework>net{Environment.Version.Major}.0</TargetFramework>"
                + $"{output}</PropertyGroup><ItemGroup>{references}</ItemGroup></Project>",
                Octal.Oct(644));
            for (int i = 0; i < 100; i++) { Sys.Write(app / $"{project}/Class{i}.cs", SourceOf(project, i), Octal.Oct(644)); }
        }
        Sys.Write(app / "App/Program.cs", "System.Console.WriteLine(One.Class1.Value() + Two.Class1.Value());", Octal.Oct(644));
        Sys.Write(app / "Directory.Build.props", "<Project/>", Octal.Oct(644));
        return place;

        static string SourceOf(string project, int number)
        {
            var text = new StringBuilder();
            text.Append(CultureInfo.InvariantCulture,
                $"namespace {project};\npublic static class Class{number}\n{{\n    public static int Value() => {number};\n");
            for (int i = 0; i < 20; i++)
            {
                text.Append(CultureInfo.InvariantCulture,
                    $"    public static int Method{i}(int x) => x > {i} ? Method{i}(x - 1) + {number} : Value();\n");
            }
            return text.Append("}\n").ToString();
        }
    }

    /// <summary>A minimal Debian, and packages with all that they need as files beside it.</summary>
    private FilePath MakeDebian(FilePath place)
    {
        FilePath kept = Kept("debian");
        Fetch("a minimal Debian", $"flock {kept} test/real/debian.sh {kept} git python3 attr 2>&1");
        Command.Result copied = Command.Run(["cp", "-a", $"{kept}/lower/.", place], 300);
        if (copied.ExitCode != 0) { throw new InvalidOperationException(copied.Text); }
        Command.Require("cp", "-r", kept / "archives", Beside / "archives");
        return place;
    }
}
