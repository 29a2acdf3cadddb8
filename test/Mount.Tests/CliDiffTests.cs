namespace Veneer.Mount.Tests;

/// <summary>What <c>veneer diff</c> takes, prints and ends with; what a change is, <see cref="ChangesTests"/> say.</summary>
public sealed class CliDiffTests : IDisposable
{
    private const string Kernel = "mount -t overlay o -o lowerdir=$PWD/l,upperdir=$PWD/u,workdir=$PWD/w m; ";
    private const string Named = "--upper u --lower l";

    private readonly CliSandbox sandbox = new();

    public void Dispose() => sandbox.Dispose();

    private void Prints(string expected, string script, int exitCode = 0, string error = "")
    {
        Outcome outcome = sandbox.Run(script);
        Assert.Equal((expected, error, exitCode), (outcome.Output, sandbox.Relative(outcome.Error), outcome.ExitCode));
    }

    [MountFact]
    public void A_kernel_overlay_is_found_by_its_mount_point()
    {
        Prints("", Kernel + "veneer diff m");
        Prints("M f\nA new\n", Kernel + "echo new >m/new; echo more >>m/f; veneer diff m");
        Prints("M f\nA new\n", $"veneer diff {Named}");
        Prints("", "mkdir l2; mount -t overlay o -o lowerdir=$PWD/l:$PWD/l2 m; veneer diff m");
    }

    [MountFact]
    public void Layers_may_have_any_name()
    {
        Prints(
            "M f\n",
            """mv l 'a b:c,d\e'; mkdir 'l 2'; """
            + """mount -t overlay o -o "lowerdir=$PWD/l 2:$PWD/a b\\:c\\,d\\\\e,upperdir=$PWD/u,workdir=$PWD/w" m; """
            + "echo more >>m/f; veneer diff m");
        Prints("M f\n", """veneer diff --upper u --lower 'l 2:a b\:c,d\\e'""");
        Prints("M f\n", """veneer diff --upper u --lower 'l 2' --lower 'a b\:c,d\\e'""", 0);
    }

    /// <summary>Files of a tebibyte would take their time.</summary>
    [MountFact]
    public void Holes_are_not_read()
    {
        Prints(
            "S big\nm same\nin tar\n",
            "mount -t tmpfs t /mnt; cd /mnt; mkdir l u; truncate -s 1T l/same u/same l/big u/big; "
            + "printf x | dd of=u/big bs=1 seek=5000000000 conv=notrunc status=none; touch -d @1 u/same; chmod 600 u/same; "
            + $"veneer diff {Named} | sort | sed 's/S same/m same/'; rm u/same; truncate -s 20G u/big; "
            + $"veneer diff {Named} --tar - | head -c 1000000 >/dev/null; echo in tar");
    }

    [MountFact]
    public void The_time_of_a_source_is_a_number()
    {
        Prints("", $"SOURCE_DATE_EPOCH=yesterday veneer diff {Named} --tar t", 1,
            "veneer: SOURCE_DATE_EPOCH=yesterday in the environment is not understood: it is a number of seconds since 1970, or unset.\n");
        Prints("", $"SOURCE_DATE_EPOCH=yesterday veneer diff {Named}");
        Prints("", $"veneer diff {Named} --tar t --clamp-mtime", 1,
            "veneer: --clamp-mtime needs a time: add --mtime @SECONDS, or set SOURCE_DATE_EPOCH.\n");
        Prints("", $"veneer diff {Named} --tar t --mtime soon", 1,
            "veneer: --mtime soon is not understood: give @SECONDS since 1970, or a date such as 2026-01-31 or 2026-01-31T12:00:00Z.\n");
        Prints("", $"veneer diff {Named} --clamp-mtime", 1,
            "veneer: --mtime and --clamp-mtime are for --tar alone: add --tar FILE, or leave them out.\n");
    }

    [MountFact]
    public void Names_are_escaped()
    {
        Prints("A a\\\\b\nA line\\x0abreak\nA é\nA \\xff\n", $"touch u/'a\\b' u/$'\\xff' u/$'line\\nbreak' u/é; veneer diff {Named}");
    }

    [MountFact]
    public void Json_has_an_object_on_each_line_and_says_where_it_ends()
    {
        Prints(
            """
            {"change":"modified","path":"f","type":"file","was":"file","content":true,"attributes":false,"size":9}
            {"change":"added","path":"new","type":"directory"}
            {"end":2,"disturbances":0}

            """,
            Kernel + $"mkdir m/new; echo more >>m/f; veneer diff --json m");
        Prints("added               1\nmodified            1  9 bytes\nin all              2  9 bytes\n", $"veneer diff --stat {Named}");
    }

    /// <summary>The lower is itself a mount of Veneer, which counts what it is asked.</summary>
    [MountTheory]
    [InlineData(100)]
    [InlineData(5000)]
    public void Of_the_lowers_only_what_has_the_name_of_a_change_is_read(int files)
    {
        Outcome outcome = sandbox.Run(
            $"set -e; mkdir l/d l/e; seq -f l/d/f%g {files} | xargs touch; seq -f l/e/f%g {files} | xargs touch; mkdir u/d; "
            + "echo x | tee u/d/f1 u/d/f2 >u/d/new; touch u/d/f3;"
            + "veneer mount -o lowerdir=l m; veneer stats m >first; veneer stats --json m >before; veneer diff --upper u --lower m --stat; "
            + "veneer stats --json m >after;"
            + "for f in before after; do grep -oE '\"(opcode|count)\": ?[^,]*' $f | paste - - | tr -d '\" ,' | sed "
            + "'s/opcode:\\(.*\\)\\tcount:/\\1 /' >$f.txt; done; echo ===; sort before.txt after.txt | uniq -u");
        string[] halves = outcome.Output.Split("===\n");
        int Count(string opcode) => halves[1]
            .Split('\n')
            .Where(line => line.StartsWith(opcode + " ", StringComparison.Ordinal))
            .Select(line => int.Parse(line.Split(' ')[1], System.Globalization.CultureInfo.InvariantCulture))
            .DefaultIfEmpty(0).Max();

        Assert.True(outcome is { ExitCode: 0, Error: "" }, $"{outcome.ExitCode}: {outcome.Error}");
        Assert.Contains("in all              4", halves[0], StringComparison.Ordinal);
        Assert.InRange(Count("lookup"), 5, 20); // d, its four names, and what the walk through f1 to f3 opens
        Assert.Equal((0, 0, 0), (Count("opendir"), Count("readdir"), Count("readdirplus")));
        Assert.InRange(Count("open"), 0, 3);
    }

    [MountTheory]
    [InlineData("veneer mount -o lowerdir=l,upperdir=u,workdir=w m; ")]
    [InlineData(Kernel)]
    public void A_mount_may_be_written_meanwhile(string mount)
    {
        Outcome outcome = sandbox.Run(
            "mkdir l/d; seq -f l/d/%g 200 | xargs touch; " + mount
            + "(while [ ! -e stop ]; do i=$((RANDOM % 200)); echo x >>m/d/$i; rm -f m/d/$((i + 1)); mv m/d/$((i + 2)) m/d/new$i; "
            + "mkdir m/dir$i; touch m/dir$i/x; rm -r m/dir$i; done) 2>/dev/null &"
            + "for n in $(seq 20); do veneer diff m >out 2>err; code=$?; grep -v 'changed while it was read' err; "
            + "if [ -s err ]; then want=5; else want=0; fi; [ $code = $want ] || echo \"status $code\"; echo $code >>codes; done; "
            + "touch stop; wait; grep -c 5 codes >/dev/null || echo 'nothing moved'; veneer diff m >now; umount m; "
            + "veneer diff --upper u --lower l | cmp - now && echo the same");

        Assert.Equal(("the same\n", "", 0), (outcome.Output, outcome.Error, outcome.ExitCode));
    }

    [MountFact]
    public void What_cannot_be_read_is_named()
    {
        Prints("A d\n", $"mkdir u/d; chmod 0 u/d; veneer diff {Named}");
        Prints(
            "A d\nA open\n",
            CliSandbox.AsNobody + "touch u/open; as veneer diff --userxattr --upper u --lower l",
            6, "veneer: d cannot be read (EACCES): ask as root.\n");
    }

    [MountFact]
    public void Mistakes_get_one_sentence()
    {
        Prints("", "veneer diff", 1, "veneer: No overlay is given: name its mount point, or its layers with --upper DIR --lower DIR.\n");
        Prints("", "veneer diff --upper u", 1,
            "veneer: No overlay is given: name its mount point, or its layers with --upper DIR --lower DIR.\n");
        Prints("", "veneer diff a b", 1, "veneer: b is one word too many: give one mount point.\n");
        Prints("", "veneer diff --bogus m", 1, "veneer: --bogus is not an option of veneer diff: see veneer diff --help.\n");
        Prints("", "veneer diff --json --stat m", 1, "veneer: --json, --stat and --tar exclude each other: take one.\n");
        Prints("", $"veneer diff m {Named}", 1,
            "veneer: A mount point and --upper, --lower or --userxattr exclude each other: the mount knows its layers.\n");
        Prints("", "veneer diff --upper u --lower l/f", 1,
            "veneer: The lower directory l/f is not a directory: name the one of the overlay.\n");
        Prints("", "veneer diff m", 11, "veneer: m is not a mount point: name the mount point of an overlay.\n");
        Prints("", Kernel + "mkdir m/d; veneer diff m/d", 11, "veneer: m/d is not a mount point: name the mount point of an overlay.\n");
        Prints("", "mount -t tmpfs t m; veneer diff m", 3,
            "veneer: m is a mount of type tmpfs, not an overlay: name the mount point of an overlay.\n");
        Prints("", "veneer diff none", 11, "veneer: none does not exist: name a mount point.\n");
        Prints(
            "", CliSandbox.AsNobody + $"as veneer diff {Named}", 4,
            "veneer: Only root in the initial user namespace can read the trusted.overlay.* attributes of the layers: "
            + "become root, or add --userxattr if the overlay is mounted so.\n");
        Prints(
            "", "mount -t overlay o -o lowerdir=l,upperdir=u,workdir=w m; veneer diff m", 32,
            "veneer: m was mounted with the relative path l, and the kernel does not keep where that begins: "
            + "mount it by absolute paths, or name the layers to veneer diff with --upper and --lower.\n");
        Prints(
            "", Kernel + "mv u v; mkdir u; veneer diff m", 32,
            "veneer: The mount m names u as its upper, but that is not what it has mounted: "
            + "name the layers to veneer diff with --upper and --lower.\n");
        Prints("", $"touch u/new; veneer diff {Named} >/dev/full", 2,
            "veneer: The output cannot be written (ENOSPC): see where it goes.\n");
    }

    /// <summary>In a /dev of its own: a device that a file has taken the place of would be missed by all.</summary>
    [MountTheory]
    [InlineData("mknod full c 1 7; ln -s full to; veneer diff $D --tar to", "veneer: to takes no more: the layer is cut off.\n", 2,
        "full character special file\nto symbolic link\n")]
    [InlineData("mknod null c 1 3; veneer diff $D --tar null", "", 0, "null character special file\n")]
    [InlineData("mkfifo pipe; cat pipe | tar t & veneer diff $D --tar pipe && wait", "", 0, "new\npipe fifo\n")]
    [InlineData("echo before >layer; ln -s layer to; veneer diff $D --tar to && tar tf layer", "", 0,
        "new\nlayer regular file\nto symbolic link\n")]
    [InlineData("veneer diff $D --tar >(tar t) && wait $!", "", 0, "new\n")]
    [InlineData(
        "head -c 300000 /dev/zero >../u/new; echo before >layer; (trap '' XFSZ; ulimit -f 100; "
        + "DOTNET_EnableWriteXorExecute=0 veneer diff $D --tar layer)",
        "veneer: layer cannot be written to its end: see whether there is space left, and ulimit -f.\n", 2, "layer regular file\n")]
    [InlineData(
        "truncate -s 2G ../u/new; veneer diff $D --tar layer & until [ -n \"$(ls -l /proc/$!/fd | grep $PWD/)\" ]; do sleep 0.01; done; "
        + "kill -KILL $!; wait $! 2>/dev/null",
        "", 137, "")]
    [InlineData("mkdir d; veneer diff $D --tar d",
        "veneer: d cannot be written (EISDIR): name a file in a directory that this user may write.\n", 2, "d directory\n")]
    public void A_tar_goes_into_what_is_there(string script, string error, int exitCode, string output)
    {
        Prints(
            output,
            "touch u/new; D=\"--upper $PWD/u --lower $PWD/l\"; mount -t tmpfs -o dev t m; cd m; " + script
            + "; code=$?; for name in *; do [ ! -e $name ] || stat -c '%n %F' $name; done; exit $code",
            exitCode, error);
    }
}
