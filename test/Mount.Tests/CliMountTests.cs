using System.Diagnostics;

namespace Veneer.Mount.Tests;

public sealed class CliMountTests : IDisposable
{
    private readonly CliSandbox sandbox = new();

    public void Dispose() => sandbox.Dispose();

    private string Succeeds(string script) => sandbox.Succeeds(script);

    [MountTheory]
    [InlineData("veneer mount -o $LAYERS m")]
    [InlineData("veneer mount m -o $LAYERS")]
    [InlineData("veneer mount -o$LAYERS m")]
    [InlineData("veneer mount source m -o $LAYERS")]
    [InlineData("veneer mount source -o $LAYERS -- m")]
    [InlineData("veneer mount -o workdir=w -o upperdir=u m -o lowerdir=l")]
    [InlineData("veneer -o $LAYERS m")]
    [InlineData("veneer overlay m -o $LAYERS,dev,suid")]
    [InlineData("veneer mount -o $LAYERS,,private,auto,nofail,x-systemd.requires=/a m")]
    [InlineData("cd m; veneer -o lowerdir=../l,upperdir=../u,workdir=../w .; cd ..")]
    [InlineData("ln -s l/. link; veneer mount -o lowerdir=link/../l,upperdir=u,workdir=w m; rm link")]
    public void It_is_mounted_when_the_command_returns(string command)
    {
        string output = Succeeds(command + "; cat m/f; echo new >m/f; cat m/f u/f l/f; veneer umount m; ls m");

        Assert.Equal("old\nnew\nnew\nold\n", output);
    }

    [MountFact]
    public void The_mount_table_shows_the_source_and_the_flags()
    {
        string table = Succeeds(
            "veneer mount 'a b' m -o $LAYERS,nosuid,noexec,noatime; grep fuse.veneer /proc/self/mountinfo; veneer umount m");

        Assert.Contains(
            $" {sandbox.Root}/m rw,nosuid,noexec,noatime - fuse.veneer a\\040b rw,user_id=0,group_id=0,default_permissions,allow_other\n",
            table, StringComparison.Ordinal);
    }

    [MountTheory]
    [InlineData("subtype=other")]
    [InlineData("uuid=on")]
    [InlineData("uuid=null")]
    [InlineData("default_permissions,override_creds,nfs_export=off,verity=off")]
    public void Options_without_effect_have_none(string options)
    {
        string without = Succeeds(
            "veneer mount -o $LAYERS m; grep -o ' rw.* - fuse.*' /proc/self/mountinfo; stat -f -c %i m; "
            + "veneer umount m; getfattr -m - -d u");
        string with = Succeeds(
            $"veneer mount -o $LAYERS,{options} m; grep -o ' rw.* - fuse.*' /proc/self/mountinfo; stat -f -c %i m; "
            + "veneer umount m; getfattr -m - -d u");

        Assert.Contains(" - fuse.veneer veneer rw,", without, StringComparison.Ordinal);
        Assert.Equal(without, with);
    }

    /// <summary>Who holds directories that have no path any more, or never had one, names them by a descriptor of his own.</summary>
    [MountFact]
    public void Directories_may_be_given_by_descriptors()
    {
        string output = Succeeds(
            "exec 5<m 6<l 7<u 8<w; veneer mount -o lowerdir=/proc/self/fd/6,upperdir=/dev/fd/7,workdir=/proc/thread-self/fd/8 /dev/fd/5; "
            + "echo new >>m/f; cat m/f u/f l/f; veneer umount m");

        Assert.Equal("old\nnew\nold\nnew\nold\n", output);
    }

    [MountFact]
    public void Harmless_options_of_others_are_named_and_do_no_harm()
    {
        Outcome outcome = sandbox.Run("veneer mount -o $LAYERS,lazytime,context='\"a:b:c1,c2\"' m && cat m/f");

        Assert.Equal("veneer: lazytime has no effect on Veneer.\nveneer: context has no effect: Veneer does not set SELinux labels.\n",
            outcome.Error);
        Assert.Equal("old\n", outcome.Output);
    }

    [MountFact]
    public void The_server_keeps_nothing_of_its_caller()
    {
        string output = Succeeds(
            "exec 7>keep; veneer mount -o $LAYERS m; p=$(pgrep -x veneer); readlink /proc/$p/cwd /proc/$p/fd/[012]; "
            + "ls -l /proc/$p/fd | grep -c 'keep\\|pipe:.*2$' || true; ps -o sid=,pid= $p | awk '{print $1 == $2}'; veneer umount m; "
            + "rm keep");

        Assert.Equal("/\n/dev/null\n/dev/null\n/dev/null\n0\n1\n", output);
    }

    [MountFact]
    public void The_mount_point_may_lie_inside_the_lower_tree()
    {
        string output = Succeeds(
            "mkdir l/m; veneer mount -o $LAYERS l/m; ls l/m l/m/m; echo new >l/m/g; veneer umount l/m; cat u/g; rmdir l/m");

        Assert.Equal("l/m:\nf\nm\n\nl/m/m:\nnew\n", output);
    }

    [MountFact]
    public void Upper_and_work_cannot_be_entered_from_the_lower_tree_they_lie_in()
    {
        string output = Succeeds(
            "mkdir -p x/{d,m} x/d/{u,w}; veneer mount -o lowerdir=x,upperdir=x/d/u,workdir=x/d/w x/m; ls x/m/d; "
            + "for n in u w; do stat x/m/d/$n 2>&1 || true; rm -r x/m/d/$n 2>&1 || true; touch x/m/d/$n/f 2>&1 || true; done; "
            + "veneer umount x/m; rm -r x");

        Assert.Equal(
            "u\nw\n" + string.Concat(((string[])["u", "w"]).Select(name =>
                $"stat: cannot statx 'x/m/d/{name}': Too many levels of symbolic links\n"
                + $"rm: cannot remove 'x/m/d/{name}': Too many levels of symbolic links\n"
                + $"touch: cannot touch 'x/m/d/{name}/f': Too many levels of symbolic links\n")),
            output);
    }

    [MountFact]
    public void A_path_need_not_be_utf8()
    {
        string output = Succeeds(
            "d=$'\\xff,:'; mkdir \"$d\"; echo odd >\"$d/g\"; veneer mount -o \"lowerdir+=$(printf '\\377\\\\,:')\" m; cat m/g; "
            + "veneer umount m; rm -r \"$d\"");

        Assert.Equal("odd\n", output);
    }

    [MountFact]
    public void Five_hundred_layers_are_mounted()
    {
        string output = Succeeds(
            "mkdir x; mount -t tmpfs t x; mkdir x/{1..500}; touch x/500/last x/1/first; veneer mount -o lowerdir=$(seq -s: -f x/%g 500) m; "
            + "ls m; veneer umount m; umount x; rmdir x");

        Assert.Equal("first\nlast\n", output);
    }

    [MountFact]
    public void Mounts_are_stacked_as_mount_does()
    {
        string output = Succeeds(
            "mkdir l2; touch l2/second; veneer mount -o lowerdir=l m; veneer mount -o lowerdir=l2 m; ls m; veneer umount m; ls m; "
            + "veneer umount m; rm -r l2");

        Assert.Equal("second\nf\n", output);
    }

    [MountFact]
    public void In_the_foreground_it_serves_until_it_is_unmounted()
    {
        string output = Succeeds("veneer mount -f -o $LAYERS,io_uring=off m & mounted m; cat m/f; umount m; wait $!; echo $?");

        Assert.Equal("old\n0\n", output);
    }

    [MountFact]
    public void Debug_shows_each_request()
    {
        Outcome outcome = sandbox.Run("veneer mount -d -o $LAYERS,io_uring=off m & mounted m; cat m/f; umount m; wait $!");

        Assert.Equal((0, "old\n"), (outcome.ExitCode, outcome.Output));
        Assert.Matches("^2 Init protocol=7.* pid=0\n2 Init .* -> OK, 80 bytes, \\d+ us\n", outcome.Error);
        Assert.Matches("\n(\\d+) Lookup node=1 f pid=\\d+ uid=0\n(.*\n)*\\1 Lookup node=1 f -> OK, 144 bytes, \\d+ us\n", outcome.Error);
        Assert.Matches("Open", outcome.Error);
    }

    [MountTheory]
    [InlineData("$LAYERS", "cat m/large", true)]
    [InlineData("$LAYERS", "m/program --version", true)]
    [InlineData("$LAYERS", "cat m/small", true)]
    [InlineData("$LAYERS", "cp l/large m/new; cat m/new", false)]
    [InlineData("$LAYERS", "echo more >>m/small; cat m/small", true)]
    [InlineData("$LAYERS", "cp l/large m/new; dd if=m/new iflag=direct bs=1M status=none", true)]
    [InlineData("lowerdir=l", "cat m/small", false)]
    [InlineData("$LAYERS,passthrough=lower", "cat m/large", false)]
    [InlineData("$LAYERS,passthrough=lower", "m/program --version", false)]
    [InlineData("$LAYERS,passthrough=lower", "cat m/small", true)]
    [InlineData("$LAYERS,passthrough=lower", "cp l/large m/new; cat m/new", false)]
    [InlineData("$LAYERS,coherent", "cat m/large", true)]
    [InlineData("$LAYERS,passthrough=off", "cat m/large", true)]
    [InlineData("$LAYERS,passthrough=off", "cp l/large m/new", true)]
    public void Data_passes_the_server_by_where_it_is_safe(string options, string use, bool comes)
    {
        // Programs are read a little by the kernel, which looks at their beginning, before they are mapped.
        string output = Succeeds(
            "head -c 100000 /dev/zero >l/small; head -c 2000000 /dev/zero >l/large; cp -L $(command -v ls) l/program; "
            + $"veneer mount -d -o {options} m 2>trace & mounted m; {{ {use}; }} >/dev/null; umount m; wait $!; "
            + "grep -q ' Open \\| Create ' trace; grep -cE ' Read .* -> OK, [0-9]{5,} bytes| Write ' trace || true");

        Assert.Equal(comes, output != "0\n");
    }

    [MountFact]
    public void A_copy_up_stops_when_its_caller_is_killed()
    {
        // A signal that he handles lets it go on, as in kernel overlayfs: programs do not expect EINTR from opening a file.
        // On a busy machine the copy may be there before the signal: then another caller is killed.
        string output = Succeeds(
            "used() { df --output=used -B 1M w | tail -n 1; }; "
            + "begin() { mount -t tmpfs t w; mkdir w/l w/u w/w; head -c 400000000 /dev/zero | tr '\\0' x >w/l/large; "
            + "veneer mount -o lowerdir=w/l,upperdir=w/u,workdir=w/w m; "
            + "( trap : USR1; echo more >>m/large ) & caller=$!; until [ $(used) -gt 420 ]; do :; done; }; "
            + "end() { veneer umount m; umount w; }; "
            + "for try in 1 2 3 4 5 6 7 8 9 10; do begin; status=0; "
            + "{ kill -KILL $caller || true; wait $caller || status=$?; } 2>/dev/null; "
            + "for i in $(seq 20); do [ $(used) -lt 420 ] && break; sleep 0.1; done; "
            + "[ $status.$(ls w/u; ls -A w/w/work) = 137. ] && break; end; done; "
            + "echo $status; ls w/u; ls -A w/w/work; end; "
            + "begin; { kill -USR1 $caller || true; } 2>/dev/null; wait $caller || true; tail -c 5 m/large; end");

        Assert.Equal("137\nmore\n", output);
    }

    [MountTheory]
    [InlineData("TERM")]
    [InlineData("INT")]
    [InlineData("HUP")]
    public void A_signal_unmounts(string signal)
    {
        string output = Succeeds(
            $"veneer mount -o $LAYERS m; cat m/f; kill -{signal} $(pgrep -x veneer); ended; ls m; mountpoint -q m || echo gone");

        Assert.Equal("old\ngone\n", output);
    }

    [MountFact]
    public void A_signal_unmounts_what_is_in_use_when_its_users_have_gone()
    {
        string output = Succeeds(
            "veneer mount -o $LAYERS m; exec 5<m/f; kill $(pgrep -x veneer); hidden m; echo hidden; cat <&5; exec 5<&-; ended");

        Assert.Equal("hidden\nold\n", output);
    }

    /// <summary>Else the next mount would ask for a sync, although nobody has written anything.</summary>
    [MountFact]
    public void A_volatile_mount_that_fails_leaves_the_upper_as_it_was()
    {
        const string fails = "mount --bind /dev/null /dev/fuse; ! veneer mount -o $LAYERS,volatile m 2>/dev/null; umount /dev/fuse; ";

        Succeeds(fails + "test ! -e w/work/incompat; veneer mount -o $LAYERS m; veneer umount m; "
            + "veneer mount -o $LAYERS,volatile m; veneer umount m; " + fails
            + "test -e w/work/incompat/volatile/dirty; ! veneer mount -o $LAYERS m 2>/dev/null");
    }

    [MountFact]
    public void A_second_signal_ends_the_server_though_it_is_in_use()
    {
        Succeeds("veneer mount -o $LAYERS m; exec 5<m/f; kill $(pgrep -x veneer); hidden m; kill $(pgrep -x veneer); ended");
    }

    [MountTheory]
    [InlineData("veneer umount m")]
    [InlineData("veneer umount -l m")]
    [InlineData("veneer unmount m")]
    [InlineData("cd m/..; veneer umount ./m/")]
    [InlineData("ln -s $VENEER umount.fuse.veneer; ./umount.fuse.veneer $PWD/m -n -f -t fuse.veneer; rm umount.fuse.veneer")]
    public void When_umount_returns_the_filesystem_of_the_layers_is_free(string command)
    {
        Succeeds(
            "mkdir x; mount -t tmpfs t x; mkdir x/l x/u x/w; for i in 1 2 3 4 5; do "
            + $"veneer mount -o lowerdir=x/l,upperdir=x/u,workdir=x/w m; touch m/$i; {command}; umount x; mount -t tmpfs t x; "
            + "mkdir x/l x/u x/w; done; umount x; rmdir x");
    }

    [MountFact]
    public void A_mount_over_the_directory_of_the_caller_is_unmounted_by_its_name() =>
        Succeeds("cd m; veneer mount -o lowerdir=../l,upperdir=../u,workdir=../w ../m; veneer umount .; ! mountpoint -q ../m");

    [MountFact]
    public void A_mount_over_the_root_directory_is_one() =>
        Succeeds("veneer mount -o $LAYERS / && grep -q ' / / .* fuse.veneer ' /proc/self/mountinfo");

    [MountFact]
    public void A_shutdown_says_what_it_waits_for()
    {
        Outcome outcome = sandbox.Run(
            "veneer mount -o $LAYERS m; kill -STOP $(pgrep -x veneer | head -1); timeout 8 veneer shutdown m; "
            + "kill -CONT $(pgrep -x veneer); veneer umount -l m");

        Assert.Contains(
            "veneer: The server of m has not answered for 5 seconds: what it serves ends first; "
            + "if it hangs, veneer umount -l takes the mount away.\n",
            outcome.Error, StringComparison.Ordinal);
    }

    [MountFact]
    public void Umount_does_not_wait_for_a_server_that_hangs()
    {
        var watch = Stopwatch.StartNew();

        Outcome outcome = sandbox.Run(
            "veneer mount -o $LAYERS m; kill -STOP $(pgrep -x veneer); veneer umount m; echo $?; mountpoint -q m || echo gone");

        Assert.Equal("0\ngone\n", outcome.Output);
        Assert.Equal($"veneer: The server of {sandbox.Root}/m does not answer: the mount is taken out of sight without waiting for it.\n",
            outcome.Error);
        Assert.InRange(watch.Elapsed.TotalSeconds, 0, 20);
    }

    [MountFact]
    public void A_mount_whose_server_was_killed_is_unmounted()
    {
        Succeeds("veneer mount -o $LAYERS m; kill -KILL $(pgrep -x veneer); ended; veneer umount m; ls m");
    }

    [MountFact]
    public void Nothing_stays_when_the_caller_has_gone_before_the_mount_was_ready()
    {
        // As the parent starts it, but nobody reads what it says.
        Succeeds(
            "VENEER_BACKGROUND=$$ veneer mount -o $LAYERS m 2> >(exec true) >/dev/null & wait $! || true; mountpoint -q m && exit 1; true");
    }

    [MountFact]
    public void Umount_says_where_the_overlay_still_is()
    {
        Outcome outcome = sandbox.Run(
            "mkdir x; veneer mount -o $LAYERS m; mount --bind m x; veneer umount m; echo $?; cat x/f; veneer umount x; rmdir x");

        Assert.Equal("0\nold\n", outcome.Output);
        Assert.Equal(
            $"veneer: {sandbox.Root}/m is unmounted, but the same overlay is still mounted on {sandbox.Root}/x, "
            + "so that its layers stay in use.\n",
            outcome.Error);
    }

    [MountFact]
    public void A_lazy_umount_hides_a_mount_in_use()
    {
        string output = Succeeds("veneer mount -o $LAYERS m; exec 5<m/f; veneer umount -l -v m; cat <&5");

        Assert.Equal($"veneer: {sandbox.Root}/m unmounted\nold\n", output);
    }

    [MountFact]
    public void The_helper_of_mount_mounts_pretends_and_remounts()
    {
        string output = Succeeds(
            "ln -s $VENEER mount.fuse.veneer; ./mount.fuse.veneer src $PWD/m -f -o rw,$LAYERS; mountpoint -q m || echo pretended; "
            + "./mount.fuse.veneer src $PWD/m -v -n -o rw,nosuid,$LAYERS; grep -c fuse.veneer /proc/self/mountinfo; "
            + "./mount.fuse.veneer src $PWD/m -o remount,ro,nosuid,user_id=0,group_id=0,default_permissions,allow_other; "
            + "touch m/x 2>&1 || true; "
            + "./mount.fuse.veneer src $PWD/m -o remount,rw; touch m/x; ls m; "
            + "grep fuse.veneer /proc/self/mountinfo | grep -o 'm rw,nosuid'; veneer umount m; rm mount.fuse.veneer");

        Assert.Equal("pretended\n1\ntouch: cannot touch 'm/x': Read-only file system\nf\nx\nm rw,nosuid\n", output);
    }

    [MountFact]
    public void Mount_and_umount_use_the_helpers_where_they_are_installed()
    {
        string output = Succeeds(
            "mount -t tmpfs t /run; mkdir sbin; mount --bind /sbin sbin; mount -t tmpfs t /mnt; cp -a sbin /mnt/sbin; "
            + "ln -s $VENEER /mnt/sbin/mount.fuse.veneer; ln -s $VENEER /mnt/sbin/umount.fuse.veneer; "
            + "mount --bind /mnt/sbin $(realpath /sbin); umount sbin; rmdir sbin; "
            + "mkdir x; mount -t tmpfs t x; mkdir x/l x/u x/w; touch x/l/g; "
            + "mount -t fuse.veneer src m -o lowerdir=x/l,upperdir=x/u,workdir=x/w,nodev; ls m; mount -o remount,ro m; "
            + "touch m/x 2>/dev/null || echo read-only; umount m; umount x; rmdir x");

        Assert.Equal("g\nread-only\n", output);
    }

    /// <summary>Of an absolute path umount(8) asks statfs(2) for the type, which is not ours.</summary>
    [MountTheory]
    [InlineData("umount m")]
    [InlineData("umount $PWD/m")]
    [InlineData("umount -c $PWD/m")]
    [InlineData("veneer umount m")]
    public void The_helper_of_umount_is_called_however_the_mount_is_named(string command)
    {
        string output = Succeeds(
            "mount -t tmpfs t /run; mkdir sbin; mount --bind /sbin sbin; mount -t tmpfs t /mnt; cp -a sbin /mnt/sbin; "
            + "umount sbin; rmdir sbin; mount --bind /mnt/sbin $(realpath /sbin); "
            + "ln -s $VENEER /run/umount.fuse.veneer; "
            + "printf '#!/bin/sh\\necho helper; exec /run/umount.fuse.veneer \"$@\"\\n' >/sbin/umount.fuse.veneer; "
            + "chmod +x /sbin/umount.fuse.veneer; "
            + $"mkdir x; mount -t tmpfs t x; veneer mount -o lowerdir=x,upperdir=u,workdir=w m; {command}; umount x; rmdir x; "
            + "grep -c veneer /run/mount/utab || true");

        Assert.Equal(command.StartsWith('v') ? "0\n" : "helper\n0\n", output);
    }

    [MountFact]
    public void Make_run_mounts_for_root_and_for_a_user()
    {
        string script = Path.GetFullPath(Mounter.Binary + "/../../tools/run.sh");
        string run = $"mkdir -p $PWD/r/tools $PWD/r/out; cp {script} r/tools; ln -s $VENEER r/out/veneer; ";

        // The server may still be removing what it had in work: hence rm -rf.
        string root = Succeeds(
            run
            + "r/tools/run.sh l x/m x/s >said; echo new >x/m/g; cat x/m/f x/s/*/upper/g; grep -c 'umount .*x/m' said; "
            + "umount x/m; rm -rf r x said");
        string user = Succeeds(
            CliSandbox.AsNobody + "mknod -m 666 fuse c 10 229; mount --bind fuse /dev/fuse; mkdir x; chown nobody x; " + run
            + "as r/tools/run.sh l x/m x/s >said; as sh -c 'echo new >x/m/g; cat x/m/f'; cat x/s/*/upper/g; "
            + "grep -c 'fusermount3 -u .*x/m' said; as fusermount3 -u x/m; rm -rf r x said fuse");

        Assert.Equal("old\nnew\n1\n", root);
        Assert.Equal("old\nnew\n1\n", user);
    }

    [MountFact]
    public void What_a_user_cannot_have_is_in_the_status()
    {
        Outcome outcome = sandbox.Run(
            CliSandbox.AsNobody
            + "mknod -m 666 fuse c 10 229; mount --bind fuse /dev/fuse; chown nobody m; as veneer mount -f -o lowerdir=l,io_uring=off m & "
            + "until as mountpoint -q m; do sleep 0.05; done; as veneer status m | head -n 1; umount m; wait");

        Assert.Equal(new Outcome(0, "passthrough      none: it takes root in the initial user namespace\n", ""), outcome);
    }

    [MountFact]
    public void A_user_syncs_what_has_no_mark()
    {
        Outcome outcome = sandbox.Run(CliSandbox.AsNobody + "as veneer sync l");

        Assert.Equal(
            new Outcome(0, "2 files and directories synced\n",
                "veneer: l has no mark of a volatile upper: if that is a mount point, name the upper.\n"), outcome);
    }

    [MountFact]
    public void A_user_mounts_for_himself_through_fusermount3()
    {
        string output = Succeeds(
            CliSandbox.AsNobody
            + "mknod -m 666 fuse c 10 229; mount --bind fuse /dev/fuse; chown -R nobody l u w m; touch l/h; chown nobody:root l/h; "
            + "as veneer mount -o $LAYERS,userxattr,fsname='a\\,b' m; grep -o 'nosuid,nodev.*fuse.veneer .* rw' /proc/self/mountinfo; "
            + "as sh -c 'cat m/f; echo new >m/g; cat u/g'; as sh -c 'echo x >m/h' 2>&1 || true; rm l/h; "
            + "ls m >/dev/null 2>&1 || echo private; as veneer umount m; pgrep -x veneer || true; rm fuse");

        Assert.Equal("nosuid,nodev,relatime - fuse.veneer a,b rw\nold\nnew\nsh: 1: cannot create m/h: Operation not permitted\nprivate\n",
            output);
    }

    [MountFact]
    public void No_device_but_fuse_is_needed()
    {
        Assert.Equal("fsync            auto\nA new\n", Succeeds(
            "mount -t tmpfs -o dev t /mnt; cp -a /dev/{urandom,fuse} /mnt; mount --bind /mnt /dev; ! [ -e /dev/null ]; "
            + "veneer mount -o $LAYERS m; veneer status m | grep ^fsync; touch m/new; veneer diff m; veneer umount m; "
            + "veneer mount -o $LAYERS m <&- >&- 2>&-; veneer umount m"));
    }

    [MountFact]
    public void Without_the_right_to_trusted_attributes_those_of_the_user_are_chosen_for_upper_and_stay()
    {
        Outcome outcome = sandbox.Run(
            CliSandbox.AsNobody
            + "mknod -m 666 /mnt/fuse c 10 229; mount --bind /mnt/fuse /dev/fuse; mkdir -p l/d l/p l2/p; touch l/d/x l2/p/hidden; "
            + "setfattr -n trusted.overlay.opaque -v y l/p; chown -R nobody:nogroup l u w m; O=lowerdir=l:l2,upperdir=u,workdir=w; "
            + "as veneer mount -o $O m && as rm -r m/d && as mkdir m/d && as veneer status m | grep lacks; "
            + "getfattr -n user.overlay.opaque --only-values u/d; echo; as veneer umount m; "
            // Root does not see what upper hides by another name, and reads the lowers as it always does.
            + "veneer mount -o $O m; ls -A m/d m/p; setfattr -n user.overlay.x -v kept m/d; getfattr -n user.overlay.x --only-values m/d; "
            + "echo; getfattr -n user.overlay.overlay.x --only-values u/d; veneer umount m");

        Assert.Equal(("upper lacks      trusted.overlay.* attributes: user.overlay.* ones\ny\nm/d:\n\nm/p:\nkept\nkept", ""),
            (outcome.Output, outcome.Error));
    }

    [MountTheory]
    [InlineData("mount -t ramfs r x", "attributes|RENAME_WHITEOUT")]
    [InlineData("mkdir b; bindfs b x", "RENAME_EXCHANGE|RENAME_WHITEOUT|RENAME_NOREPLACE|O_TMPFILE|unlinking open files without a trace")]
    [InlineData("mkdir b bu bw; mount -t overlay o -o lowerdir=b,upperdir=bu,workdir=bw x", "whiteout devices|RENAME_WHITEOUT")]
    [InlineData("mount -t tmpfs t x", "")]
    public void The_status_says_what_the_upper_lacks(string make, string lacks)
    {
        Outcome outcome = sandbox.Run(
            $"mkdir x; {make} && mkdir x/u x/w && veneer mount -o lowerdir=l,upperdir=x/u,workdir=x/w m 2>/dev/null && "
            + "veneer status m | sed -n 's/^upper lacks *\\([^:]*\\):.*/\\1/p' | paste -sd '|'; veneer umount m; ls -A x/w/work");

        Assert.Equal((lacks + "\n", ""), (outcome.Output, outcome.Error));
    }
}
