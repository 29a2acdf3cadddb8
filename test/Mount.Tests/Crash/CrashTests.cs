using System.Text;

namespace Veneer.Mount.Tests.Crash;

/// <summary>The server is killed at each step of each operation: the old state is there then or the new one, and all goes on.</summary>
public sealed class CrashTests
{
    private const string OnlyVeneer = "Nobody else has steps that are known.";

    /// <summary>On tmpfs, where it is fast; VENEER_TEST_CRASH names others.</summary>
    private static IEnumerable<Filesystem> Filesystems =>
        (Environment.GetEnvironmentVariable("VENEER_TEST_CRASH") ?? nameof(Filesystem.Tmpfs)).Split(',').Select(Enum.Parse<Filesystem>);

    /// <summary>Mounts on a disk as well, where they do more: what is in memory needs no sentinel of failed writes.</summary>
    private static IEnumerable<Filesystem> FilesystemsOfMounts => Filesystems.Append(Filesystem.Ext4).Distinct();

    public static TheoryData<Filesystem, string> Operations
    {
        get
        {
            var data = new TheoryData<Filesystem, string>();
            foreach (Operation operation in Operation.All)
            {
                foreach (Filesystem filesystem in operation.LeftInWork is null ? Filesystems : FilesystemsOfMounts)
                {
                    data.Add(filesystem, operation.Name);
                }
            }
            return data;
        }
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [MemberData(nameof(Operations))]
    public void Killed_at_any_step_it_leaves_the_old_or_the_new_state(Filesystem on, string name)
    {
        Operation operation = Operation.All.Single(one => one.Name == name);
        TreeImage before, after;
        string[] steps;
        using (var untouched = new Trial(operation, on)) { before = untouched.ViewBefore(); }
        using (var whole = new Trial(operation, on))
        {
            after = whole.RunThrough();
            steps = whole.Steps;
        }
        Assert.NotEmpty(steps);

        var problems = new StringBuilder();
        for (int step = 1; step <= steps.Length; step++)
        {
            using var trial = new Trial(operation, on, step);
            string problem = trial.Run(before, after);
            if (problem.Length > 0)
            {
                problems.AppendLine($"Killed at step {step} of {steps.Length}, {trial.Steps[^1]}:").AppendLine(problem);
            }
        }
        Assert.True(problems.Length == 0, problems.ToString());
    }

    public static TheoryData<Filesystem> Unmounts => [.. FilesystemsOfMounts];

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [MemberData(nameof(Unmounts))]
    public void Killed_while_it_unmounts_it_leaves_what_the_kernel_cleans_up(Filesystem on)
    {
        var problems = new StringBuilder();
        bool wasKilled = true;
        int step = 0;
        while (wasKilled)
        {
            using var trial = new Trial(Operation.BeforeUnmount, on, ++step);
            string problem = trial.RunUnmount();
            wasKilled = trial.WasKilled;
            if (problem.Length > 0) { problems.AppendLine($"Killed at step {step}, {trial.Steps[^1]}:").AppendLine(problem); }
        }
        Assert.True(step > 3, "It leaves nothing in work.");
        Assert.True(problems.Length == 0, problems.ToString());
    }

    /// <summary>What changes names in steps there, or makes whiteouts.</summary>
    public static TheoryData<UpperOn, string> OperationsInSteps
    {
        get
        {
            var data = new TheoryData<UpperOn, string>();
            foreach (string name in (string[])
                [
                    "mkdir over a whiteout of a directory", "unlink a copied-up file", "rmdir a directory with whiteouts",
                    "rename a merged directory over one with whiteouts", "exchange an upper file with a directory",
                ])
            {
                data.Add(UpperOn.Bindfs, name);
            }
            data.Add(UpperOn.KernelOverlay, "rename a merged directory over one with whiteouts");
            return data;
        }
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [MemberData(nameof(OperationsInSteps))]
    public void Killed_between_the_steps_of_an_odd_upper_it_leaves_the_old_or_the_new_state(UpperOn upperOn, string name)
    {
        Operation operation = Operation.All.Single(one => one.Name == name);
        TreeImage before, after;
        int steps;
        using (var untouched = new Trial(operation, Filesystem.Tmpfs)) { before = untouched.ViewBefore(); }
        using (var kernel = new Trial(operation, Filesystem.Tmpfs)) { after = kernel.RunWithKernel(); }
        using (var whole = new Trial(operation, Filesystem.Tmpfs, upperOn: upperOn))
        {
            Assert.Equal("", TreeImage.Difference(after, whole.RunThroughSteps()));
            steps = whole.Steps.Length;
        }
        Assert.NotEqual(0, steps);

        var problems = new StringBuilder();
        for (int step = 1; step <= steps; step++)
        {
            using var trial = new Trial(operation, Filesystem.Tmpfs, step, upperOn);
            string problem = trial.RunInSteps(before, after);
            if (problem.Length > 0) { problems.AppendLine($"Killed at step {step} of {steps}, {trial.Steps[^1]}:").AppendLine(problem); }
        }
        Assert.True(problems.Length == 0, problems.ToString());
    }

    /// <summary>Upper is not to be trusted after a crash of the machine, and nothing can tell one from a crash of the server.</summary>
    [MountFact(OnlyVeneer = OnlyVeneer)]
    public void Killed_while_it_mounts_volatile_it_is_refused_or_mounts_again()
    {
        bool wasKilled = true;
        for (int step = 1; wasKilled; step++)
        {
            using var overlay = Overlay.With(lowers: Operation.Lowers, upper: Operation.Upper, options: "volatile", mounted: false);
            using var server = new SteppedServer(overlay.Beside("steps"), step);
            FilePath mark = overlay.Work / "work/incompat/volatile";
            const Facets kept = Facets.Visible | Facets.Ino; // the record changes st_ctime of the root
            TreeImage upper = TreeImage.Of(overlay.Upper, kept);
            server.CountSteps();

            _ = TryMount(server);
            wasKilled = server.WasKilled;
            overlay.KillServer();

            string at = $"Killed at step {step}, {server.Steps[^1]}";
            // Who held it stays written there; nobody believes it without the lock (ADR 10).
            if (Sys.HasXattr(overlay.Upper, "trusted.overlay.veneer.owner"))
            {
                Sys.RemoveXattr(overlay.Upper, "trusted.overlay.veneer.owner");
            }
            Assert.True(wasKilled || mark.Exists, "It serves, but upper has no mark.");
            _ = Sys.ErrorOf(() => Sys.RemoveXattr(overlay.Upper, "trusted.overlay.volatile")); // the record, which there may not be yet
            string difference = TreeImage.Difference(upper, TreeImage.Of(overlay.Upper, kept));
            Assert.True(difference == "", $"{at}: upper has changed: {difference}");
            overlay.Options = "";
            // The record is written first, since a mark without one can be understood by nobody.
            bool isMarked = mark.Exists || (overlay.Work / "veneer-volatile").Exists;
            Assert.True(TryMount(Mounter.UnderTest) != isMarked, $"{at}: Veneer mounts it: {isMarked}");
            Assert.True(TryMount(Mounter.Kernel) != mark.Exists, $"{at}: the kernel mounts it: {!mark.Exists}");
            overlay.ForgetVolatile();
            Assert.True(TryMount(Mounter.UnderTest), $"{at}: Veneer does not mount it without the mark");

            bool TryMount(Mounter by)
            {
                try { overlay.Mount(by); }
                catch (Exception refused) when (refused is InvalidOperationException or SysException) { return false; }
                if (by != server) { overlay.Unmount(); }
                return true;
            }
        }
    }

    [MountTheory(OnlyVeneer = OnlyVeneer)]
    [InlineData("", 4)]
    [InlineData("fsync=strict", 8)]
    [InlineData("volatile", 0)]
    public void A_copy_is_on_disk_before_it_has_its_name(string options, int synced)
    {
        using var overlay = Overlay.With(lowers: Operation.Lowers, options: options, mounted: false);
        using var server = new SteppedServer(overlay.Beside("steps"), last: 0);
        overlay.Mount(server);
        server.CountSteps();

        foreach (string name in (string[])["file", "sparse", "one", "deep/er/est/file", "full"])
        {
            Sys.SetXattr(overlay.Merged / name, "user.x", "y");
        }
        overlay.Unmount();
        overlay.ForgetVolatile();

        // Only the parent may be marked after the copy was synced.
        string[] steps = [.. server.Steps.Where(step => !step.Contains("trusted.overlay.impure", StringComparison.Ordinal))];
        int[] named = [
            .. Enumerable.Range(0, steps.Length).Where(
                i => (steps[i].StartsWith("linkat ", StringComparison.Ordinal) && steps[i].Contains(" \"\" ", StringComparison.Ordinal))
                    || steps[i].StartsWith("renameat", StringComparison.Ordinal))];
        Assert.True(named.Length == 8, string.Join('\n', steps));
        Assert.True(synced == named.Count(i => steps[i - 1].StartsWith("fsync ", StringComparison.Ordinal)), string.Join('\n', steps));
        Assert.True(synced == steps.Count(step => step.Contains("sync ", StringComparison.Ordinal)), string.Join('\n', steps));
    }
}
