using System.Text.Json;
using System.Text.RegularExpressions;

namespace Veneer.Mount.Tests;

/// <summary>Who holds a directory or a mount, on leaks as they happen.</summary>
public sealed partial class HoldersTests : IDisposable
{
    private readonly CliSandbox sandbox = new();

    public void Dispose() => sandbox.Dispose();

    [GeneratedRegex(@"(?<=[ (])\d+(?=\)| \()|(?<=namespace )\d+|(?<=since )[-0-9]+ [:0-9]+ [-+]\d\d:\d\d", RegexOptions.None,
        matchTimeoutMilliseconds: 1000)]
    private static partial Regex Number();

    private (int ExitCode, string Text) Run(string script)
    {
        Outcome outcome = sandbox.Run(script);
        string text = sandbox.Relative(outcome.Output + outcome.Error);
        return (outcome.ExitCode, Number().Replace(text, "N"));
    }

    private void Holds(string script, params string[] lines)
    {
        (int exitCode, string text) = Run(script);
        Assert.Equal(string.Join('\n', lines) + "\n", text);
        Assert.Equal(10, exitCode);
    }

    private const string Upper =
        "└── upper of the overlay on m since N, served by process N (veneer mount -o lowerdir=l,upperdir=u,workdir=w m)";

    [MountTheory]
    [InlineData("veneer holders u", "u")]
    [InlineData("veneer mount -o $LAYERS m; veneer holders m", "m  fuse.veneer, served by veneer (N)")]
    [InlineData("veneer mount -o $LAYERS m; veneer umount m; veneer holders u", "u")]
    [InlineData("veneer mount -o $LAYERS m; kill -9 $(pgrep -x veneer); ended; umount -l m; veneer holders u", "u")]
    public void Nothing_holds_what_nothing_holds(string script, string what) =>
        Assert.Equal((0, what + ": nothing holds it\n"), Run(script));

    [MountFact]
    public void The_overlay_that_is_mounted()
    {
        Holds("veneer mount -o $LAYERS m; veneer holders u", "u", Upper, "    └── mounted on m");
        Holds("veneer mount -o $LAYERS m; veneer holders w", "w", Upper.Replace("upper of", "work of", StringComparison.Ordinal),
            "    └── mounted on m");
    }

    [MountFact]
    public void The_overlay_that_has_it_as_lower() =>
        Holds("veneer mount -o lowerdir=l m; veneer holders l", "l",
            "└── lower of the overlay on m since N, served by process N (veneer mount -o lowerdir=l m)", "    └── mounted on m");

    [MountFact]
    public void A_daemon_that_has_copied_the_namespace() =>
        Holds(
            "veneer mount -o $LAYERS m; unshare --mount --propagation private setsid sleep 30 & runs sleep; umount m; veneer holders u",
            "u", Upper, "    └── mount namespace N", "        ├── mounted on m", "        └── kept by sleep (N)");

    [MountFact]
    public void A_container_with_namespaces_and_a_root_of_its_own()
    {
        (int exitCode, string text) = Run(
            "veneer mount -o $LAYERS m; mkdir m/old; mkfifo m/pipe ready; "
            + "unshare --mount --pid --fork --propagation private bash -c 'exec 8>ready 9<>m/pipe; cd m; pivot_root . old; cd /; "
            + "echo >&8; exec 8>&-; read <&9' & read -r _ <ready; umount m; veneer holders u");

        Assert.Equal(10, exitCode);
        text = Regex.Replace(text, @".*\w+ is mounted on /old.*\n", "", RegexOptions.None, TimeSpan.FromSeconds(1)); // the host's root
        Assert.StartsWith(
            $"u\n{Upper}\n    ├── mount namespace N\n    │   ├── mounted on /\n    │   ├── kept by unshare (N)\n"
            + "    │   └── kept by bash (N)\n",
            text, StringComparison.Ordinal);
        Assert.Contains(
            "bash (N)\n        ├── cwd /\n        ├── root /\n        ├── open /pipe (descriptor N)\n"
            + "        └── open /pipe (descriptor N)\n",
            text, StringComparison.Ordinal);
    }

    [MountFact]
    public void A_namespace_that_only_a_bind_mount_keeps_shows_where_it_is()
    {
        (int exitCode, string text) = Run(
            CliSandbox.NamespaceAt
            + "mkdir ns; mount -t tmpfs t ns; touch ns/mnt; veneer mount -o $LAYERS m; namespace_at ns/mnt true; umount m; "
            + "veneer holders u");

        Assert.Contains("mount namespace N", text, StringComparison.Ordinal);
        Assert.Contains("├── mounted on m\n", text, StringComparison.Ordinal);
        Assert.Contains("kept by its file, mounted on ns/mnt", text, StringComparison.Ordinal);
        Assert.Equal(10, exitCode);
    }

    [MountFact]
    public void A_namespace_that_only_a_descriptor_keeps_shows_whose_it_is()
    {
        // The shell that holds the descriptor lives on; exit keeps it from executing the last command in its place.
        (int exitCode, string text) = Run(
            "veneer mount -o $LAYERS m; mkfifo p; unshare --mount --propagation private sh -c 'exec sleep 3' & s=$!; runs sleep; "
            + "exec 7</proc/$s/ns/mnt; { kill $s; wait $s; } 2>/dev/null; umount m; veneer holders u; exit $?");

        Assert.Equal(
            (10, $"u\n{Upper}\n    └── mount namespace N\n        ├── mounted on m\n        └── kept by descriptor N of bash (N)\n"),
            (exitCode, text.Replace("descriptor 7", "descriptor N", StringComparison.Ordinal)));
    }

    [MountFact]
    public void A_thread_with_a_namespace_of_its_own()
    {
        const string program =
            "#define _GNU_SOURCE\\n#include <pthread.h>\\n#include <sched.h>\\n#include <unistd.h>\\n"
            + "void *f(void *p) { unshare(CLONE_NEWNS); sleep(30); return p; } "
            + "int main() { pthread_t t; pthread_create(&t, 0, f, 0); sleep(30); }";
        (int exitCode, string text) = Run(
            $"printf '{program}' | gcc -x c - -pthread -o threads; veneer mount -o $LAYERS m; mount --make-rprivate /; ./threads & "
            + "until [ $(readlink /proc/$!/task/*/ns/mnt | sort -u | wc -l) = 2 ]; do sleep 0.02; done; umount m; veneer holders u");

        Assert.Equal((10, $"u\n{Upper}\n    └── mount namespace N\n        ├── mounted on m\n        └── kept by threads (N)\n"),
            (exitCode, text));
    }

    [MountFact]
    public void Namespaces_of_other_kinds_that_are_kept_are_no_matter() =>
        Assert.Equal((0, "u: nothing holds it\n"),
            Run("mkdir ns; mount -t tmpfs t ns; touch ns/net; unshare --net=ns/net true; veneer holders u"));

    [MountFact]
    public void The_pins_of_a_mount_and_those_that_were_left() =>
        Holds(
            "mount -t tmpfs t /run; veneer mount -o $LAYERS,pin m; veneer holders u | sed 's/[0-9]*-[0-9]*-[0-9]*/N/g' | grep -v ' of the "
            + "overlay'; until pgrep -f 'veneer /run/veneer' >/dev/null; do sleep 0.05; done; "
            + "kill -9 $(pgrep -f 'veneer /run/veneer') $(pgrep -xf '.*pin m'); umount -l m; ended; "
            + "veneer holders u | sed 's/[0-9]*-[0-9]*-[0-9]*/N/g'; exit ${PIPESTATUS[0]}",
            "u", "│   └── mounted on m", "└── pinned by /run/veneer/N/upper", "u", "└── pinned by /run/veneer/N/upper");

    [MountFact]
    public void A_bind_mount_and_what_is_mounted_inside() =>
        Holds(
            "mkdir x; veneer mount -o $LAYERS m; mkdir m/d; mount --bind m/d x; mount -t tmpfs t m/d; veneer holders m",
            "m  fuse.veneer, served by veneer (N)", "├── mounted on x", "└── tmpfs is mounted on m/d");

    [MountFact]
    public void A_process_with_a_working_directory_an_open_file_and_a_program() =>
        Holds(
            "cp $(which sleep) l/prog; veneer mount -o $LAYERS m; (cd m; exec ./prog 30 <f) & runs prog; veneer holders m",
            "m  fuse.veneer, served by veneer (N)", "└── prog (N)", "    ├── cwd m", "    ├── exe m/prog",
            "    ├── open m/f (descriptor N)", "    └── map m/prog");

    [MountFact]
    public void A_mount_that_is_out_of_sight_and_held_by_an_open_file() =>
        Holds(
            "veneer mount -o $LAYERS m; sleep 30 <m/f & runs sleep; umount -l m; veneer holders u",
            "u", Upper, "    ├── sleep (N)", "    │   └── open /f (descriptor N)",
            "    └── unmounted lazily: it ends with those who use it");

    [MountFact]
    public void A_server_that_hangs_hinders_nobody() =>
        Holds(
            "veneer mount -o $LAYERS m; mkdir m/d; sleep 30 <m/f & runs sleep; kill -STOP $(pgrep -x veneer); "
            + "timeout 20 veneer holders m/d/nothing; timeout 20 veneer holders m; code=$?; kill -CONT $(pgrep -x veneer); exit $code",
            "m/d/nothing: nothing holds it", "m  fuse.veneer, served by veneer (N)", "└── sleep (N)", "    └── open m/f (descriptor N)");

    [MountFact]
    public void A_kernel_overlay() =>
        Holds(
            "mkdir k; mount -t tmpfs t k; cd k; mkdir l u w m; mount -t overlay o -o lowerdir=$PWD/l,upperdir=$PWD/u,workdir=$PWD/w m; "
            + "veneer holders u; veneer holders l",
            "k/u", "└── upper of the kernel overlay on k/m", "    └── mounted on k/m",
            "k/l", "└── lower of the kernel overlay on k/m", "    └── mounted on k/m");

    [MountFact]
    public void A_kernel_overlay_in_another_namespace_that_was_given_symbolic_links() =>
        Holds(
            "mkdir k; mount -t tmpfs t k; cd k; mkdir l u w m; ln -s . s; "
            + "unshare --mount --propagation private sh -c "
            + "\"mount -t overlay o -o lowerdir=$PWD/s/l,upperdir=$PWD/s/u,workdir=$PWD/s/w m; exec sleep 30\" & "
            + "runs sleep; veneer holders u",
            "k/u", "└── upper of the kernel overlay on k/m", "    └── mount namespace N",
            "        ├── mounted on k/m", "        └── kept by sleep (N)");

    [MountFact]
    public void A_loop_device() =>
        Holds(
            "truncate -s 1M l/image; d=$(losetup -f --show l/image); veneer holders l | sed 's/loop[0-9]*/loopN/'; "
            + "e=${PIPESTATUS[0]}; losetup -d $d; exit $e",
            "l", "└── /dev/loopN has l/image");

    [MountFact]
    public void The_filesystem_that_the_layers_are_on() =>
        Holds(
            "mkdir k; mount -t tmpfs t k; mkdir k/l k/u k/w; veneer mount -o lowerdir=k/l,upperdir=k/u,workdir=k/w m; veneer holders k",
            "k  tmpfs", "└── lower, upper, work of the overlay on m since N, served by process N (veneer mount -o "
                + "lowerdir=k/l,upperdir=k/u,workdir=k/w m)", "    └── mounted on m");

    [MountFact]
    public void The_overlay_of_a_server_in_another_pid_namespace()
    {
        (int exitCode, string text) = Run(
            "veneer mount -o $LAYERS m; unshare --mount --pid --fork --mount-proc --propagation private veneer holders u");

        Assert.Equal(10, exitCode);
        Assert.Matches(
            @"^u\n└── upper of the overlay on m since N, served by process \d+ of pid namespace N "
            + @"\(veneer mount -o lowerdir=l,upperdir=u,workdir=w m\)\n",
            text);
    }

    [MountFact]
    public void In_json()
    {
        Outcome outcome = sandbox.Run("veneer mount -o $LAYERS m; sleep 30 <m/f & runs sleep; veneer holders --json u");

        using JsonDocument report = JsonDocument.Parse(outcome.Output);
        JsonElement overlay = report.RootElement.GetProperty("overlays")[0];
        Assert.True(report.RootElement.GetProperty("held").GetBoolean());
        Assert.Equal("upper", overlay.GetProperty("role").GetString());
        Assert.Equal($"{sandbox.Root}/m", overlay.GetProperty("mount_point").GetString());
        Assert.Equal("open", overlay.GetProperty("processes")[0].GetProperty("files")[0].GetProperty("use").GetString());
        Assert.Equal(10, outcome.ExitCode);
    }

    [MountTheory]
    [InlineData("veneer holders", 1, "No directory is given: name one, or a mount point.")]
    [InlineData("veneer holders a b", 1, "b is one word too many: give one directory or mount point.")]
    [InlineData("veneer holders nothing", 11, "nothing does not exist: name a directory or a mount point.")]
    [InlineData("veneer holders l/f", 11, "l/f is not a directory: name one, or a mount point.")]
    [InlineData("veneer list x", 1, "x is one word too many: veneer list shows all overlays of Veneer.")]
    public void Bad_input(string script, int exitCode, string sentence) => Assert.Equal((exitCode, $"veneer: {sentence}\n"), Run(script));

    [MountFact]
    public void Who_may_not_reach_it_is_told_so_and_who_may_not_see_all_is_told_what()
    {
        (int exitCode, string text) = Run(
            CliSandbox.AsNobody
            + "mkdir -p s/u; chmod 755 .; chmod 700 s; as veneer holders s/u; e=$?; as veneer holders w; f=$?; veneer mount -o $LAYERS m; "
            + "as veneer list; exit $((100 * f + 10 * e + $?))");

        Assert.Equal(
            "w: nothing holds it\noverlays\n└── m  has no server that can be seen\n"
            + "veneer: s/u cannot be reached by this user: give permission to search the directories above it, or become root.\n"
            + "veneer: Process 1 (bash) may not be looked at by this user.\nveneer: "
            + "Process 1 (bash) and 1 more may not be looked at by this user.\n",
            text.Replace("Process N (", "Process 1 (", StringComparison.Ordinal));
        Assert.Equal((600 + 40 + 6) % 256, exitCode);
    }

    [MountFact]
    public void Names_that_are_not_utf8_are_escaped_and_in_json_bytes()
    {
        Outcome outcome = sandbox.Run(
            "d=$(printf 'b\\377d\\nx'); mkdir \"$d\" \"$d\"/{u,w,m}; veneer mount -o lowerdir=l,upperdir=\"$d/u\",workdir=\"$d/w\" "
            + "\"$d/m\"; veneer holders \"$d/u\"; veneer list; veneer holders --json \"$d/u\"");

        string[] parts = outcome.Output.Split("{\n", 2);
        Assert.Contains($"{sandbox.Root}/b\\xffd\\x0ax/u\n", parts[0], StringComparison.Ordinal);
        Assert.Contains($"    └── mounted on {sandbox.Root}/b\\xffd\\x0ax/m\n", parts[0], StringComparison.Ordinal);
        Assert.Contains($"    ├── work {sandbox.Root}/b\\xffd\\x0ax/w\n", parts[0], StringComparison.Ordinal);
        using JsonDocument report = JsonDocument.Parse("{" + parts[1]);
        byte[] target = report.RootElement.GetProperty("target_base64").GetBytesFromBase64();
        Assert.Equal([.. System.Text.Encoding.UTF8.GetBytes(sandbox.Root), .. "/b"u8, 0xff, .. "d\nx/u"u8], target);
    }

    [MountFact]
    public void A_record_that_is_no_record_is_not_told_of()
    {
        (_, string text) = Run(
            "veneer mount -o $LAYERS m; setfattr -n trusted.overlay.veneer.owner -v garbage u; veneer holders u; "
            + "veneer mount -o lowerdir=u m");

        Assert.Equal(
            $"u\n{Upper}\n    └── mounted on m\n"
            + "veneer: The lower directory u is locked by process N (veneer mount -o lowerdir=l,upperdir=u,workdir=w m): "
            + "unmount that, use another directory, or mount anyway with -o inuse=warn.\n",
            text);
    }

    [MountFact]
    public void All_overlays_are_listed_with_what_their_servers_say()
    {
        Outcome outcome = sandbox.Run(
            "mkdir m2 m3; veneer mount -o $LAYERS,noexec m; cat m/f >/dev/null; veneer mount -o lowerdir=l m2; "
            + "veneer mount -o lowerdir=l m3; exec 5<m3/f; umount -l m3; "
            + "kill -STOP $(pgrep -xf '.*lowerdir=l m2'); timeout 20 veneer list --json; kill -CONT $(pgrep -xf '.*lowerdir=l m2')");

        Assert.Equal("", outcome.Error);
        using JsonDocument list = JsonDocument.Parse(outcome.Output);
        Dictionary<string, JsonElement> all = list.RootElement.GetProperty("overlays")
            .EnumerateArray()
            .ToDictionary(one => one.GetProperty("command").GetString()!, StringComparer.Ordinal);
        Assert.Equal(3, all.Count);
        JsonElement first = all["veneer mount -o lowerdir=l,upperdir=u,workdir=w,noexec m"];
        Assert.Equal($"{sandbox.Root}/m", first.GetProperty("mounts")[0].GetProperty("mount_point").GetString());
        Assert.Contains("noexec", first.GetProperty("mounts")[0].GetProperty("options").GetString(), StringComparison.Ordinal);
        Assert.Equal(
            ["lower l", "upper u", "work w"],
            first.GetProperty("layers")
                .EnumerateArray()
                .Select(layer => $"{layer.GetProperty("role").GetString()} {Path.GetFileName(layer.GetProperty("path").GetString())}")
                .Order(StringComparer.Ordinal));
        Assert.Empty(first.GetProperty("options").EnumerateArray());
        Assert.True(first.GetProperty("requests").GetInt64() > 1);
        Assert.True(first.GetProperty("uptime_seconds").GetDouble() > 0);
        Assert.True(first.GetProperty("upper_filesystem").GetProperty("used_bytes").GetInt64() > 0);
        Assert.False(all["veneer mount -o lowerdir=l m2"].GetProperty("answers").GetBoolean());
        Assert.Equal(0, all["veneer mount -o lowerdir=l m3"].GetProperty("mounts").GetArrayLength());
    }

    [MountFact]
    public void The_options_and_the_layers_are_the_servers_own()
    {
        (_, string text) = Run(
            "mount -t tmpfs t /run; mkdir m2; veneer mount -o $LAYERS,pin m; "
            + "veneer mount -o $LAYERS,inuse=warn,metacopy=on m2 2>/dev/null; veneer list | grep -v filesystem");

        Assert.Matches(
            @"^overlays\n├── m  process \d+, up [:0-9]+, \d+ requests\n│   ├── options rw,relatime,pin\n│   ├── upper u\n"
            + @"│   ├── lower l\n│   ├── work w\n│   └── veneer mount .*\n"
            + @"└── m2  process \d+, up [:0-9]+, \d+ requests\n    ├── options rw,relatime,inuse=warn,metacopy=on\n    ├── upper u\n"
            + @"    ├── lower l\n    ├── work w\n    └── veneer mount .*\n$",
            text);
    }

    /// <summary>Who mounts all the same has no lock that tells its upper from its lowers.</summary>
    [MountFact]
    public void A_second_user_is_not_said_to_have_a_lower()
    {
        (int exitCode, string text) = Run(
            "mkdir m2; veneer mount -o $LAYERS m; veneer mount -o $LAYERS,inuse=warn m2 2>/dev/null; "
            + "veneer holders u | grep ' of the overlay'");

        Assert.Equal((0, "├── upper of the overlay on m since", "└── layer of the overlay on m2"),
            (exitCode, text.Split('\n')[0][..35], text.Split('\n')[1][..30]));
    }

    [MountFact]
    public void One_that_was_shut_down_is_told_from_one_that_hangs()
    {
        (_, string text) = Run("veneer mount -o $LAYERS m; veneer shutdown m; veneer list | head -n 2");

        Assert.Matches(@"^overlays\n└── m  process \d+, gives EIO, as after a shutdown\n$", text);
    }

    [MountFact]
    public void Of_another_mount_namespace_too()
    {
        (int exitCode, string text) = Run(
            "unshare --mount --propagation private sh -c 'veneer mount -o $LAYERS m; exec sleep 30' & runs sleep; veneer list");

        Assert.Equal(0, exitCode);
        Assert.Matches(@"^overlays\n└── m  process \d+, up 00:00:0\d, \d+ requests\n    ├── in mount namespace N on m\n", text);
    }
}
