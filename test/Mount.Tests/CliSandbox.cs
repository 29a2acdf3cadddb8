using System.Diagnostics;

namespace Veneer.Mount.Tests;

/// <summary>What a script wrote, and how it ended.</summary>
public sealed record Outcome(int ExitCode, string Output, string Error);

/// <summary>
/// A directory with <c>l/f</c>, <c>u</c>, <c>w</c> and <c>m</c>, in which shell scripts run the command line, each in
/// mount and pid namespaces of its own: no mount and no server outlives its script. Mounts of other tests are not seen there,
/// nor kept.
/// </summary>
public sealed class CliSandbox : IDisposable
{
    private static readonly string Binary = Path.GetFullPath(Mounter.Binary);

    public CliSandbox()
    {
        Root = Directory.CreateTempSubdirectory("veneer-cli-").FullName;
        File.SetUnixFileMode(Root, (UnixFileMode)0b111_101_101);
        foreach (string name in (string[])["l", "u", "w", "m"]) { Directory.CreateDirectory(Path.Combine(Root, name)); }
        File.WriteAllText(Path.Combine(Root, "l/f"), "old\n");
    }

    public string Root { get; }

    /// <summary>Options for the sandbox's own layers.</summary>
    public const string Layers = "lowerdir=l,upperdir=u,workdir=w";

    /// <summary>Begins a script that runs commands <c>as</c> a user who may do little, and who can reach the binary.</summary>
    public const string AsNobody =
        "mount -t tmpfs -o mode=755 t /mnt; cp $VENEER /mnt; VENEER=/mnt/veneer; PATH=/mnt:$PATH; "
        + "as() { setpriv --reuid nobody --regid nogroup --clear-groups \"$@\"; }; ";

    /// <summary>
    /// Begins a script that runs <c>namespace_at FILE COMMAND</c>: the command in a mount namespace of its own, whose file is
    /// mounted on FILE. The kernel lets a namespace's file be mounted only in a namespace with a lower number (mnt_ns_loop in
    /// fs/namespace.c), and since Linux 6.18 each CPU gives numbers of a range of its own: it is tried on every CPU.
    /// </summary>
    public const string NamespaceAt =
        "namespace_at() { local file=$1 cpu; shift; for cpu in $(seq 0 $(($(nproc --all) - 1))); do "
        + "taskset -c $cpu unshare --mount=$file --propagation private \"$@\" 2>error && return; done; cat error >&2; return 1; }; "
        + "export -f namespace_at; ";

    /// <summary>
    /// Begins each script, in its first line: <c>runs NAME [N]</c> waits until N processes execute NAME, which an
    /// unshare or a flock before it does last, <c>mounted DIR</c> until something is mounted there, <c>hidden DIR</c> until
    /// nothing is, <c>ended</c> until no server is left, and <c>until_that COMMAND</c> until it succeeds.
    /// </summary>
    private const string Waits =
        "until_that() { until \"$@\" >/dev/null 2>&1; do sleep 0.02; done; }; "
        + "runs() { until [ $(pgrep -xc \"$1\") -ge ${2:-1} ]; do sleep 0.02; done; }; "
        + "mounted() { until_that mountpoint -q \"$1\"; }; hidden() { until_that eval '! mountpoint -q' \"$1\"; }; "
        + "ended() { until_that eval '! pgrep -x veneer'; }; ";

    /// <summary>Runs a script of bash, with <c>veneer</c> in its path and the sandbox as its directory.</summary>
    public Outcome Run(string script, int seconds = 60)
    {
        var start = new ProcessStartInfo("timeout")
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            RedirectStandardInput = true,
        };
        string[] words =
        [
            "-k", "5", $"{seconds}",
            .. PrivateNamespace.WithoutMounts is { } other ? ["nsenter", $"--mount={other}"] : Array.Empty<string>(),
            "unshare", $"--wd={Root}", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private",
            "bash", "-c", Waits + script,
        ];
        foreach (string word in words) { start.ArgumentList.Add(word); }
        start.Environment["PATH"] = Path.GetDirectoryName(Binary) + ":" + start.Environment["PATH"];
        start.Environment["VENEER"] = Binary;
        start.Environment["LAYERS"] = Layers;
        using Process process = Programs.StartWithoutInput(start);
        // Both to their ends, as a caller such as podman does: a server that keeps one open would hang the test.
        Task<string> error = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return new Outcome(process.ExitCode, output, error.GetAwaiter().GetResult());
    }

    /// <summary>Runs a script that must succeed in silence, and gives what it printed.</summary>
    public string Succeeds(string script)
    {
        Outcome outcome = Run("set -e; " + script);
        Assert.True(outcome is { ExitCode: 0, Error: "" }, $"{outcome.ExitCode}: {outcome.Output}{outcome.Error}");
        return outcome.Output;
    }

    /// <summary>What a command said, with paths in the sandbox as seen from there.</summary>
    public string Relative(string text) => text.Replace(Root + "/", "", StringComparison.Ordinal);

    /// <summary>Names below the sandbox, to see that nothing was touched.</summary>
    public string[] Entries() =>
        [.. Directory.EnumerateFileSystemEntries(Root, "*", SearchOption.AllDirectories).Order(StringComparer.Ordinal)];

    public void Dispose()
    {
        // Not Directory.Delete, which cannot delete names that are not UTF-8.
        using Process removal = Programs.Start("rm", "-rf", Root);
        removal.WaitForExit();
    }
}
