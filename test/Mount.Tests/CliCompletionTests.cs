namespace Veneer.Mount.Tests;

/// <summary>Command lines are completed: by the program, and in bash.</summary>
public sealed class CliCompletionTests : IDisposable
{
    private static readonly string script = Path.GetFullPath(Mounter.CheckedBinary + "/../../src/Cli/veneer.bash");

    private readonly CliSandbox sandbox = new();

    public void Dispose() => sandbox.Dispose();

    private string[] Suggestions(string line) =>
        sandbox.Succeeds($"veneer '[suggest:{line.Length}]' '{line}'").Split('\n', StringSplitOptions.RemoveEmptyEntries);

    /// <summary>What bash makes of a line: each candidate in place of the end of the word.</summary>
    private string[] InBash(string line) =>
        sandbox.Succeeds(
            $"source {script}; COMP_LINE='{line}' COMP_POINT={line.Length}; _veneer veneer; printf '%s\\n' \"${{COMPREPLY[@]}}\"")
            .Split('\n', StringSplitOptions.RemoveEmptyEntries);

    [MountFact]
    public void Commands() =>
        Assert.Equal([.. Cli.Commands.Names.Append("help").Order()], InBash("veneer ").Order());

    [MountFact]
    public void The_rest_of_a_command()
    {
        Assert.Equal(["checkpoint"], InBash("veneer ch"));
        Assert.Equal(["stats", "status"], InBash("veneer help stat"));
    }

    [MountFact]
    public void Options_of_a_command()
    {
        Assert.Equal(["--help", "--lazy", "--verbose", "--version", "-h", "-l", "-v", "-V"], InBash("veneer umount -").Order(
            StringComparer.OrdinalIgnoreCase));
        Assert.Equal(["--clamp-mtime"], InBash("veneer diff --cl"));
        Assert.DoesNotContain("--identities", Suggestions("veneer mount -"));
    }

    [MountFact]
    public void Names_of_mount_options_and_their_values()
    {
        Assert.Equal(["redirect_dir="], InBash("veneer mount -o redir"));
        Assert.Equal(["redirect_dir=follow"], Suggestions("veneer mount -o redirect_dir=fo"));
        Assert.Equal(["follow", "nofollow", "off", "on"], InBash("veneer mount -o redirect_dir=").Order());
    }

    [MountFact]
    public void Mount_options_after_others()
    {
        Assert.Equal(["lowerdir=/l,upperdir="], Suggestions("veneer mount -o lowerdir=/l,upp"));
        Assert.Equal(["/l,upperdir="], InBash("veneer mount -o lowerdir=/l,upp"));
        Assert.Equal(["remount-ro"], InBash("veneer mount -o lowerdir=/l,errors=r"));
        Assert.Equal(["volatile"], InBash("veneer -o vol"));
        Assert.Equal(["workdir="], InBash("veneer mount -o ro -o work"));
    }

    /// <summary>Bash then completes files.</summary>
    [MountFact]
    public void Nothing_where_files_are_named()
    {
        Assert.Empty(InBash("veneer umount "));
        Assert.Empty(InBash("veneer mount -o lowerdir=/us"));
        Assert.Empty(InBash("veneer mount -o lowerdir=/l "));
    }
}
