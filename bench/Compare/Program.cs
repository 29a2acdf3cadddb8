using System.CommandLine;
using Veneer.Compare;

// Before anything else, so that a piece of work starts soon.
if (args is ["work", .. var words]) { return Work.Run(words); }

PrivateNamespace.Enter(lastSignal: "TERM"); // so that there is time to switch io_uring back

var smoke = new Option<bool>("--smoke") { Description = "Two minutes: few rounds, small trees, and mostly the operations." };
var rounds = new Option<int?>("--rounds") { Description = "How often each row is measured. Default: 5." };
var rows = new Option<string[]>("--rows") { Description = "Rows or groups: operations, growth, server, work. Default: all.", AllowMultipleArgumentsPerToken = true };
var contenders = new Option<string[]>("--contenders") { Description = "Who is measured. Default: all that are installed.", AllowMultipleArgumentsPerToken = true };
var filesystem = new Option<Filesystem>("--fs") { Description = "Where the layers are, in memory: tmpfs, ext4, xfs or btrfs.", DefaultValueFactory = _ => Filesystem.Ext4 };
var memoryFiles = new Option<int?>("--memory-files") { Description = "Files that are walked before memory is looked at. Default: 100,000." };
var million = new Option<bool>("--million") { Description = "The same as --memory-files 1000000." };
var seconds = new Option<int?>("--seconds") { Description = "Begin no measurement after so long." };
var limit = new Option<int?>("--limit") { Description = "Give a measurement up after so many seconds. Default: 300." };
var output = new Option<DirectoryInfo>("--output") { Description = "Where results go.", DefaultValueFactory = _ => new DirectoryInfo("bench/results") };
var command = new RootCommand("Measures Veneer beside kernel overlayfs and others, in memory and in private namespaces.")
{
    smoke, rounds, rows, contenders, filesystem, memoryFiles, million, seconds, limit, output,
};
command.SetAction(parsed =>
{
    if (PrivateNamespace.Obstacle is { } obstacle)
    {
        Console.Error.WriteLine(obstacle);
        return 2;
    }
    bool isSmoke = parsed.GetValue(smoke);
    Sizes sizes = isSmoke ? Sizes.Smoke : new Sizes();
    return Session.Run(new Settings
    {
        Filesystem = parsed.GetValue(filesystem),
        Rounds = parsed.GetValue(rounds) ?? (isSmoke ? 2 : 5),
        Rows = parsed.GetValue(rows) is { Length: > 0 } some ? some : isSmoke ? Row.OfSmoke : [],
        Contenders = parsed.GetValue(contenders) ?? [],
        Time = TimeSpan.FromSeconds(parsed.GetValue(seconds) ?? (isSmoke ? 105 : 24 * 3600)),
        Limit = parsed.GetValue(limit) ?? (isSmoke ? 30 : 300),
        Output = parsed.GetRequiredValue(output),
        Sizes = sizes with { MemoryFiles = parsed.GetValue(million) ? 1_000_000 : parsed.GetValue(memoryFiles) ?? sizes.MemoryFiles },
    });
});
return command.Parse(args).Invoke();
