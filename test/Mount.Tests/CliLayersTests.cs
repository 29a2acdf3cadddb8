using System.Text.Json;

namespace Veneer.Mount.Tests;

/// <summary>What <c>veneer layers</c> and the attributes of a mount say of its layers.</summary>
public sealed class CliLayersTests : IDisposable
{
    private const string Veneer = "veneer mount -o lowerdir=l,upperdir=u,workdir=w,redirect_dir=on m; ";
    private const string Kernel = "mount -t overlay o -o lowerdir=$PWD/l,upperdir=$PWD/u,workdir=$PWD/w,redirect_dir=on m; ";

    private readonly CliSandbox sandbox = new();

    public void Dispose() => sandbox.Dispose();

    private string Succeeds(string script) => sandbox.Succeeds(script).Replace(sandbox.Root, "ROOT", StringComparison.Ordinal);

    private void Refuses(int exitCode, string sentence, string script)
    {
        Outcome outcome = sandbox.Run(script);
        Assert.Equal(("", $"veneer: {sentence}\n", exitCode), (outcome.Output, sandbox.Relative(outcome.Error), outcome.ExitCode));
    }

    private static string[] Paths(string json) =>
        [.. JsonDocument.Parse(json).RootElement.GetProperty("layers").EnumerateArray().Select(layer =>
            $"{layer.GetProperty("role").GetString()} {(layer.TryGetProperty("path", out JsonElement path) ? path.GetString() : "-")}")];

    private static string[] Parts(string json) =>
        [.. JsonDocument.Parse(json).RootElement.GetProperty("object").GetProperty("parts").EnumerateArray().Select(part =>
            $"{part.GetProperty("layer").GetInt32()} "
            + $"{string.Join(',', part.GetProperty("roles").EnumerateArray().Select(role => role.GetString()))} "
            + $"{(part.TryGetProperty("path", out JsonElement path) ? path.GetString() : "-")}")];

    [MountTheory]
    [InlineData(Veneer)]
    [InlineData(Kernel)]
    public void Layers_are_shown_with_their_paths(string mount)
    {
        string json = Succeeds(mount + "veneer layers --json m");
        string[] tree = Succeeds(mount + "veneer layers m").Split('\n');

        Assert.Equal(["upper ROOT/u", "lower ROOT/l", "work ROOT/w"], Paths(json));
        Assert.Equal("ROOT/m", tree[0]);
        Assert.Matches(@"^├── upper    ROOT/u  \S+ \d+:\d+  mount \d+, inode \d+, handle \d+:[0-9a-f]+$", tree[1]);
        Assert.StartsWith("├── lower 1  ROOT/l  ", tree[2], StringComparison.Ordinal);
        Assert.StartsWith("└── work     ROOT/w  ", tree[3], StringComparison.Ordinal);
    }

    [MountFact]
    public void Layers_that_were_moved_are_found()
    {
        Assert.Equal(["upper ROOT/elsewhere/u2", "lower ROOT/l2", "work ROOT/w"],
            Paths(Succeeds(Veneer + "mkdir elsewhere; mv u elsewhere/u2; mv l l2; veneer layers --json m")));
    }

    [MountFact]
    public void Layers_whose_mount_is_gone_are_found_through_another()
    {
        string json = Succeeds(
            "mkdir a b; mount -t tmpfs t a; mkdir a/in; cp -r l a/in; cd a/in; mkdir u w; "
            + "veneer mount -o lowerdir=l,upperdir=u,workdir=w ../../m; cd ../..;"
            + "mount --bind a b; umount -l a; veneer layers --json m");

        Assert.Equal(["upper ROOT/b/in/u", "lower ROOT/b/in/l", "work ROOT/b/in/w"], Paths(json));
    }

    [MountFact]
    public void Layers_whose_mount_is_gone_for_good_are_reached_through_the_server()
    {
        string output = Succeeds(
            "mkdir a; mount -t tmpfs t a; mkdir a/l a/u a/w; echo old >a/l/f; (cd a; "
            + "veneer mount -o lowerdir=l,upperdir=u,workdir=w ../m); umount -l a; echo more >>m/f;"
            + "ls \"$(veneer layers m | grep -o '/proc/[0-9]*/fd/[0-9]*' | sed -n 2p)/\"; veneer diff m; veneer diff m --tar layer; "
            + "tar -tf layer; veneer layers --json m");

        Assert.StartsWith("f\nM f\nf\n", output, StringComparison.Ordinal);
        Assert.All(Paths(output[output.IndexOf('{', StringComparison.Ordinal)..]),
            path => Assert.Matches("^[a-z]+ /proc/[0-9]+/fd/[0-9]+$", path));
    }

    [MountTheory]
    [InlineData(Veneer)]
    [InlineData(Kernel)]
    public void The_parts_of_an_object_are_shown_in_order(string mount)
    {
        const string prepare = "mkdir -p l/dir/sub l/old l/gone; echo x | tee l/dir/x l/gone/x l/old/x l/moved >l/dir/y; ";
        const string change =
            "echo more >>m/f; rm m/dir/y; mv m/old m/new; rm -r m/gone; mkdir m/gone; touch m/added; mv m/moved m/moved2; ";
        string All(string path) => $"veneer layers --json m {path}; echo ,; ";
        string output = Succeeds(
            prepare + mount + change + "echo [; "
            + string.Concat(((string[])["f", "dir", "dir/x", "dir/y", "new", "gone", "added", "/", "new/x", "moved2", "moved"]).Select(All))
            + "echo 0]");

        string[] all = [
            .. JsonDocument.Parse(output)
                .RootElement.EnumerateArray()
                .Where(e => e.ValueKind == JsonValueKind.Object)
                .Select(e => string.Join("; ", Parts(e.GetRawText())))];

        Assert.Equal(
            [
                "0 upper f; 1 origin f", "0 upper dir; 1 merged dir", "1 lower dir/x", "0 whiteout dir/y",
                "0 upper new; 1 merged,redirected old", "0 upper,opaque gone",
                "0 upper added", "0 upper ; 1 merged ", "1 lower,redirected old/x", "0 upper moved2; 1 origin -", "0 whiteout moved",
            ],
            all);
    }

    private const string DataOnly =
        "mkdir d1 d2 lm; echo data >d1/blob; touch lm/f; truncate -s 5 lm/f; setfattr -n trusted.overlay.metacopy lm/f; "
        + "setfattr -n trusted.overlay.redirect -v /blob lm/f; "
        + "mount -t overlay o -o lowerdir=$PWD/lm:$PWD/l::$PWD/d1::$PWD/d2,metacopy=on,redirect_dir=on m; ";

    [MountFact]
    public void Data_only_layers_of_the_kernel_are_shown_and_kept()
    {
        Assert.Equal(["lower ROOT/lm", "lower ROOT/l", "data ROOT/d1", "data ROOT/d2"],
            Paths(Succeeds(DataOnly + "veneer layers --json m")));
        Assert.Equal(
            "data\nold\n",
            Succeeds(
                "rm -r d1 d2 lm;" + DataOnly
                + "cat m/f >/dev/null; veneer checkpoint m >c; umount m; mv d1 d3; veneer restore c; cat m/f; rm lm/f; umount m; "
                + "veneer restore c; cat m/f"));
        Refuses(32, "m has data-only layers, in which Veneer does not look objects up yet: ask about the layers alone.",
            "rm -r d2 d3 lm; " + DataOnly + "veneer layers m f");
    }

    [MountTheory]
    [InlineData(Veneer)]
    [InlineData(Kernel)]
    public void A_mount_that_is_elsewhere_is_not_mistaken_for_one_here(string mount)
    {
        Refuses(32, "/proc/self/fd/3 is in another mount namespace, or below another mount: ask where it is seen on m, as with nsenter -m.",
            mount + "exec 3<m; mount -t tmpfs t m; veneer layers /proc/self/fd/3");
        Refuses(32, "/proc/self/fd/3 is in another mount namespace, or below another mount: ask where it is seen on m, as with nsenter -m.",
            mount + "exec 3<m; mount -t overlay o -o lowerdir=/mnt:/opt m; veneer layers /proc/self/fd/3");
    }

    [MountFact]
    public void A_path_may_be_written_in_many_ways()
    {
        string output = Succeeds(
            "mkdir l/d; touch l/d/x; " + Veneer
            + "for path in d/x ./d//x d/x/ $PWD/m/d/x; do veneer layers m $path | tail -n 2; done; veneer layers m/d/x | tail -n 2; "
            + "veneer layers m . | tail -n 3 | head -n 1");

        Assert.Equal([.. Enumerable.Repeat("d/x", 5), "."],
            output.Split('\n', StringSplitOptions.RemoveEmptyEntries).Where(line => line[0] is 'd' or '.'));
    }

    [MountFact]
    public void A_metacopy_has_its_data_elsewhere()
    {
        const string kernel =
            "mount -t overlay o -o lowerdir=$PWD/l,upperdir=$PWD/u,workdir=$PWD/w,metacopy=on m; chmod 600 m/f; mv m/f m/g; umount m; ";

        Assert.Equal(
            ["0 upper,metacopy g", "1 data,origin,redirected f"],
            Parts(
                Succeeds(
                    kernel + Veneer.Replace(",workdir", ",metacopy=on,workdir", StringComparison.Ordinal) + "veneer layers --json m g")));
    }

    [MountFact]
    public void Every_object_tells_its_layers_by_attributes_that_nobody_copies()
    {
        string output = Succeeds(
            "mkdir -p l/dir; touch l/dir/x; " + Veneer
            + "before=$(getfattr -h --only-values -e hex -n trusted.overlay.layers.1.fh m/f | base64); echo more >>m/f; mv m/dir m/new; "
            + "getfattr --only-values -n user.veneer.layers m/f m/new m/new/x m; "
            + "test \"$before\" = \"$(getfattr --only-values -e hex -n trusted.overlay.origin u/f | base64)\"; "
            + "getfattr -d -m - m/f m/new; cp -a m/f copy; getfattr -d -m - copy; "
            + "! getfattr -n trusted.overlay.layers.2.fh m/f 2>/dev/null; ! getfattr -n trusted.overlay.layers.x.fh m/f 2>/dev/null");

        Assert.Equal("0 upper\n1 origin\n0 upper\n1 merged,redirected dir\n1 lower,redirected dir/x\n0 upper\n1 merged\n", output);
    }

    [MountFact]
    public void A_container_is_told_no_paths_of_the_host()
    {
        string output = Succeeds(
            Veneer
            + "echo more >>m/f; touch m/new; unshare -m bash -c 'mount --bind /mnt l; mount --bind /mnt u; mount --bind /mnt w; "
            + "veneer layers --json m; veneer diff m'");

        int end = output.LastIndexOf("}\n", StringComparison.Ordinal) + 1;
        Assert.DoesNotContain("ROOT/", output, StringComparison.Ordinal);
        Assert.Equal(["upper -", "lower -", "work -"], Paths(output[..end]));
        Assert.Equal("\nM f\nA new\n", output[end..]);
    }

    [MountFact]
    public void Changes_that_are_many_come_in_parts()
    {
        string output = Succeeds(
            "(cd u; mkdir a b; seq -f a/%g 15000 | xargs touch; seq -f b-%g 3000 | xargs touch; seq -f b/%g 9000 | xargs touch); " + Veneer
            + "veneer diff --upper u --lower l >direct; unshare -m bash -c 'mount --bind /mnt u; mount --bind /mnt l; mount --bind /mnt w; "
            + "veneer diff m' >asked; cmp direct asked; wc -l <asked");

        Assert.Equal("27002\n", output);
    }

    [MountFact]
    public void Mistakes_get_one_sentence()
    {
        Refuses(1, "No mount point is given: name the one of an overlay.", "veneer layers");
        Refuses(1, "c is one word too many: give a mount point, and a path in it, if any.", "veneer layers a b c");
        Refuses(11, "l is not a mount point: name the mount point of an overlay.", "veneer layers l");
        Refuses(11, "none does not exist: name a mount point.", "veneer layers none");
        Refuses(11, "m/f is not a mount point: name the mount point of an overlay.", Veneer + "veneer layers m/f f");
        Refuses(3, "/proc is a mount of type proc, not an overlay: name the mount point of an overlay.", "veneer layers /proc");
        Refuses(12, "No layer has nothing/at/all: name something in m, or something that was deleted there.",
            Veneer + "veneer layers m nothing/at/all");
        Refuses(12, "No layer has nothing: name something in m, or something that was deleted there.", Kernel + "veneer layers m nothing");
        Refuses(12, "/etc is not in m: name something below it, or a path that starts there.", Veneer + "veneer layers m /etc");
        Refuses(12, "../l has .. in it, which may lead out of m: name the path without.", Veneer + "veneer layers m ../l");
        Refuses(12, @"No layer has \xff\x0a: name something in m, or something that was deleted there.",
            Veneer + "veneer layers m $'\\xff\\n'");
        Refuses(4, "Only root, or the user who mounted it, may ask the server of m: become one of them.",
            CliSandbox.AsNobody + Veneer + "as veneer layers m");
        Refuses(4, "m cannot be opened by this user: ask as the user who mounted it, or as root.",
            CliSandbox.AsNobody + Veneer + "chmod 700 m; as veneer diff m");
    }
}
