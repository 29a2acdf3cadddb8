using System.CommandLine;
using Veneer.Oracle;

PrivateNamespace.Enter();

var seeds = new Option<string>("--seeds")
{
    Description = "Seeds to try: N, or A-B. Each is reproducible.",
    DefaultValueFactory = _ => $"1-{int.MaxValue}",
};
var seconds = new Option<int>("--seconds") { Description = "Stop after so long.", DefaultValueFactory = _ => int.MaxValue / 1000 };
var operations = new Option<int>("--ops") { Description = "Operations of each seed.", DefaultValueFactory = _ => 120 };
var layers = new Option<int>("--layers") { Description = "Lower layers, 1 to 3; 0: by the seed." };
var filesystem = new Option<Filesystem>("--fs") { Description = "Where the layers are." };
var options = new Option<string>("--options") { Description = "Mount options of both sides.", DefaultValueFactory = _ => "" };
var testedOptions = new Option<string>("--tested-options")
{
    Description = "Further mount options of the tested side.",
    DefaultValueFactory = _ => "",
};
var tested = new Option<string?>("--tested")
{
    Description = "Who is tested: kernel, fuse-overlayfs, or a command with {options} and {mnt}. Default: Veneer.",
};
var with = new Option<Features[]>("--with") { Description = "Features to add.", AllowMultipleArgumentsPerToken = true };
var without = new Option<Features[]>("--without") { Description = "Features to leave out.", AllowMultipleArgumentsPerToken = true };
var replay = new Option<FileInfo?>("--replay")
{
    Description = "A file with the operations to run over the layers of the first seed, one a line.",
};
var command = new RootCommand("Compares random operations on Veneer and on kernel overlayfs.")
{
    seeds, seconds, operations, layers, filesystem, options, testedOptions, tested, with, without, replay,
};
command.SetAction(parsed =>
{
    if (PrivateNamespace.Obstacle is { } obstacle)
    {
        Console.Error.WriteLine(obstacle);
        return 2;
    }
    string[] range = parsed.GetRequiredValue(seeds).Split('-');
    int first = int.Parse(range[0]);
    var settings = new Settings
    {
        Tested = parsed.GetValue(tested) is { } name ? Mounter.Parse(name, null) : Mounter.UnderTest,
        FirstSeed = first,
        LastSeed = range.Length > 1 ? int.Parse(range[1]) : first,
        Time = TimeSpan.FromSeconds(parsed.GetValue(seconds)),
        Operations = parsed.GetValue(operations),
        Layers = parsed.GetValue(layers),
        Filesystem = parsed.GetValue(filesystem),
        Options = parsed.GetRequiredValue(options),
        TestedOptions = parsed.GetRequiredValue(testedOptions),
        Features = (Features.Default | Combined(with)) & ~Combined(without),
    };
    if (parsed.GetValue(replay) is { } file)
    {
        Operation[] list =
            [.. File.ReadLines(file.FullName).Select(l => l.Trim()).Where(l => l.Length > 0 && l[0] != '#').Select(Operation.Parse)];
        Difference? difference = Search.Replay(settings, first, list);
        Console.WriteLine(difference is null ? "no difference" : $"{difference.Signature}\n{difference.Detail}");
        return difference is null ? 0 : 1;
    }
    Report report = Search.Run(settings, Console.WriteLine);
    Console.WriteLine($"{report.Seeds} seeds, {report.Steps} operations, {report.Findings.Count} kinds of difference");
    return report.Findings.Count == 0 ? 0 : 1;

    Features Combined(Option<Features[]> option) => (parsed.GetValue(option) ?? []).Aggregate(Features.None, (all, one) => all | one);
});
return command.Parse(args).Invoke();
