using System.CommandLine;
using Veneer.Compare;

// Before anything else, so that a piece of work starts soon.
if (args is ["work", .. var words]) { return Work.Run(words); }

PrivateNamespace.Enter(lastSignal: "TERM"); // so that there is time to switch io_uring back

var smoke = new Option<bool>("--smoke") { Description = "Two minutes: few rounds, small trees, and mostly the operations." };
var rounds = new Option<int?>("--rounds") { Description = "How often each row is measured. Default: 5." };
var rows = new Option<string[]>("--rows")
{
    Description = "Rows or groups: operations, rootless, growth, server, work; an unknown name lists all. Default: all.",
    AllowMultipleArgumentsPerToken = true,
};
var contenders = new Option<string[]>("--contenders")
{
    Description =
        "Who is measured: native, kernel, veneer, fuse-overlayfs, ...; an unknown name lists all. Default: all that are installed.",
    AllowMultipleArgumentsPerToken = true,
};
var filesystem = new Option<Filesystem>("--fs")
{
    Description = "Where the layers are, in memory: tmpfs, ext4, xfs or btrfs.",
    DefaultValueFactory = _ => Filesystem.Ext4,
};
var also = new Option<string[]>("--also")
{
    Description = "One more contender: NAME=COMMAND, with {options} and {mnt} in the command.",
    AllowMultipleArgumentsPerToken = true,
};
var most = new Option<int?>("--most") { Description = "How many entries the largest directory and tree have. Default: 1,000,000." };
var churn = new Option<double?>("--churn-minutes")
{
    Description = "For how long files come and go while memory is looked at. Default: 1.",
};
var seconds = new Option<int?>("--seconds") { Description = "Begin no measurement after so long." };
var limit = new Option<int?>("--limit") { Description = "Give a measurement up after so many seconds. Default: 300." };
var output = new Option<DirectoryInfo>("--output")
{
    Description = "Where results go.",
    DefaultValueFactory = _ => new DirectoryInfo("bench/results"),
};
var keep = new Option<bool>("--keep") { Description = "Rows that are not measured now keep the results of an earlier run." };
var report = new Option<bool>("--report") { Description = "Measure nothing: put the newest results into docs/performance.md." };
var command = new RootCommand("Measures Veneer beside kernel overlayfs and others, in memory and in private namespaces.")
{
    smoke, rounds, rows, contenders, also, filesystem, most, churn, seconds, limit, output, keep, report,
};
command.SetAction(parsed =>
{
    if (parsed.GetValue(report)) { return Report.Publish(parsed.GetRequiredValue(output)); }
    if (PrivateNamespace.Obstacle is { } obstacle)
    {
        Console.Error.WriteLine(obstacle);
        return 2;
    }
    string[] others = parsed.GetValue(also) ?? [];
    if (Array.Find(others, text => text.Split('=', 2) is not [{ Length: > 0 }, { Length: > 0 }]) is { } wrong)
    {
        Console.Error.WriteLine($"--also {wrong}: give NAME=COMMAND, with {{options}} and {{mnt}} in the command.");
        return 2;
    }
    if (others
        .Select(text => text.Split('=')[0])
        .Concat(Contender.All.Select(contender => contender.Name))
        .GroupBy(name => name, StringComparer.Ordinal)
        .FirstOrDefault(same => same.Count() > 1) is { } twice)
    {
        Console.Error.WriteLine($"--also {twice.Key}=...: there is a {twice.Key} already: give it another name.");
        return 2;
    }
    foreach ((string name, double? value) in (ReadOnlySpan<(string, double?)>)[
        ("--rounds", parsed.GetValue(rounds)), ("--most", parsed.GetValue(most)), ("--churn-minutes", parsed.GetValue(churn)),
        ("--seconds", parsed.GetValue(seconds)), ("--limit", parsed.GetValue(limit))])
    {
        if (value is <= 0)
        {
            Console.Error.WriteLine($"{name} {value}: give a number above 0.");
            return 2;
        }
    }
    DirectoryInfo results = parsed.GetRequiredValue(output);
    try
    {
        results.Create(); // now: what was measured for hours must not be lost at the end
    }
    catch (Exception problem) when (problem is IOException or UnauthorizedAccessException)
    {
        Console.Error.WriteLine($"--output {results}: no directory can be there: {problem.Message}");
        return 2;
    }
    bool isSmoke = parsed.GetValue(smoke);
    Sizes sizes = isSmoke ? Sizes.Smoke : new Sizes();
    return Session.Run(new Settings
    {
        Filesystem = parsed.GetValue(filesystem),
        Rounds = parsed.GetValue(rounds) ?? (isSmoke ? 2 : 5),
        Rows = parsed.GetValue(rows) is { Length: > 0 } some ? some : isSmoke ? Row.OfSmoke : [],
        Contenders = [
            .. parsed.GetValue(contenders) ?? [],
            .. parsed.GetValue(contenders) is { Length: > 0 } ? others.Select(text => text.Split('=')[0]) : []],
        Also = others,
        Keep = parsed.GetValue(keep),
        Time = TimeSpan.FromSeconds(parsed.GetValue(seconds) ?? (isSmoke ? 95 : 24 * 3600)),
        Limit = parsed.GetValue(limit) ?? (isSmoke ? 30 : 300),
        Output = results,
        Sizes = sizes with { Most = parsed.GetValue(most) ?? sizes.Most },
        ChurnSeconds = parsed.GetValue(churn) is { } minutes ? (int)(minutes * 60) : isSmoke ? 2 : 60,
    });
});
return command.Parse(args).Invoke();
