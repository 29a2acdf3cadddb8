using System.Diagnostics;
using System.Text;

namespace Veneer.Rig;

/// <summary>Runs a program to its end.</summary>
public static class Command
{
    public sealed record Result(int ExitCode, string Output, string Error)
    {
        public string Text => $"{Output}{Error}".Trim();
    }

    /// <summary>Words as they are; no shell.</summary>
    /// <exception cref="TimeoutException">It did not end in time, and was killed.</exception>
    public static Result Run(IReadOnlyList<string> words, int seconds = 60, IReadOnlyDictionary<string, string>? environment = null)
    {
        var start = new ProcessStartInfo(words[0], words.Skip(1))
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        foreach ((string name, string value) in environment ?? new Dictionary<string, string>(StringComparer.Ordinal))
        {
            start.Environment[name] = value;
        }
        using Process process = Programs.StartWithoutInput(start);
        var output = new StringBuilder();
        var error = new StringBuilder();
        process.OutputDataReceived += (_, line) => output.AppendLine(line.Data);
        process.ErrorDataReceived += (_, line) => error.AppendLine(line.Data);
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        if (!process.WaitForExit(TimeSpan.FromSeconds(seconds)))
        {
            process.Kill(entireProcessTree: true);
            throw new TimeoutException($"{string.Join(' ', words)} did not end in {seconds} s: {output}{error}");
        }
        process.WaitForExit();
        return new Result(process.ExitCode, output.ToString(), error.ToString());
    }

    /// <summary>As <see cref="Run"/>, for a program that must succeed.</summary>
    public static string Require(params string[] words)
    {
        Result result = Run(words);
        return result.ExitCode == 0
            ? result.Output
            : throw new InvalidOperationException($"{string.Join(' ', words)}: exit code {result.ExitCode}: {result.Text}");
    }
}
