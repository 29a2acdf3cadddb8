namespace Veneer.Mount.Tests;

/// <summary><c>veneer sync</c> of an upper whose record somebody else may have written.</summary>
public sealed class CliSyncTests : IDisposable
{
    private const string Volatile =
        "mount -t tmpfs t /mnt; cd /mnt; mkdir l u w m; veneer mount -o $LAYERS,volatile m; touch m/x; veneer umount m; "
        + "point() { r=$(getfattr --only-values -n trusted.overlay.volatile u | sed \"s/work 2E2E2F77/work $1/\"; echo .); "
        + "setfattr -n trusted.overlay.volatile -v \"${r%.}\" u; }; ";

    private readonly CliSandbox sandbox = new();

    public void Dispose() => sandbox.Dispose();

    private const string NotPlain = "over a symbolic link or on another filesystem, which no overlay has written: name it with --work DIR.";

    [MountTheory]
    [InlineData("mv w real; ln -s real w", "The record of u says that its work directory is ../w from there, " + NotPlain)]
    [InlineData("mv w real; mkdir w; mount --bind real w", "The record of u says that its work directory is ../w from there, " + NotPlain)]
    [InlineData("point 2F6D6E742F76", "The record of u says that its work directory is /mnt/v from there, " + NotPlain)] // absolute
    [InlineData("point 2E2E2F76",
        "The record of u names a work directory (../v from there) whose mark is not that of this upper: "
        + "name the right one with --work DIR.")]
    [InlineData("point 2E2E2F1B5B6D", "The work directory of u is not where it was (../\\x1b[m from there): name it with --work DIR.")]
    public void A_record_leads_to_the_work_of_its_upper_and_nowhere_else(string change, string sentence)
    {
        Outcome outcome = sandbox.Run(
            Volatile
            + $"mkdir -p v/work/incompat/volatile; touch v/work/incompat/volatile/dirty; {change}; veneer sync u; "
            + "ls v/work/incompat/volatile; [ -e w ] && ls w/work/incompat/volatile");

        Assert.Equal(("dirty\n", $"veneer: {sentence}\n"), (outcome.Output[..6], outcome.Error));
    }

    [MountFact]
    public void Its_own_work_is_found_and_another_may_be_named()
    {
        Assert.Equal("2 files and directories synced\nwork\n", sandbox.Run(Volatile + "veneer sync u; ls -A w").Output);
        Assert.Equal("2 files and directories synced\nwork\n",
            sandbox.Run(Volatile + "point 2E2E2F76; mkdir v; mv w w2; veneer sync u --work w2; ls -A w2").Output);
    }
}
