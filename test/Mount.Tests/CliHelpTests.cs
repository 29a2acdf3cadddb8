namespace Veneer.Mount.Tests;

[Collection(typeof(CliCollection))]
public sealed class CliHelpTests : IDisposable
{
    private readonly CliSandbox sandbox = new();

    public void Dispose() => sandbox.Dispose();

    [CliFact]
    public void Help_reads_like_a_manual_page()
    {
        string[] sections = ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES", "EXIT STATUS", "SEE ALSO"];
        foreach (string command in (string[])["veneer --help", "veneer -h", "veneer help", "veneer mount --help", "veneer mount -h", "veneer help mount", "veneer umount --help", "veneer diff --help", "veneer layers --help", "veneer checkpoint --help", "veneer restore --help", "veneer stats --help", "veneer help stats", "veneer sync --help", "veneer status --help", "veneer shutdown --help", "veneer list --help", "veneer holders --help"])
        {
            Outcome outcome = sandbox.Run(command);

            Assert.Equal((0, ""), (outcome.ExitCode, outcome.Error));
            string[] lines = outcome.Output.Split('\n');
            Assert.Equal<string[]>(sections, [.. lines.Where(line => sections.Contains(line, StringComparer.Ordinal))]);
            Assert.All(lines, line => Assert.InRange(line.Length, 0, 80));
        }
    }

    [CliFact]
    public void Every_option_that_is_understood_is_in_the_manual()
    {
        string manual = sandbox.Run("veneer mount --help").Output;
        string[] options =
        [
            "lowerdir=", "lowerdir+=", "upperdir=", "workdir=", "redirect_dir=", "metacopy=", "index=", "xino=", "userxattr", "volatile",
            "fsync=", "errors=", "sync_on_unmount", "revocable", "coherent", "passthrough=", "threads=", "allow_other", "fsname=", "default_permissions", "nfs_export=", "verity=",
            "uuid=", "subtype=", "override_creds", "io_uring", "ro", "rw", "nosuid", "nodev", "noexec", "sync", "dirsync", "noatime",
            "nodiratime", "relatime", "strictatime", "nosymfollow", "remount", "inuse=", "pin", "debug\n",
        ];
        Assert.All(options, option => Assert.Contains(option, manual, StringComparison.Ordinal));
    }

    [CliFact]
    public void The_version_names_the_protocol_too()
    {
        foreach (string command in (string[])["veneer --version", "veneer -V", "veneer mount -V", "veneer umount --version"])
        {
            Outcome outcome = sandbox.Run(command);

            Assert.Equal(0, outcome.ExitCode);
            Assert.Matches(@"^veneer \d+\.\d+\.\d+\nFUSE kernel interface version 7\.45\n$", outcome.Output);
        }
    }

    [CliFact]
    public void Without_words_it_says_how_it_is_used()
    {
        Outcome outcome = sandbox.Run("veneer");

        Assert.Equal((1, ""), (outcome.ExitCode, outcome.Output));
        Assert.Contains("veneer mount -o OPTIONS MOUNTPOINT", outcome.Error, StringComparison.Ordinal);
    }
}
