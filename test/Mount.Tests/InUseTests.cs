using System.Globalization;
using System.Text.RegularExpressions;

namespace Veneer.Mount.Tests;

/// <summary>Upper and work belong to one overlay at a time, and who finds them taken is told by whom.</summary>
public sealed partial class InUseTests : IDisposable
{
    private const string Remedy = ": unmount that, use another directory, or mount anyway with -o inuse=warn.";

    private readonly CliSandbox sandbox = new();

    public void Dispose() => sandbox.Dispose();

    [GeneratedRegex(@"(?<=process |namespace )\d+|(?<=since )[-0-9]+ [:0-9]+ [-+]\d\d:\d\d", RegexOptions.None,
        matchTimeoutMilliseconds: 1000)]
    private static partial Regex Number();

    /// <summary>Runs a script; of the sentences, numbers become N and the sandbox's path goes.</summary>
    private (int ExitCode, string Output, string[] Sentences) Run(string script)
    {
        Outcome outcome = sandbox.Run("mkdir -p u2 w2 m2; " + script);
        string error = Number().Replace(sandbox.Relative(outcome.Error), "N");
        return (outcome.ExitCode, outcome.Output, error.Split('\n', StringSplitOptions.RemoveEmptyEntries));
    }

    private static string Holder(string command = "veneer mount -o lowerdir=l,upperdir=u,workdir=w m") =>
        $"of the overlay on m, which process N ({command}) has served since N";

    [MountTheory]
    [InlineData("lowerdir=l,upperdir=u,workdir=w2", "upper directory u is the upper")]
    [InlineData("lowerdir=l,upperdir=u2,workdir=w", "work directory w is the work")]
    [InlineData("lowerdir=l,upperdir=w,workdir=w2", "upper directory w is the work")]
    [InlineData("lowerdir=u", "lower directory u is the upper")]
    [InlineData("lowerdir=l:w", "lower directory w is the work")]
    [InlineData("lowerdir=u/in", "lower directory u/in lies in the upper")]
    [InlineData("lowerdir=l,upperdir=u/in/u,workdir=u/in/w", "upper directory u/in/u lies in the upper")]
    public void A_second_use_is_refused_and_names_the_first(string options, string sentence)
    {
        var (exitCode, output, sentences) = Run(
            $"mkdir -p u/in/u u/in/w; veneer mount -o $LAYERS m; getfattr -d -m trusted u2 w2 u/in/u u/in/w; veneer mount -o {options} m2; "
            + "code=$?; ls -A m2 u2 w2/ u/in/w; exit $code");

        Assert.Equal([$"veneer: The {sentence} {Holder()}{Remedy}"], sentences);
        Assert.Equal((32, "m2:\n\nu/in/w:\n\nu2:\n\nw2/:\n"), (exitCode, output));
    }

    [MountFact]
    public void The_server_that_answers_is_the_one_that_is_named()
    {
        Outcome outcome = sandbox.Run("veneer mount -o $LAYERS m; p=$(pgrep -x veneer); date +%F; echo $p; veneer mount -o lowerdir=u m");

        string[] told = outcome.Output.Split('\n');
        Assert.Contains($"process {told[1]} (", outcome.Error, StringComparison.Ordinal);
        Assert.Contains($"since {told[0]} ", outcome.Error, StringComparison.Ordinal);
    }

    [MountFact]
    public void From_another_pid_and_mount_namespace_too()
    {
        var (exitCode, _, sentences) = Run(
            "veneer mount -o $LAYERS m; unshare --mount --pid --fork --mount-proc --propagation private veneer mount -o lowerdir=u m2");

        Assert.Equal(
            [
                "veneer: The lower directory u is the upper of the overlay on m in mount namespace N, "
                + "which process N of pid namespace N (veneer mount -o lowerdir=l,upperdir=u,workdir=w m) has served since N" + Remedy],
            sentences);
        Assert.Equal(32, exitCode);
    }

    [MountFact]
    public void From_a_user_namespace_too()
    {
        var (exitCode, _, sentences) = Run(
            "veneer mount -o $LAYERS,userxattr m; mkdir a b; unshare --user --map-root-user --mount --pid --fork --mount-proc "
            + "--propagation private veneer mount -o lowerdir=l,upperdir=u,workdir=w2,userxattr m2");

        Assert.Equal(
            [
                "veneer: The upper directory u is the upper of the overlay on m in mount namespace N, "
                + "which process N of pid namespace N (veneer mount -o lowerdir=l,upperdir=u,workdir=w,userxattr m) has served since N"
                + Remedy],
            sentences);
        Assert.Equal(32, exitCode);
    }

    [MountFact]
    public void A_copy_of_the_mount_in_another_namespace_keeps_the_lock()
    {
        var (exitCode, _, sentences) = Run(
            "veneer mount -o $LAYERS m; unshare --mount --propagation private sleep 30 & runs sleep; umount m; veneer mount -o $LAYERS m2");

        Assert.Equal([$"veneer: The upper directory u is the upper {Holder()}{Remedy}"], sentences);
        Assert.Equal(32, exitCode);
    }

    [MountTheory]
    [InlineData("veneer umount m")]
    [InlineData("umount m")] // the server may still be on its way out
    [InlineData("kill -9 $(pgrep -x veneer); umount -l m")]
    [InlineData("kill -TERM $(pgrep -x veneer); hidden m")]
    public void After_its_end_everything_is_free(string end)
    {
        var (exitCode, output, sentences) = Run(
            $"veneer mount -o $LAYERS m; {end}; veneer mount -o $LAYERS m2 && veneer umount m2; veneer mount -o lowerdir=u:w m2; "
            + "getfattr -d -m trusted.overlay.veneer u w");

        Assert.Equal((0, ""), (exitCode, output));
        Assert.Empty(sentences);
    }

    [MountFact]
    public void A_record_that_a_killed_server_left_is_not_believed_of_another_who_locks_the_directory()
    {
        var (exitCode, _, sentences) = Run(
            "veneer mount -o $LAYERS m; kill -9 $(pgrep -x veneer); ended; umount -l m; "
            + "getfattr -n trusted.overlay.veneer.owner u >/dev/null || exit 1; flock u sleep 9 & runs sleep; veneer mount -o $LAYERS m");

        Assert.Equal(["veneer: The upper directory u is locked by process N (flock u sleep 9)" + Remedy], sentences);
        Assert.Equal(32, exitCode);
    }

    [MountFact]
    public void A_record_of_another_boot_is_not_believed()
    {
        var (_, _, sentences) = Run(
            "veneer mount -o $LAYERS m; kill -9 $(pgrep -x veneer); ended; umount -l m; echo 01234567-89ab-cdef-0123-456789abcdef >id; "
            + "flock u sleep 9 & runs sleep; mount --bind id /proc/sys/kernel/random/boot_id; "
            + "unshare --pid --fork --mount-proc sh -c 'mount --bind id /proc/sys/kernel/random/boot_id; veneer mount -o lowerdir=u m'");

        Assert.Equal(
            [
                "veneer: The lower directory u is locked by a process that cannot be seen from here and has left no record that can be read"
                + Remedy],
            sentences);
    }

    [MountFact]
    public void Locks_of_others_on_a_lower_directory_and_above_the_layers_are_none_of_our_business()
    {
        var (exitCode, _, sentences) = Run("flock l sleep 9 & flock . sleep 9 & runs sleep 2; veneer mount -o $LAYERS m");

        Assert.Equal(0, exitCode);
        Assert.Empty(sentences);
    }

    [MountFact]
    public void The_record_is_seen_by_nobody_through_a_mount()
    {
        var (_, output, sentences) = Run(
            "veneer mount -o $LAYERS m; getfattr -d -m - m; getfattr -n trusted.overlay.veneer.owner m 2>&1 | grep -c 'No such attribute'; "
            + "kill -9 $(pgrep -x veneer); ended; umount -l m; "
            + "mount -t tmpfs t /tmp; cp -a l u w m /tmp; cd /tmp; setfattr -n trusted.overlay.veneer.owner -v left u; "
            + "mount -t overlay o -o $LAYERS m && getfattr -d -m - m && cat m/f; umount m");

        Assert.Equal("1\nold\n", output);
        Assert.Empty(sentences);
    }

    [MountTheory]
    [InlineData("lowerdir=$d/l,upperdir=$d/u,workdir=$d/w")]
    [InlineData("lowerdir=l,upperdir=u,workdir=w")]
    [InlineData("lowerdir=l,upperdir=$d/s/u,workdir=$d/s/w")] // over a symbolic link
    public void Kernel_overlays_are_seen(string options)
    {
        const string where = " of the kernel overlay that is mounted on k/m";
        var (_, output, sentences) = Run(
            "mkdir k; mount -t tmpfs t k; cd k; d=$PWD; mkdir l u w m m2 u2 w2; ln -s . s; "
            + $"mount -t overlay o -o {options} m; "
            + "for o in lowerdir=l,upperdir=u,workdir=w2 lowerdir=l,upperdir=u2,workdir=w lowerdir=u; do veneer mount -o $o m2; "
            + "echo $?; done; "
            + "umount m; veneer mount -o $LAYERS m; echo $?");

        Assert.Equal("32\n32\n32\n0\n", output);
        Assert.Equal(
            [
                $"veneer: The upper directory u is the upper{where}{Remedy}",
                $"veneer: The work directory w is the work{where}{Remedy}",
                $"veneer: The lower directory u is the upper{where}{Remedy}",
            ],
            sentences);
    }

    private const string KernelOverlay =
        "mkdir k k2 m3; mount -t tmpfs t k; mount --make-private k; mkdir k/{l,u,w,m,w9}; "
        + "o=lowerdir=$PWD/k/l,upperdir=$PWD/k/u,workdir=$PWD/k/w; ";

    /// <summary>What it was mounted with are paths; what it has mounted may be elsewhere by now, and so may the mount.</summary>
    [MountTheory]
    [InlineData("mount --bind k k2; mount -t overlay o -o ${o//k\\//k2/} k/m; umount -l k2", "k/u", "k/w")]
    [InlineData("mount -t overlay o -o $o k/m; mv k/u k/u9; mkdir k/u", "k/u9", "")]
    [InlineData("mount -t overlay o -o $o k/m; mkdir k/m/sub k/c; mount --bind k/m/sub k/c; umount k/m; mv k/u k/u9", "k/u9", "")]
    [InlineData(CliSandbox.NamespaceAt + "touch k/ns; namespace_at $PWD/k/ns mount -t overlay o -o $o k/m", "k/u", "k/w")]
    [InlineData(
        "python3 -c 'import threading,ctypes,time; l=ctypes.CDLL(None); "
        + "threading.Thread(target=lambda:(l.unshare(0x20000), l.mount(None,b\"/\",None,0x44000,None), "
        + "l.mount(b\"o\",b\"k/m\",b\"overlay\",0,b\"lowerdir=k/l,upperdir=k/u,workdir=k/w\"), open(\"k/there\",\"w\"), "
        + "time.sleep(20))).start()' & while ! [ -e k/there ]; do sleep 0.01; done",
        "k/u", "k/w")]
    public void A_kernel_overlay_is_seen_wherever_it_and_its_layers_are(string mount, string upper, string work)
    {
        var (_, output, sentences) = Run(
            $"{KernelOverlay}{mount}; mkdir -p {upper}/in; "
            + $"for o in lowerdir=l,upperdir={upper},workdir=k/w9 lowerdir={upper} lowerdir={upper}/in "
            + $"{(work.Length > 0 ? $"lowerdir=l,upperdir=k/w9,workdir={work}" : "")}; do veneer mount -o $o m3; "
            + "echo $?; done");

        string[] expected = [
            $"The upper directory {upper} is the upper", $"The lower directory {upper} is the upper",
            $"The lower directory {upper}/in lies in the upper",
            .. work.Length > 0 ? (string[])[$"The work directory {work} is the work"] : []];
        Assert.Equal(
            expected,
            sentences.Select(
                sentence => sentence
                    .Replace("veneer: ", "", StringComparison.Ordinal)
                    .Split(" of the kernel overlay that is mounted on k/")[0]));
        Assert.Equal(string.Concat(Enumerable.Repeat("32\n", expected.Length)), output);
    }

    [MountFact]
    public void What_has_the_path_of_an_upper_that_was_moved_and_a_copy_of_its_filesystem_are_free()
    {
        var (_, output, sentences) = Run(
            KernelOverlay
            + "mount -t overlay o -o $o k/m; mv k/u k/u9; mkdir k/u; veneer mount -o lowerdir=l,upperdir=k/u,workdir=k/w9 m3; echo $?; "
            + "veneer umount m3; umount k/m; "
            + "cd k; truncate -s 16m i; mkfs.ext4 -q i; mkdir x y; mount -o loop i x; mkdir x/{l,u,w}; umount x; cp i j; "
            + "mount -o loop i x; mount -o loop j y; mount -t overlay o -o lowerdir=$PWD/x/l,upperdir=$PWD/x/u,workdir=$PWD/x/w m; "
            + "veneer mount -o lowerdir=y/l,upperdir=y/u,workdir=y/w ../m3; echo $?; veneer umount ../m3; umount m y x");

        Assert.Equal("0\n0\n", output);
        Assert.Empty(sentences);
    }

    /// <summary>
    /// Paths with the escapes of mount(2), and paths without, as fsconfig(2) takes them by descriptor. mountinfo adds its own
    /// escapes to both.
    /// </summary>
    [MountTheory]
    [InlineData("comma, and space")]
    [InlineData("back\\slash\\,\\\\")]
    [InlineData("col:on=\"quoted\"")]
    [InlineData("line\nbreak\ttab")]
    [InlineData("not utf-8 \udcff,\udc80\\054")]
    public void Names_of_kernel_overlays_may_have_anything_in_them(string name)
    {
        Outcome made = sandbox.Run(
            "mkdir k; cat >new.py <<'P'\nimport ctypes,os,sys\nl=ctypes.CDLL(None); d=os.fsencode(sys.argv[1]); "
            + "fs=l.syscall(430,b'overlay',1)\n"
            + "for k,n in ((b'lowerdir+',b'/l'),(b'upperdir',b'/u'),(b'workdir',b'/w')): "
            + "l.syscall(431,fs,5,k,None,os.open(d+n,os.O_PATH))\nl.syscall(431,fs,6,None,None,0); "
            + "l.syscall(429,l.syscall(432,fs,1,0),b'',-100,d+b'/m',4)\nP\n"
            + "cat >old.py <<'P'\nimport ctypes,os,sys\nl=ctypes.CDLL(None); d=os.fsencode(sys.argv[1]); "
            + "e=d.replace(b'\\\\',b'\\\\\\\\').replace(b',',b'\\\\,')\n"
            + "l.mount(b'o',d+b'/m',b'overlay',0,b'lowerdir='+e.replace(b':',b'\\\\:')+b'/l,upperdir='+e+b'/u,workdir='+e+b'/w')\nP\n"
            + $"mount -t tmpfs t k; d=$PWD/k/{Quoted(name)}; e=$(printf %s \"$d\" | sed 's/\\\\/\\\\\\\\/g; s/,/\\\\,/g; s/:/\\\\:/g'); "
            + "mkdir -p \"$d\"/{l,u,w,m} k/w; for how in old new; do python3 $how.py \"$d\"; touch \"$d/m/new\"; veneer diff \"$d/m\"; "
            + "veneer layers --json \"$d/m\" >/dev/null; veneer checkpoint \"$d/m\" >c; "
            + "veneer mount -o \"lowerdir=l,upperdir=$e/u,workdir=k/w\" m 2>&1 | grep -c 'is the upper of the kernel overlay'; "
            + "veneer holders \"$d/u\" | grep -c kernel; umount \"$d/m\"; "
            + "veneer restore c; ls \"$d/m\"; umount \"$d/m\"; rm \"$d/u/new\"; done");

        Assert.Equal((string.Concat(Enumerable.Repeat("A new\n1\n1\nnew\n", 2)), ""), (made.Output, made.Error));
    }

    /// <summary>For the shell.</summary>
    private static string Quoted(string name) => "$'" + string.Concat(PathText.Encode(name)[..^1].Select(b => $"\\x{b:x2}")) + "'";

    [MountFact]
    public void A_directory_in_the_upper_of_a_kernel_overlay_is_no_lower()
    {
        var (exitCode, _, sentences) = Run(
            "mkdir k; mount -t tmpfs t k; cd k; mkdir -p l u/in w m m2; "
            + "mount -t overlay o -o lowerdir=$PWD/l,upperdir=$PWD/u,workdir=$PWD/w m; veneer mount -o lowerdir=u/in m2");

        Assert.Equal(["veneer: The lower directory u/in lies in the upper of the kernel overlay that is mounted on k/m" + Remedy],
            sentences);
        Assert.Equal(32, exitCode);
    }

    [MountTheory]
    [InlineData("lowerdir=$d/l,upperdir=$d/u,workdir=$d/w")]
    [InlineData("lowerdir=l,upperdir=u,workdir=w")]
    public void Kernel_overlays_of_another_mount_namespace_are_seen(string options)
    {
        var (exitCode, _, sentences) = Run(
            "mkdir k; mount -t tmpfs t k; cd k; d=$PWD; mkdir l u w m m2 w2; "
            + $"unshare --mount --propagation private sh -c \"mount -t overlay o -o {options} m; exec sleep 30\" & runs sleep; "
            + "veneer mount -o lowerdir=l,upperdir=u,workdir=w2 m2");

        Assert.Equal(
            [
                "veneer: The upper directory u is the upper of the kernel overlay that is mounted on k/m "
                + "in the mount namespace of process N (sleep)" + Remedy],
            sentences);
        Assert.Equal(32, exitCode);
    }

    /// <summary>The attribute that tells is hidden from all but root: then what looks like it is taken for it.</summary>
    [MountTheory]
    [InlineData("auto")]
    [InlineData("null")]
    public void A_kernel_overlay_of_relative_names_is_seen_without_privilege_too(string uuid)
    {
        var (exitCode, _, sentences) = Run(
            $"mkdir k; mount -t tmpfs t k; cd k; mkdir l u w m k; mount -t overlay o -o $LAYERS,uuid={uuid} k; "
            + "unshare --user --map-root-user --mount veneer mount -o $LAYERS,userxattr m");

        Assert.Equal(32, exitCode);
        Assert.Equal(["veneer: The upper directory u is the upper of the kernel overlay that is mounted on k/k" + Remedy], sentences);
    }

    [MountFact]
    public void Other_directories_of_the_same_names_are_not_taken_for_those_of_a_kernel_overlay()
    {
        var (exitCode, _, sentences) = Run(
            "mkdir k; mount -t tmpfs t k; cd k; mkdir -p l a/u a/w m b/u b/w m2; (cd a; "
            + "mount -t overlay o -o lowerdir=../l,upperdir=u,workdir=w ../m); cd b; "
            + "veneer mount -o lowerdir=../l,upperdir=u,workdir=w ../m2");

        Assert.Equal(0, exitCode);
        Assert.Empty(sentences);
    }

    /// <summary>Names and inode numbers alike, as where one script makes both; what tells them apart is the filesystem.</summary>
    [MountTheory]
    [InlineData("auto")]
    [InlineData("null")]
    [InlineData("on")]
    public void A_kernel_overlay_of_relative_names_has_its_own_upper_and_no_other(string uuid)
    {
        string layers = "lowerdir=l,upperdir=u,workdir=w", make = "mount -t tmpfs t . && cd $PWD && mkdir l u w m2 k";
        var (_, output, sentences) = Run(
            $"mkdir A B; (cd A; {make}; mount -t overlay o -o {layers},uuid={uuid} k); cd B; {make}; stat -c %i u ../A/u | uniq | wc -l; "
            + $"veneer mount -o {layers} m2; echo $?; veneer umount m2; cd ../A; veneer mount -o {layers} m2; echo $?");

        Assert.Equal("1\n0\n32\n", output);
        Assert.Equal(["veneer: The upper directory u is the upper of the kernel overlay that is mounted on A/k" + Remedy], sentences);
    }

    [MountFact]
    public void Inuse_warn_mounts_all_the_same_and_leaves_to_the_first_what_is_its_own()
    {
        const string consequence = ": mounted all the same, as inuse=warn asks; what both do to it is undefined";
        var (exitCode, output, sentences) = Run(
            "veneer mount -o $LAYERS m; touch m/kept w/work/#left; getfattr -n trusted.overlay.veneer.owner --only-values u >before; "
            + "veneer mount -f -o $LAYERS,inuse=warn,io_uring=off m2 & mounted m2; echo new >m2/f; rm m2/kept; cat u/f; umount m2; "
            + "wait $!; "
            + "getfattr -n trusted.overlay.veneer.owner --only-values u | cmp - before; ls -A w/work; veneer mount -o lowerdir=u m2");

        Assert.Equal((32, "new\n#left\n"), (exitCode, output.Replace("#whiteout\n", "", StringComparison.Ordinal)));
        Assert.Equal(
            [
                $"veneer: The upper directory u is the upper {Holder()}{consequence}",
                $"veneer: The work directory w is the work {Holder()}{consequence}",
                $"veneer: The lower directory u is the upper {Holder()}{Remedy}",
            ],
            sentences);
    }

    [MountFact]
    public void A_wrong_word_is_refused()
    {
        var (exitCode, _, sentences) = Run("veneer mount -o $LAYERS,inuse=maybe m");

        Assert.Equal(["veneer: inuse=maybe is not understood: inuse is refuse or warn."], sentences);
        Assert.Equal(1, exitCode);
    }

    [MountFact]
    public void Many_at_once_and_one_gets_it()
    {
        var (_, output, _) = Run(
            "mkdir m_{1,2,3,4,5,6,7,8}; for i in 1 2 3 4 5 6 7 8; do veneer mount -o $LAYERS m_$i 2>/dev/null & done; wait; "
            + "mount -t fuse.veneer | wc -l");

        Assert.Equal(1, int.Parse(output, CultureInfo.InvariantCulture));
    }

    /// <summary>Whoever may read a directory can lock it; an overlay of it has somebody who may write it.</summary>
    [MountTheory]
    [InlineData(
        "u", "", 0,
        "veneer: the upper directory u is locked by process N (/mnt/veneer-not u sleep 20), which may not write it and so is no overlay: "
        + "mounted all the same, without the lock")]
    [InlineData(
        "w", "-s ", 0,
        "veneer: the work directory w is locked by process N (/mnt/veneer-not -s w sleep 20), which may not write it and so is no overlay: "
        + "mounted all the same, without the lock")]
    [InlineData("l", "", 0, "")]
    public void A_lock_of_somebody_who_may_only_read_keeps_nobody_from_mounting(string directory, string how, int exitCode, string sentence)
    {
        var (code, output, sentences) = Run(
            $"mount -t tmpfs t /mnt; chmod 755 {directory} /mnt; cp $(command -v flock) /mnt/veneer-not; "
            + $"setpriv --reuid nobody --regid nogroup --clear-groups /mnt/veneer-not {how}{directory} sleep 20 & "
            + $"while flock -n {directory} true; do sleep 0.01; done; veneer mount -f -o $LAYERS,io_uring=off m & mounted m; cat m/f; "
            + "veneer mount -o $LAYERS m2; echo $?");

        Assert.Equal((exitCode, "old\n32\n"), (code, output));
        Assert.Equal(
            [
                .. sentence.Length > 0 ? (string[])[sentence] : [],
                "veneer: The upper directory u is the upper "
                + $"{Holder("veneer mount -f -o lowerdir=l,upperdir=u,workdir=w,io_uring=off m")}{Remedy}"],
            sentences);
    }

    /// <summary>What others have written, or are called, is one line of a log.</summary>
    [MountFact]
    public void Names_in_sentences_stay_on_their_line()
    {
        var (_, _, sentences) = Run(
            "mkdir \"$(printf 'm\\033[31m\\nveneer: all is well')\"; veneer mount -o $LAYERS \"$(echo m*well)\"; "
            + "veneer mount -f -o $LAYERS,inuse=warn,io_uring=off m & mounted m; umount m");

        Assert.All(sentences, sentence => Assert.DoesNotContain("\u001b", sentence, StringComparison.Ordinal));
        Assert.Contains(sentences, sentence => sentence.Contains(@"m\x1b[31m\x0aveneer: all is well", StringComparison.Ordinal));
        Assert.DoesNotContain(sentences, sentence => sentence.StartsWith("veneer: all is well", StringComparison.Ordinal));
    }
}
