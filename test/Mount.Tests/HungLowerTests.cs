using System.Diagnostics;
using Veneer.Fuse.Wire;

namespace Veneer.Mount.Tests;

/// <summary>The filesystem of one lower layer does not answer: who needs it waits, and nobody else.</summary>
[Collection<Alone>] // what hangs here must not hang what another test has started
public sealed class HungLowerTests
{
    /// <summary>Far longer than anything here takes, and shorter than a test may.</summary>
    private static readonly TimeSpan Enough = TimeSpan.FromSeconds(30);

    /// <summary>A call that hangs in the lower layer, and what it gives once that answers.</summary>
    public static TheoryData<string, Opcode> Calls => new()
    {
        { "lookup", Opcode.Lookup },
        { "stat", Opcode.GetAttr },
        { "list", Opcode.ReadDir },
        { "list", Opcode.OpenDir },
        { "read", Opcode.Open },
        { "read", Opcode.Read },
        { "readlink", Opcode.ReadLink },
        { "getxattr", Opcode.GetXattr },
        { "listxattr", Opcode.ListXattr },
        { "append", Opcode.Read },
        { "chmod", Opcode.GetXattr },
        { "remove", Opcode.Lookup },
        { "rmdir", Opcode.ReadDir },
        { "rename", Opcode.Lookup },
    };

    [MountTheory]
    [MemberData(nameof(Calls))]
    public void Others_go_on_while_one_waits(string call, Opcode opcode)
    {
        using var layers = new HungLayers();
        Overlay overlay = layers.Mount();
        layers.Far.Hang(opcode);
        Task<string> waiter = Begin(() => Call(overlay.Merged, call));
        layers.Far.AwaitWaiting();

        WorkElsewhere(overlay.Merged, "1");
        // Who came before has asked for the lock: nobody waits behind him.
        WorkElsewhere(overlay.Merged, "2");
        Assert.False(waiter.IsCompleted);

        layers.Far.GoOn();
        Assert.Equal(Expected(call), Result(waiter));
    }

    [MountTheory]
    [InlineData("lookup", Opcode.Lookup)]
    [InlineData("list", Opcode.ReadDir)]
    [InlineData("read", Opcode.Read)]
    public void Who_waits_gets_an_error_when_the_layer_dies_and_the_others_stay(string call, Opcode opcode)
    {
        using var layers = new HungLayers();
        Overlay overlay = layers.Mount();
        layers.Far.Hang(opcode);
        Task<string> waiter = Begin(() => Call(overlay.Merged, call));
        layers.Far.AwaitWaiting();

        layers.Far.Die();

        Assert.Contains(Result(waiter), (string[])["ECONNABORTED", "ENOTCONN", "ESTALE"]);
        WorkElsewhere(overlay.Merged, "1");
    }

    [MountTheory]
    [InlineData("")]
    [InlineData("threads=1")]
    public void Many_wait_and_the_others_go_on(string options)
    {
        const int many = 80; // more than the kernel sends at once of what it reads ahead, unless told otherwise
        using var layers = new HungLayers(files: many);
        Overlay overlay = layers.Mount(Mounter.UnderTest.IsVeneer ? options : "");
        layers.Far.Hang(Opcode.Open, Opcode.Read);
        Task<string>[] waiters = [.. Enumerable.Range(0, many).Select(i => Begin(() => Sys.ReadText(overlay.Merged / $"far/file{i}")))];
        layers.Far.AwaitWaiting(many);

        WorkElsewhere(overlay.Merged, "1");

        layers.Far.GoOn();
        Assert.All(waiters, waiter => Assert.Equal("far", Result(waiter)));
    }

    /// <summary>More than a server has threads for at once: they are made ready faster, the more there are who wait.</summary>
    [MountFact(OnlyVeneer = "It has threads.")]
    public void A_crowd_that_waits_does_not_keep_the_others_waiting()
    {
        Assert.SkipWhen(HasRings, "Each ring has one thread, and more are started one by one: docs/differences.md.");
        const int many = 400;
        using var layers = new HungLayers(files: many);
        Overlay overlay = layers.Mount();
        layers.Far.Hang(Opcode.Open, Opcode.Read);
        Task<string>[] waiters = [.. Enumerable.Range(0, many).Select(i => Begin(() => Sys.ReadText(overlay.Merged / $"far/file{i}")))];

        WorkElsewhere(overlay.Merged, "1");

        Assert.DoesNotContain(waiters, waiter => waiter.IsCompleted);
        layers.Far.GoOn();
        Assert.All(waiters, waiter => Assert.Equal("far", Result(waiter)));
    }

    [MountFact]
    public void A_layer_above_one_that_hangs_is_read()
    {
        using var layers = new HungLayers();
        Overlay overlay = layers.Mount();
        layers.Far.Hang();

        Assert.Equal("near", Result(Begin(() => Sys.ReadText(overlay.Merged / "near/file"))));
        Assert.Equal(["file"], Result(Begin(() => (overlay.Merged / "near").Entries())));
        WorkElsewhere(overlay.Merged, "1");
        layers.Far.GoOn();
    }

    /// <summary>Kernel overlayfs waits with the layer's filesystem, which waits for its server.</summary>
    [MountTheory(OnlyVeneer = "FUSE waits for who has taken the request.")]
    [InlineData("stat", "far/unseen")]
    [InlineData("cat", "far/file")]
    [InlineData("ls", "far/sub")]
    [InlineData("readlink", "far/link")]
    public void Who_waits_can_be_killed(string program, string path)
    {
        Assert.SkipWhen(HasRings, "Only the thread of a ring can answer its requests: docs/differences.md.");
        using var layers = new HungLayers();
        Overlay overlay = layers.Mount();
        layers.Far.Hang();
        var start = new ProcessStartInfo(program, [overlay.Merged / path]) { RedirectStandardOutput = true, RedirectStandardError = true };
        using Process process = Programs.Start(start);
        layers.Far.AwaitWaiting();

        process.Kill();

        Assert.True(process.WaitForExit(Enough));
        layers.Far.GoOn();
        Assert.Equal("far", Result(Begin(() => Sys.ReadText(overlay.Merged / "far/file"))));
        Assert.Equal("6", Call(overlay.Merged, "lookup"));
    }

    /// <summary>Callers are killed who look names up, and the kernel forgets the directories before the lookups end.</summary>
    [MountFact(OnlyVeneer = "FUSE waits for who has taken the request.")]
    public void A_lookup_that_ends_late_keeps_its_directory()
    {
        Assert.SkipWhen(HasRings, "Only the thread of a ring can answer its requests: docs/differences.md.");
        const int many = 4;
        using var layers = new HungLayers();
        FilePath group = layers.Beside / "far/far/group";
        Sys.MakeDirectory(group, Oct(755));
        for (int i = 0; i < many; i++)
        {
            Sys.MakeDirectory(group / $"{i}", Oct(755));
            Sys.Write(group / $"{i}/file", "far");
        }
        Overlay overlay = layers.Mount("redirect_dir=on");
        FilePath shown = overlay.Merged / "far/group";
        Sys.Write(shown / "mine", "mine");
        Sys.Link(shown / "mine", overlay.Merged / "yours/linked");
        Sys.DropCaches();
        for (int i = 0; i < many; i++) { _ = Sys.Stat(shown / $"{i}"); }
        _ = Sys.Stat(shown / "mine");
        using Descriptor open = Sys.Open(overlay.Merged / "yours/linked", OpenFlags.ReadOnly);
        layers.Far.Hang(Opcode.Lookup);

        KillWaiting(layers.Far, [.. Enumerable.Range(0, many).Select(i => ("stat", (string)(shown / $"{i}/file")))]);
        for (int i = 0; i < 3; i++) { Sys.DropCaches(); } // the directories go before what is above them
        layers.Far.GoOn();
        Assert.True(SpinWait.SpinUntil(() => layers.Far.Waiting == 0, Enough));
        Assert.Equal("far", Result(Begin(() => Sys.ReadText(shown / "0/file"))));

        // A name that is found through a directory that was moved, beside another in its old place.
        Sys.Rename(shown, overlay.Merged / "far/moved");
        Sys.MakeDirectory(shown, Oct(755));
        Sys.Write(shown / "mine", "other");
        Sys.ChangeMode(shown / "mine", Oct(600));
        open.ChangeMode(Oct(751));
        Sys.Append(overlay.Merged / "yours/linked", "+");

        Assert.Equal(Oct(751), Sys.Stat(overlay.Upper / "yours/linked").Mode & 0xFFFu);
        Assert.Equal("mine+", Sys.ReadText(overlay.Upper / "far/moved/mine"));
        Assert.Equal(Oct(600), Sys.Stat(overlay.Upper / "far/group/mine").Mode & 0xFFFu);
        Assert.Equal("other", Sys.ReadText(overlay.Upper / "far/group/mine"));
    }

    /// <summary>Callers are killed who open small files, and the kernel forgets these files before the opens end.</summary>
    [MountFact(OnlyVeneer = "FUSE waits for who has taken the request.")]
    public void An_open_that_ends_late_keeps_nobody_else_waiting()
    {
        Assert.SkipWhen(HasRings, "Only the thread of a ring can answer its requests: docs/differences.md.");
        const int hung = 3, many = 40;
        using var layers = new HungLayers(files: 20);
        for (int i = 0; i < many; i++) { Sys.Write(layers.Beside / $"near/near/{i}", "near"); }
        Overlay overlay = layers.Mount();
        for (int i = hung; i < 20; i++) { _ = Sys.ReadText(overlay.Merged / $"far/file{i}"); } // small files are likely to be read
        for (int i = 0; i < hung; i++) { _ = Sys.Stat(overlay.Merged / $"far/file{i}"); }
        Sys.MakeDirectory(overlay.Merged / "near/copied", Oct(755));
        using Descriptor near = Sys.Open(overlay.Merged / "near", OpenFlags.Path);
        layers.Far.Hang(Opcode.Open);

        KillWaiting(layers.Far, [.. Enumerable.Range(0, hung).Select(i => ("cat", (string)(overlay.Merged / $"far/file{i}")))]);
        Sys.DropCaches();

        Result(Begin(() =>
        {
            for (int i = 0; i < many; i++) { Sys.Append(overlay.Merged / $"near/{i}", "+"); }
            return true;
        }));
        layers.Far.GoOn();
        for (int i = 0; i < hung; i++) { Assert.Equal("far", Sys.ReadText(overlay.Merged / $"far/file{i}")); }
        for (int i = 0; i < many; i++) { Assert.Equal("near+", Sys.ReadText(overlay.Upper / $"near/{i}")); }
    }

    /// <summary>Starts programs, and kills them when they all wait.</summary>
    private static void KillWaiting(HangingMount far, params (string Program, string Path)[] calls)
    {
        Process[] processes = [.. calls.Select(call => Programs.Start(
            new ProcessStartInfo(call.Program, [call.Path]) { RedirectStandardOutput = true, RedirectStandardError = true }))];
        far.AwaitWaiting(processes.Length);
        foreach (Process process in processes)
        {
            process.Kill();
            Assert.True(process.WaitForExit(Enough));
            process.Dispose();
        }
    }

    [MountFact(OnlyVeneer = "The kernel has no such call.")]
    public void Shutdown_gives_up_what_waits_and_frees_upper()
    {
        using var layers = new HungLayers();
        Overlay overlay = layers.Mount();
        layers.Far.Hang(Opcode.Lookup);
        Task<string> waiter = Begin(() => Call(overlay.Merged, "lookup"));
        layers.Far.AwaitWaiting();

        Command.Result result = Command.Run([Mounter.Binary, "shutdown", overlay.Merged]);

        Assert.Equal(10, result.ExitCode);
        Assert.Contains("does not answer", result.Error, StringComparison.Ordinal);
        if (!HasRings) { Assert.Equal("EIO", Result(waiter)); }
        Assert.Equal(Errno.EIO, Sys.ErrorOf(() => Sys.ReadText(overlay.Merged / "near/file")));
        Assert.DoesNotContain(
            overlay.Servers,
            pid => ((FilePath)$"/proc/{pid}/fd")
                .Entries()
                .Any(fd => Sys.ReadLink($"/proc/{pid}/fd/{fd}").EndsWith("/upper", StringComparison.Ordinal)));
        layers.Far.GoOn();
        _ = Result(waiter);
    }

    /// <summary>A copy-up that waits for its data ends before the overlay does, and what begins later is refused.</summary>
    [MountFact(OnlyVeneer = "The kernel has no such call.")]
    public void Shutdown_waits_for_what_was_begun()
    {
        using var layers = new HungLayers();
        Overlay overlay = layers.Mount("passthrough=off");
        layers.Far.Hang(Opcode.Read);
        Task<string> writer = Begin(() => Do(() =>
        {
            using Descriptor opened = Sys.Open(overlay.Merged / "far/file", OpenFlags.WriteOnly);
        }));
        layers.Far.AwaitWaiting();
        Task<Command.Result> shutdown = Begin(() => Command.Run([Mounter.Binary, "shutdown", overlay.Merged]));
        int asked = 0;
        Patience.Eventually(() => Assert.Equal(Errno.EIO, Sys.ErrorOf(() => Sys.Stat(overlay.Merged / $"mine/unknown{asked++}"))));
        Assert.False(writer.IsCompleted || shutdown.IsCompleted);
        Assert.False((overlay.Upper / "far/file").Exists);

        layers.Far.GoOn();

        Assert.Equal("", Result(writer));
        Assert.True(Result(shutdown).ExitCode == 0, Result(shutdown).Text);
        Assert.Equal("far", Sys.ReadText(overlay.Upper / "far/file"));
    }

    /// <summary>Who waits in the mount keeps it busy, as with the kernel; by force it goes, and so does the server.</summary>
    [MountFact(OnlyVeneer = "It is about the server's process.")]
    public void The_server_ends_with_its_mount_though_a_request_waits()
    {
        using var layers = new HungLayers();
        Overlay overlay = layers.Mount();
        layers.Far.Hang(Opcode.Lookup);
        Task<string> waiter = Begin(() => Call(overlay.Merged, "lookup"));
        layers.Far.AwaitWaiting();
        Assert.Equal(Errno.EBUSY, Libc.Unmount(overlay.Merged.Bytes, lazy: false));

        Command.Require("umount", "-i", "-f", "-l", overlay.Merged);

        Assert.Equal("ECONNABORTED", Result(waiter));
        Assert.True(SpinWait.SpinUntil(() => !IsLocked(overlay.Upper), Enough), "upper is still locked");
        layers.Far.GoOn();
        Assert.True(SpinWait.SpinUntil(() => overlay.Servers.Count == 0, Enough), "the server has not ended");
        overlay.Mount();
        Assert.Equal("6", Call(overlay.Merged, "lookup"));
    }

    /// <summary>Where its layers are is looked at by a thread of its own.</summary>
    [MountFact(OnlyVeneer = "It is about the server's process.")]
    public void The_server_frees_upper_though_it_waits_to_see_where_a_layer_is()
    {
        using var layers = new HungLayers();
        Overlay overlay = layers.Mount();
        layers.Far.Hang(Opcode.GetAttr);
        Sys.MakeDirectory(layers.Beside / "other");
        Sys.RemoveDirectory(layers.Beside / "other");
        layers.Far.AwaitWaiting();

        Command.Require("umount", "-i", "-f", "-l", overlay.Merged);

        Assert.True(SpinWait.SpinUntil(() => !IsLocked(overlay.Upper), Enough), "upper is still locked");
        layers.Far.GoOn();
        Assert.True(SpinWait.SpinUntil(() => overlay.Servers.Count == 0, Enough), "the server has not ended");
        overlay.Mount();
    }

    [MountFact(OnlyVeneer = "It is about the server's process.")]
    public void Tools_answer_and_a_second_signal_ends_the_server_though_a_request_waits()
    {
        using var layers = new HungLayers();
        Overlay overlay = layers.Mount();
        layers.Far.Hang(Opcode.Lookup);
        Task<string> waiter = Begin(() => Call(overlay.Merged, "lookup"));
        layers.Far.AwaitWaiting();

        foreach (string command in (string[])["stats", "layers", "status", "list"])
        {
            string[] words = command == "list" ? [command] : [command, overlay.Merged];
            Assert.Equal(0, Command.Run([Mounter.Binary, .. words]).ExitCode);
        }
        // It may report this process, which waits, or not.
        Assert.Contains(Command.Run([Mounter.Binary, "holders", overlay.Merged]).ExitCode, (int[])[0, 6, 10]);

        string server = overlay.Servers.Single().ToString(System.Globalization.CultureInfo.InvariantCulture);
        Command.Require("kill", "-TERM", server);
        Assert.True(
            SpinWait.SpinUntil(() => !Sys.ReadText("/proc/self/mountinfo").Contains(overlay.Merged, StringComparison.Ordinal), Enough),
            "it is still mounted");
        Assert.False(waiter.IsCompleted);
        Command.Require("kill", "-TERM", server);

        Assert.Contains(Result(waiter), (string[])["ECONNABORTED", "ENOTCONN"]);
        Assert.True(SpinWait.SpinUntil(() => !IsLocked(overlay.Upper), Enough), "upper is still locked");
        layers.Far.GoOn();
        overlay.Mount();
        Assert.Equal("6", Call(overlay.Merged, "lookup"));
    }

    private static bool IsLocked(FilePath directory) => Sys.ReadText("/proc/locks").Split('\n').Any(line =>
        line.Contains("FLOCK", StringComparison.Ordinal) && line.Contains($":{Sys.Stat(directory).Ino} ", StringComparison.Ordinal));

    private static bool HasRings =>
        File.Exists("/sys/module/fuse/parameters/enable_uring") && Sys.ReadText("/sys/module/fuse/parameters/enable_uring").StartsWith('Y');

    private static string Call(FilePath merged, string call)
    {
        FilePath far = merged / "far";
        string result = "";
        Errno error = Sys.ErrorOf(() => result = call switch
        {
            "lookup" => Sys.Stat(far / "unseen").Size.ToString(System.Globalization.CultureInfo.InvariantCulture),
            "stat" => Sys.Stat(far / "unseen").Size.ToString(System.Globalization.CultureInfo.InvariantCulture),
            "list" => string.Join(' ', (far / "sub").Entries()),
            "read" => Sys.ReadText(far / "file"),
            "readlink" => Sys.ReadLink(far / "link"),
            "getxattr" => Sys.GetXattrText(far / "file", "user.note"),
            "listxattr" => string.Join(' ', Sys.ListXattr(far / "file")),
            "append" => Do(() => Sys.Append(far / "file", "+")) + Sys.ReadText(far / "file"),
            "chmod" => Do(() => Sys.ChangeMode(far / "file", Oct(600))) + Convert.ToString(Sys.Stat(far / "file").Mode & 0xFFF, 8),
            "remove" => Do(() => Sys.Unlink(far / "unseen")) + (far / "unseen").Exists,
            "rmdir" => Do(() => Sys.RemoveDirectory(far / "empty")) + (far / "empty").Exists,
            "rename" => Do(() => Sys.Rename(far / "file", far / "moved")) + Sys.ReadText(far / "moved"),
            _ => throw new ArgumentException(call),
        });
        return error.IsError ? error.ToString() : result;
    }

    private static string Expected(string call) => call switch
    {
        "lookup" or "stat" => "6",
        "list" => "one two",
        "read" or "rename" => "far",
        "readlink" => "where",
        "getxattr" => "noted",
        "listxattr" => "user.note",
        "append" => "far+",
        "chmod" => "600",
        _ => "False",
    };

    private static string Do(Action action)
    {
        action();
        return "";
    }

    /// <summary>What needs nothing of the layer that hangs.</summary>
    private static void WorkElsewhere(FilePath merged, string round)
    {
        Result(Begin(() =>
        {
            Sys.Write(merged / $"mine/{round}", "mine");
            Sys.Rename(merged / $"mine/{round}", merged / $"mine/{round}-moved");
            Sys.Rename(merged / $"mine/{round}-moved", merged / $"yours/{round}");
            Sys.Link(merged / $"yours/{round}", merged / $"mine/{round}-linked");
            Sys.Unlink(merged / $"yours/{round}");
            Sys.MakeDirectory(merged / $"mine/{round}-directory");
            Sys.Rename(merged / $"mine/{round}-directory", merged / $"yours/{round}-directory");
            Sys.RemoveDirectory(merged / $"yours/{round}-directory");
            Assert.Equal("mine", Sys.ReadText(merged / $"mine/{round}-linked"));
            Assert.Equal("near", Sys.ReadText(merged / "near/file"));
            Assert.NotEmpty((merged / "mine").Entries());
            return true;
        }));
    }

    private static Task<T> Begin<T>(Func<T> function)
    {
        var task = new Task<T>(function, TaskCreationOptions.LongRunning);
        task.Start(TaskScheduler.Default);
        return task;
    }

    private static T Result<T>(Task<T> task) =>
        task.Wait(Enough) ? task.Result : throw new TimeoutException("somebody waits who need not");

    /// <summary>A layer that answers above one that may not.</summary>
    private sealed class HungLayers : IDisposable
    {
        private readonly FilePath home = Scratch.New();
        private Overlay? overlay;
        private readonly List<Descriptor> held = [];

        public HungLayers(int files = 0)
        {
            foreach (string name in (string[])["near", "near/near", "far", "far/far", "far/far/sub", "far/far/empty", "shown"])
            {
                Sys.MakeDirectory(home / name, Oct(755));
            }
            Sys.Write(home / "near/near/file", "near");
            Sys.Write(home / "far/far/file", "far");
            Sys.Write(home / "far/far/unseen", "unseen");
            Sys.Write(home / "far/far/sub/one", "");
            Sys.Write(home / "far/far/sub/two", "");
            Sys.SymbolicLink("where", home / "far/far/link");
            Sys.SetXattr(home / "far/far/file", "user.note", "noted");
            for (int i = 0; i < files; i++) { Sys.Write(home / $"far/far/file{i}", "far"); }
            Far = new HangingMount(home / "far", home / "shown");
        }

        public HangingMount Far { get; }

        /// <summary>The directory that the layers are in.</summary>
        public FilePath Beside => home;

        public Overlay Mount(string options = "")
        {
            overlay = Overlay.With(over: [home / "near", home / "shown"], options: options, seconds: 120);
            foreach (string name in (string[])["mine", "yours"]) { Sys.MakeDirectory(overlay.Merged / name, Oct(755)); }
            foreach (string name in (string[])["near/file", "far/file", "far/sub", "far/empty", "far/link"])
            {
                _ = Sys.Stat(overlay.Merged / name);
            }
            // Names that later calls need must stay in the kernel's cache, even if somebody drops caches: a new lookup would ask
            // all layers.
            foreach (string name in (string[])["mine", "yours", "near", "near/file"])
            {
                held.Add(Sys.Open(overlay.Merged / name, OpenFlags.Path));
            }
            return overlay;
        }

        public void Dispose()
        {
            Far.GoOn(); // or nothing can be unmounted
            held.ForEach(one => one.Dispose());
            overlay?.Dispose();
            Far.Dispose();
            Sys.RemoveTree(home);
        }
    }
}
