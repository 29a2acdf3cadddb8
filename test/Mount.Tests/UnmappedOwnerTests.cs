namespace Veneer.Mount.Tests;

/// <summary>
/// In a user namespace, nobody has the rights of an owner who is not mapped there, not even the user whose number stat(2) shows
/// as the owner.
/// </summary>
public sealed class UnmappedOwnerTests
{
    /// <summary>
    /// The ids 0 to 65536 of a namespace as container engines make it. Its 0 is root outside, its 65534 is 165533 outside; 5
    /// outside is not mapped.
    /// </summary>
    private const string ManyIds = "0 0 1\n1 100000 65536";

    private const string OneId = "0 0 1";

    /// <summary>Objects of lower: who owns them, and whether they can be changed in a namespace with these ids.</summary>
    private const string Fill =
        "file() { echo content > $1; chown $2 $1; chmod $3 $1; }; "
        + "file l/theirs 5:5 644; file l/everybodys 5:5 666; file l/group 0:5 660; file l/owner 5:0 660; file l/private 5:5 600; "
        + "file l/nobody 165533:165533 600; file l/nobodys-group 0:165533 660; file l/roots 0:0 644; "
        + "cp /usr/bin/id l/set-uid; chown 5:5 l/set-uid; chmod 4755 l/set-uid; ln -s f l/link; ln -s f l/nobody-link; "
        + "mkfifo l/fifo l/nobody-fifo; mkdir l/dir l/sticky l/nobody-dir; "
        + "chown -h 5:5 l/link l/fifo l/dir l/sticky; chown -h 165533:165533 l/nobody-link l/nobody-fifo l/nobody-dir; "
        + "chmod 1777 l/sticky; chmod 777 l; "
        + "file l/list 0:0 640; setfacl -m u:5:rw,u:100999:r l/list; ";

    /// <summary>Says of each attempt whether it was refused.</summary>
    private const string Tries =
        "try() { local name=$1; shift; if \"$@\" >/dev/null 2>&1; then echo \"$name: done\"; else echo \"$name: refused\"; fi; }; "
        + "nobody() { setpriv --reuid 65534 --regid 65534 --clear-groups \"$@\"; }; "
        + "append() { echo more >> $1; }; export -f append; ";

    /// <summary>Runs a script in a namespace with these ids, with lower filled and the overlay mounted on <c>m</c>.</summary>
    private static string[] Run(string ids, string script)
    {
        FilePath home = Scratch.New();
        try
        {
            string mount = Mounter.UnderTest.IsKernel ? "mount -t overlay -o $o overlay m" : $"{Mounter.Binary} mount -o $o m";
            foreach (string name in (string[])["l", "u", "w", "m"]) { Sys.MakeDirectory(home / name, Oct(755)); }
            Sys.Write(
                home / "inside",
                $"set -e; cd {home}; o=lowerdir=$PWD/l,upperdir=$PWD/u,workdir=$PWD/w,userxattr; {mount}; set +e; {Tries}{script}\n"
                + "umount m\n");
            Sys.Write(home / "ids", ids); // the kernel takes a map in one write, which echo does not make of several lines
            // Who has entered a namespace before it has ids gets its privileges when he next runs a program.
            Command.Result result = Command.Run([
                "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private", "bash", "-ec",
                $"cd {home}; {Fill} mkfifo go; unshare --user --mount --propagation private bash -c 'read _ <go; "
                + "exec setpriv --reuid 0 --regid 0 --clear-groups bash inside' & "
                + "while [ \"$(readlink /proc/$!/ns/user)\" = \"$(readlink /proc/self/ns/user)\" ]; do :; done; "
                + "for map in uid_map gid_map; do cat ids > /proc/$!/$map; done; echo > go; wait $!"]);
            Assert.True(result.ExitCode == 0, result.Text);
            return result.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
        }
        finally
        {
            Sys.RemoveTree(home);
        }
    }

    public static TheoryData<string> Ids => [ManyIds, OneId];

    [MountTheory]
    [MemberData(nameof(Ids))]
    public void Root_of_the_namespace_changes_nothing_that_belongs_to_an_unmapped_owner(string ids)
    {
        string[] seen = Run(ids,
            "for f in theirs everybodys group owner private set-uid; do try \"write $f\" append m/$f; "
            + "try \"truncate $f\" truncate -s 0 m/$f; try \"chmod $f\" chmod 600 m/$f; try \"chown $f\" chown 0:0 m/$f; "
            + "try \"touch $f\" touch m/$f; try \"attribute of $f\" setfattr -n user.a -v 1 m/$f; "
            + "try \"list of $f\" setfacl -m u:0:r m/$f; try \"flags of $f\" chattr +A m/$f; try \"link $f\" ln m/$f m/more; "
            + "try \"move $f\" mv m/$f m/moved; done; "
            + "for f in link fifo; do try \"chown $f\" chown -h 0:0 m/$f; try \"move $f\" mv m/$f m/moved; "
            + "try \"link $f\" ln -P m/$f m/more; done; "
            + "for d in dir sticky; do try \"create in $d\" touch m/$d/new; try \"mkdir in $d\" mkdir m/$d/new; "
            + "try \"link in $d\" ln -s x m/$d/new; try \"move into $d\" mv m/roots m/$d/new; try \"chmod $d\" chmod 700 m/$d; "
            + "try \"chown $d\" chown 0:0 m/$d; done");

        Assert.Equal(78, seen.Length);
        Assert.All(seen, line => Assert.EndsWith(": refused", line, StringComparison.Ordinal));
    }

    [MountFact]
    public void Nobody_has_no_rights_of_an_unmapped_owner_or_group()
    {
        string[] seen = Run(ManyIds,
            "for f in theirs group owner private; do try \"write $f\" nobody bash -c \"append m/$f\"; "
            + "try \"chmod $f\" nobody chmod 666 m/$f; done; try 'read private' nobody cat m/private; try 'read group' nobody cat m/group; "
            + "try 'create' nobody touch m/dir/new; try 'times of link' nobody touch -h m/link; stat -c '%u:%g' m/theirs m/link m/dir; "
            + "nobody m/set-uid -u");

        Assert.Equal(12, seen.Count(line => line.EndsWith(": refused", StringComparison.Ordinal)));
        Assert.Equal(["65534:65534", "65534:65534", "65534:65534", "65534"], seen[^4..]);
    }

    [MountFact]
    public void What_really_belongs_to_nobody_is_his()
    {
        string[] seen = Run(ManyIds,
            "try read nobody cat m/nobody; try write nobody bash -c 'append m/nobody'; try group nobody bash -c 'append m/nobodys-group'; "
            + "try 'times of link' nobody touch -h m/nobody-link; try chmod nobody chmod 600 m/nobody-fifo; "
            + "try create nobody touch m/nobody-dir/new; "
            + "try 'chown link' chown -h 0:0 m/nobody-link; try 'move fifo' mv m/nobody-fifo m/moved; "
            + "stat -c '%u:%g' u/nobody u/moved u/nobody-dir u/nobody-dir/new u/nobodys-group");

        Assert.Equal(8, seen.Count(line => line.EndsWith(": done", StringComparison.Ordinal)));
        Assert.Equal(["65534:65534", "65534:65534", "65534:65534", "65534:65534", "0:65534"], seen[^5..]);
    }

    [MountFact]
    public void An_access_list_that_names_somebody_unmapped_is_obeyed_for_the_others()
    {
        string[] seen = Run(
            ManyIds,
            "try 'the one who is mapped' setpriv --reuid 1000 --regid 1000 --clear-groups cat m/list; try 'nobody' nobody cat m/list; "
            + "try 'root' cat m/list");

        Assert.Equal(["the one who is mapped: done", "nobody: refused", "root: done"], seen);
    }

    [MountFact(NotOfKernel = "The kernel copies the entry of somebody who is not mapped.")]
    public void An_access_list_that_cannot_be_copied_whole_is_not_copied()
    {
        string[] seen = Run(ManyIds, "try write append m/list; ls u");

        Assert.Equal(["write: refused"], seen);
    }

    [MountFact]
    public void A_layer_with_an_id_mapping_hides_owners_from_root_as_well()
    {
        Assert.SkipWhen(Mounter.UnderTest is { IsVeneer: false, IsKernel: false }, "About the kernel and Veneer.");
        FilePath home = Scratch.New(), lower = home / "lower", mapped = home / "mapped";
        foreach (FilePath path in (FilePath[])[lower, mapped]) { Sys.MakeDirectory(path, Oct(755)); }
        Sys.Write(lower / "theirs", "");
        Sys.Write(lower / "nobody", "");
        Sys.Write(lower / "mapped", "");
        Sys.ChangeOwner(lower / "theirs", 7, 7);
        Sys.ChangeOwner(lower / "nobody", 65534, 65534);
        Sys.SymbolicLink("theirs", lower / "link");
        Sys.ChangeOwner(lower / "link", 7, 7);
        IdMappedMount.Make(lower, mapped, "0 0 1\n65534 65534 1");
        try
        {
            using var overlay = Overlay.With(over: [mapped]);
            using Actor nobody = Actor.User(65534, 65534);

            Assert.Equal(65534u, Sys.Stat(overlay.Merged / "theirs").Uid);
            Assert.Equal(Errno.EACCES, Sys.ErrorOf(() => Sys.Append(overlay.Merged / "theirs", "x")));
            Assert.Equal(Errno.EACCES, nobody.ErrorOf(() => Sys.Append(overlay.Merged / "theirs", "x")));
            Assert.Equal(Errno.EOVERFLOW, Sys.ErrorOf(() => Sys.ChangeMode(overlay.Merged / "theirs", Oct(600))));
            Assert.Equal(Errno.EACCES, Sys.ErrorOf(() => Sys.ChangeTimes(overlay.Merged / "link", TimeSpec.Now, TimeSpec.Now)));
            nobody.Do(() => Sys.Append(overlay.Merged / "nobody", "x"));
            Sys.Append(overlay.Merged / "mapped", "x");
            Assert.Equal((65534u, 0u), (Sys.Stat(overlay.Upper / "nobody").Uid, Sys.Stat(overlay.Upper / "mapped").Uid));
        }
        finally
        {
            _ = Libc.Unmount(mapped.Bytes, lazy: true); // best effort: a mount that failed is not there
        }
    }
}
