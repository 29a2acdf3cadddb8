namespace Veneer.Oracle;

/// <summary>Makes a random list of operations out of a seed.</summary>
internal sealed class OperationMaker
{
    private readonly Dice dice;
    private readonly Settings settings;
    private readonly List<(int Weight, string Name, Func<string[]> Arguments)> table = [];

    private OperationMaker(Settings settings, int seed)
    {
        this.settings = settings;
        dice = Dice.For(seed, "operations");
        FillTable();
    }

    public static List<Operation> Make(Settings settings, int seed)
    {
        var maker = new OperationMaker(settings, seed);
        var operations = new List<Operation>();
        for (int i = 1; i <= settings.Operations; i++)
        {
            operations.Add(maker.Next());
            if (i % 20 == 0) { operations.Add(new Operation(Operation.Look, 0, [])); }
            if (i % 50 == 0 && settings.Has(Features.Remounts)) { operations.Add(new Operation(Operation.Remount, 0, [])); }
        }
        return operations;
    }

    private Operation Next()
    {
        int choice = dice.Below(table.Sum(t => t.Weight));
        foreach ((int weight, string name, Func<string[]> arguments) in table)
        {
            choice -= weight;
            if (choice < 0) { return new Operation(name, settings.Has(Features.Users) ? dice.Of(0, 0, 0, 1, 2) : 0, arguments()); }
        }
        throw new InvalidOperationException("The weights do not add up.");
    }

    private string Path()
    {
        if (settings.Has(Features.LongNames) && dice.Chance(0.01)) { return dice.Of("L255", "L256", "a/L255", "a/L256"); }
        int depth = dice.Of(1, 1, 2, 2, 2, 3);
        return string.Join('/', Enumerable.Range(0, depth).Select(_ => dice.Of(LayerMaker.Names)));
    }

    private string Mode() => dice.Of("644", "600", "755", "777", "444", "0", "4755", "2775", "1777");

    private string Number(params ReadOnlySpan<int> choices) => $"{dice.Of(choices)}";

    private string Byte() => $"{'A' + dice.Below(50)}";

    private string When() => $"{dice.Below(100_000)}.{dice.Below(1_000_000_000)}";

    private void Add(int weight, string name, Func<string[]> arguments) => table.Add((weight, name, arguments));

    private void FillTable()
    {
        Add(7, "mkdir", () => [Path(), Mode()]);
        Add(5, "rmdir", () => [Path()]);
        Add(8, "unlink", () => [Path()]);
        Add(8, "create", () => [Path(), dice.Of("excl", "", "trunc", "excl+trunc"), Mode(), Number(0, 3, 5000)]);
        Add(8, "write", () => [Path(), Number(0, 1, 4095, 10_000), Number(1, 10, 4096, 20_000), Byte(), dice.Of("", "append", "trunc")]);
        Add(8, "read", () => [Path()]);
        Add(4, "truncate", () => [Path(), Number(0, 1, 10, 4096, 100_000)]);
        Add(6, "chmod", () => [Path(), Mode()]);
        Add(4, "chown", () => [Path(), Number(-1, 0, 1000, 1001), Number(-1, 0, 1000), dice.Of("nofollow", "follow")]);
        Add(4, "utimes", () => [Path(), When(), dice.Of("nofollow", "follow")]);
        Add(4, "symlink", () => [dice.Of("a", "b", "a/b", "c/d", "nowhere"), Path()]);
        Add(3, "readlink", () => [Path()]);
        Add(7, "link", () => [Path(), Path(), dice.Of("nofollow", "nofollow", "follow")]);
        Add(12, "rename", () => [Path(), Path()]);
        Add(10, "stat", () => [Path(), dice.Of("nofollow", "follow")]);
        Add(8, "list", () => [dice.Of(Path(), Path(), ".")]);
        Add(2, "access", () => [Path(), Number(1, 2, 4, 6)]);
        Add(2, "copyup", () => [Path()]);
        Add(1, "umask", () => [dice.Of("0", "22", "77")]);
        Add(1, "statfs", () => []);
        Add(2, "rmtree", () => [Path()]);
        Add(1, "fsyncdir", () => [Path()]);
        AddWhen(Features.Xattrs, AddXattrs);
        AddWhen(Features.OverlayXattrs, AddOverlayXattrs);
        AddWhen(Features.Acl, AddAcls);
        AddWhen(Features.Special, () => Add(3, "mknod", () => [Path(), dice.Of("fifo", "socket", "char", "block", "whiteout"), Mode()]));
        AddWhen(Features.Descriptors, AddDescriptors);
        AddWhen(Features.Maps, () =>
        {
            Add(2, "mapwrite", () => [Path(), Byte()]);
            Add(1, "mapread", () => [Path(), Byte()]);
        });
        AddWhen(Features.RenameFlags,
            () => Add(4, "rename2", () => [Path(), Path(), dice.Of("noreplace", "exchange", "exchange", "whiteout")]));
        AddWhen(Features.Unnamed, () => Add(2, "tmpfile", () => [dice.Of(Path(), "."), dice.Of("", Path()), Mode()]));
        AddWhen(Features.Allocate,
            () => Add(2, "fallocate", () => [Path(), dice.Of("", "keep", "punch", "zero"), Number(0, 4096), Number(1, 4096, 20_000)]));
        AddWhen(Features.CopyRange, () => Add(2, "copyrange", () => [Path(), Path(), Number(10, 100_000)]));
        AddWhen(Features.Holes, () => Add(1, "holes", () => [Path()]));
    }

    private void AddWhen(Features feature, Action add)
    {
        if (settings.Has(feature)) { add(); }
    }

    private void AddXattrs()
    {
        Add(4, "setxattr",
            () => [Path(), dice.Of("user.x", "user.y", "trusted.t", "security.s"), Number(0, 1, 20, 1000), Number(0, 0, 1, 2)]);
        Add(3, "getxattr", () => [Path(), dice.Of("user.x", "user.y", "trusted.t", "security.s", "user.nope")]);
        Add(3, "listxattr", () => [Path()]);
        Add(2, "removexattr", () => [Path(), dice.Of("user.x", "user.y", "trusted.t", "user.dl")]);
    }

    private void AddOverlayXattrs()
    {
        Add(1, "setxattr", () =>
            [Path(), dice.Of("trusted.overlay.foo", "trusted.overlay.opaque", "user.overlay.foo", "trusted.overlay.whiteout"), "1", "0"]);
        Add(1, "getxattr",
            () => [Path(), dice.Of("trusted.overlay.foo", "trusted.overlay.opaque", "trusted.overlay.origin", "user.overlay.foo")]);
    }

    private void AddAcls()
    {
        Add(2, "setacl", () => [Path(), dice.Of("access", "default"), Number(7, 6, 4, 0), Number(7, 6, 5, 4)]);
        Add(1, "getxattr", () => [Path(), dice.Of("system.posix_acl_access", "system.posix_acl_default")]);
        Add(1, "removexattr", () => [Path(), dice.Of("system.posix_acl_access", "system.posix_acl_default")]);
    }

    private void AddDescriptors()
    {
        string Slot() => $"{dice.Below(4)}";
        Add(5, "open", () => [Slot(), Path(), dice.Of("r", "w", "rw", "rwc", "a", "d", "path"), Mode()]);
        Add(3, "close", () => [Slot()]);
        Add(4, "fwrite", () => [Slot(), Number(0, 5, 4096), Number(1, 100, 5000), Byte()]);
        Add(4, "fread", () => [Slot(), Number(0, 5), Number(10, 6000)]);
        Add(3, "fstat", () => [Slot()]);
        Add(1, "ftruncate", () => [Slot(), Number(0, 7, 9000)]);
        Add(1, "fchmod", () => [Slot(), Mode()]);
        Add(1, "fsync", () => [Slot()]);
        Add(2, "flist", () => [Slot()]);
        Add(1, "fchown", () => [Slot()]);
        Add(1, "futimes", () => [Slot(), When()]);
    }
}
