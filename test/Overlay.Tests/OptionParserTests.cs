using FsCheck;
using FsCheck.Fluent;
using Veneer.Linux;

namespace Veneer.Overlay.Tests;

public sealed class OptionParserTests
{
    private static OverlayOptions Parse(params string[] options)
    {
        var parser = new OptionParser();
        foreach (string option in options) { parser.Add(option); }
        return parser.Build(null, "/mnt");
    }

    private static string Refusal(params string[] options) => Assert.Throws<OverlayMountException>(() => Parse(options)).Message;

    private static IReadOnlyList<string> Warnings(string options)
    {
        var parser = new OptionParser();
        parser.Add("lowerdir=/l," + options);
        parser.Build(null, "/mnt");
        return parser.Warnings;
    }

    [Fact]
    public void Lower_directories_are_topmost_first()
    {
        Assert.Equal(["/top", "/middle", "rel/below"], Parse("lowerdir=/top:/middle:rel/below").LowerDirectories);
    }

    [Theory]
    [InlineData(@"lowerdir=/a\:b", "/a:b")]
    [InlineData(@"lowerdir=/a\,b", "/a,b")]
    [InlineData(@"lowerdir=/a\\b", @"/a\b")]
    [InlineData(@"lowerdir=/a\\\:b", @"/a\:b")]
    [InlineData(@"lowerdir=/a\", @"/a\")]
    [InlineData("lowerdir=/a=b", "/a=b")]
    [InlineData("lowerdir=/a\"b", "/a\"b")]
    [InlineData("lowerdir+=/a:b", "/a:b")]
    [InlineData(@"lowerdir+=/a\:b", @"/a\:b")]
    [InlineData(@"lowerdir+=/a\,b", "/a,b")]
    [InlineData("lowerdir=l/ABC/../diff1", "l/ABC/../diff1")]
    public void A_lower_path_may_have_any_character(string option, string path)
    {
        Assert.Equal([path], Parse(option).LowerDirectories);
    }

    [Fact]
    public void Upper_and_work_lose_their_backslashes_but_keep_colons()
    {
        OverlayOptions options = Parse(@"lowerdir=/l,upperdir=/u:1\,2\:3,workdir=/w\\");

        Assert.Equal("/u:1,2:3", options.UpperDirectory);
        Assert.Equal(@"/w\", options.WorkDirectory);
    }

    [Fact]
    public void Any_path_survives_its_escapes()
    {
        Gen<string> paths = Gen.Elements([.. "ab/:\\,\"=. \u00e9+"]).NonEmptyListOf().Select(characters => string.Concat(characters));
        Prop.ForAll(Arb.From(paths.NonEmptyListOf()), Arb.From(paths), (lowers, upper) =>
        {
            OverlayOptions options = Parse($"lowerdir={string.Join(':', lowers.Select(Escape))},upperdir={Escape(upper)},workdir=/w,ro");
            return options.LowerDirectories.SequenceEqual(lowers, StringComparer.Ordinal) && options.UpperDirectory == upper
                && options.ReadOnly;
        }).QuickCheckThrowOnFailure();

        static string Escape(string path) =>
            path.Replace("\\", "\\\\", StringComparison.Ordinal).Replace(":", "\\:", StringComparison.Ordinal)
                .Replace(",", "\\,", StringComparison.Ordinal);
    }

    [Fact]
    public void Lowerdir_replaces_and_lowerdir_plus_appends()
    {
        Assert.Equal(["/c", "/d"], Parse("lowerdir=/a:/b", "lowerdir+=/x", "lowerdir=/c,lowerdir+=/d").LowerDirectories);
        Assert.Equal(["/d"], Parse("lowerdir=/a,lowerdir=,lowerdir+=/d").LowerDirectories);
    }

    [Fact]
    public void Several_option_lists_are_one_and_empty_options_are_nothing()
    {
        OverlayOptions options = Parse("workdir=/w", ",upperdir=/u,,volatile,", "", "lowerdir=/l");

        Assert.Equal("/u", options.UpperDirectory);
        Assert.Equal("/w", options.WorkDirectory);
        Assert.Equal(Sync.Volatile, options.Sync);
    }

    [Fact]
    public void Defaults_are_those_of_the_kernel()
    {
        OverlayOptions options = Parse("lowerdir=/l,upperdir=/u,workdir=/w");

        Assert.Equal(
            new OverlayOptions
            {
                LowerDirectories = options.LowerDirectories,
                UpperDirectory = "/u",
                WorkDirectory = "/w",
                Spelled = options.Spelled,
                MountPoint = "/mnt",
                Source = "veneer",
                ReadOnly = false,
                AllowOther = null,
                MountFlags = MountFlags.None,
                RedirectDirectory = RedirectDirectory.Follow,
                Metacopy = false,
                Xino = Xino.Auto,
                UserXattr = false,
                PassLower = false,
                Passthrough = KernelFeature.Auto,
                Sync = Sync.Auto,
                Threads = null,
            },
            options);
    }

    [Fact]
    public void Without_an_upper_it_is_read_only()
    {
        Assert.True(Parse("lowerdir=/l").ReadOnly);
        Assert.True(Parse("lowerdir=/l,rw").ReadOnly);
        Assert.True(Parse("lowerdir=/l,upperdir=/u,workdir=/w,ro").ReadOnly);
        Assert.False(Parse("lowerdir=/l,upperdir=/u,workdir=/w,ro,rw").ReadOnly);
    }

    [Theory]
    [InlineData("redirect_dir=on", RedirectDirectory.On)]
    [InlineData("redirect_dir=follow", RedirectDirectory.Follow)]
    [InlineData("redirect_dir=nofollow", RedirectDirectory.NoFollow)]
    [InlineData("redirect_dir=off", RedirectDirectory.Follow)]
    [InlineData("metacopy=on", RedirectDirectory.On)]
    [InlineData("metacopy=on,redirect_dir=on", RedirectDirectory.On)]
    [InlineData("userxattr", RedirectDirectory.NoFollow)]
    [InlineData("userxattr,redirect_dir=nofollow", RedirectDirectory.NoFollow)]
    public void Redirects_follow_the_other_options_as_in_the_kernel(string options, RedirectDirectory expected)
    {
        Assert.Equal(expected, Parse("lowerdir=/l," + options).RedirectDirectory);
    }

    [Theory]
    [InlineData("volatile", OnError.Shutdown)]
    [InlineData("fsync=0", OnError.Shutdown)]
    [InlineData("fsync=auto", OnError.Continue)]
    [InlineData("fsync=strict", OnError.Continue)]
    [InlineData("volatile,errors=continue", OnError.Continue)]
    [InlineData("volatile,errors=remount-ro", OnError.ReadOnly)]
    [InlineData("errors=shutdown", OnError.Shutdown)]
    public void What_follows_a_failed_write_depends_on_what_is_synced(string options, OnError expected)
    {
        Assert.Equal(expected, Parse("lowerdir=/l,upperdir=/u,workdir=/w," + options).Errors);
    }

    [Fact]
    public void Nothing_is_passed_through_that_must_be_revocable()
    {
        Assert.Equal(KernelFeature.Off, Parse("lowerdir=/l,revocable").Passthrough);
        Assert.Equal("revocable and passthrough=require exclude each other: leave one of them out.",
            Refusal("lowerdir=/l,revocable,passthrough=require"));
        Assert.Equal("revocable and passthrough=lower exclude each other: leave one of them out.",
            Refusal("lowerdir=/l,revocable,passthrough=lower"));
        Assert.Contains("errors=panic", Refusal("lowerdir=/l,errors=panic"), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("ro", KernelFeature.Auto, false)]
    [InlineData("coherent", KernelFeature.Auto, false)]
    [InlineData("passthrough=off", KernelFeature.Off, false)]
    [InlineData("passthrough=require", KernelFeature.Require, false)]
    [InlineData("passthrough=lower", KernelFeature.Auto, true)]
    [InlineData("passthrough=lower,passthrough=off", KernelFeature.Off, false)]
    public void Lower_files_are_passed_through_to_those_who_ask_for_it(string options, KernelFeature expected, bool lower)
    {
        OverlayOptions parsed = Parse("lowerdir=/l," + options);

        Assert.Equal((expected, lower), (parsed.Passthrough, parsed.PassLower));
        Assert.Equal("coherent and passthrough=lower exclude each other: leave one of them out.",
            Refusal("lowerdir=/l,passthrough=lower,coherent"));
        Assert.Equal("passthrough=on is not understood: passthrough is auto, off, lower or require.",
            Refusal("lowerdir=/l,passthrough=on"));
    }

    [Theory]
    [InlineData("fsync=0", Sync.Volatile)]
    [InlineData("fsync=1", Sync.Auto)]
    [InlineData("fsync=auto", Sync.Auto)]
    [InlineData("fsync=strict", Sync.Strict)]
    [InlineData("fsync=volatile", Sync.Volatile)]
    [InlineData("volatile", Sync.Volatile)]
    [InlineData("volatile,fsync=strict", Sync.Strict)]
    public void Fsync_has_the_words_of_the_kernel_and_of_its_peers(string options, Sync expected)
    {
        Assert.Equal(expected, Parse("lowerdir=/l," + options).Sync);
    }

    [Theory]
    [InlineData("ro", KernelFeature.Auto)]
    [InlineData("io_uring", KernelFeature.Require)]
    [InlineData("io_uring=require", KernelFeature.Require)]
    [InlineData("io_uring=off", KernelFeature.Off)]
    [InlineData("io_uring,io_uring=auto", KernelFeature.Auto)]
    public void Io_uring_alone_demands_it(string options, KernelFeature expected)
    {
        Assert.Equal(expected, Parse("lowerdir=/l," + options).IoUring);
    }

    [Fact]
    public void Every_choice_is_read()
    {
        OverlayOptions options = Parse(
            "lowerdir=/l,index=off,xino=on,uuid=null,nfs_export=off,verity=off,coherent,passthrough=require,threads=7,allow_other,"
            + "default_permissions,fsname=a\\,b,subtype=x");

        Assert.Equal(Xino.On, options.Xino);
        Assert.Equal(KernelFeature.Require, options.Passthrough);
        Assert.Equal(7, options.Threads);
        Assert.True(options.AllowOther);
        Assert.Equal("a,b", options.Source);
    }

    [Theory]
    [InlineData("nosuid,nodev,noexec", MountFlags.NoSetUid | MountFlags.NoDevices | MountFlags.NoExecute)]
    [InlineData("nosuid,nodev,suid,dev", MountFlags.None)]
    [InlineData("noatime,relatime", MountFlags.RelativeAccessTime)]
    [InlineData("strictatime,noatime", MountFlags.NoAccessTime)]
    [InlineData("noatime,atime", MountFlags.None)]
    [InlineData("noatime,nodiratime,nosymfollow", MountFlags.NoAccessTime | MountFlags.NoDirectoryAccessTime | MountFlags.NoSymbolicLinks)]
    [InlineData("sync,dirsync", MountFlags.Synchronous | MountFlags.DirectorySynchronous)]
    [InlineData("nosuid,sync,async,defaults", MountFlags.None)]
    public void Mount_flags_are_honoured_the_last_one_first(string options, MountFlags expected)
    {
        Assert.Equal(expected, Parse("lowerdir=/l," + options).MountFlags);
    }

    [Theory]
    [InlineData("private")]
    [InlineData("auto,noauto,nofail,user,users,nouser,_netdev,owner,group")]
    [InlineData("x-systemd.requires=/a,X-mount.mkdir,comment=hello")]
    [InlineData("nonempty,silent,rw,exec,async,dev,suid")]
    public void Words_for_others_are_passed_over_in_silence(string options)
    {
        Assert.Empty(Warnings(options));
    }

    [Theory]
    [InlineData("lazytime", "lazytime has no effect on Veneer.")]
    [InlineData("noxattrs=1", "noxattrs=1 has no effect on Veneer.")]
    [InlineData("fast_ino,fast_ino", "fast_ino has no effect on Veneer.")]
    [InlineData("static_nlink", "static_nlink has no effect on Veneer.")]
    [InlineData("context=\"system_u:object_r:container_file_t:s0:c1,c2\",context=\"a,b\"",
        "context has no effect: Veneer does not set SELinux labels.")]
    [InlineData("workdir=/w", "workdir=/w has no effect without upperdir.")]
    public void Harmless_options_of_peers_are_accepted_with_one_warning(string options, string warning)
    {
        Assert.Equal([warning], Warnings(options));
    }

    [Fact]
    public void Commas_in_a_quoted_label_do_not_end_it()
    {
        Assert.Equal("/u", Parse("lowerdir=/l,context=\"s0:c1,c2\",upperdir=/u,workdir=/w").UpperDirectory);
    }

    [Theory]
    [InlineData("", "No lower directory is given: say which to show with -o lowerdir=DIR, or lowerdir=TOP:BELOW for several.")]
    [InlineData("lowerdir=", "No lower directory is given: say which to show with -o lowerdir=DIR, or lowerdir=TOP:BELOW for several.")]
    [InlineData("lowerdir", "lowerdir needs a value: lowerdir=SOMETHING.")]
    [InlineData("lowerdir+=", "lowerdir+ needs a value: lowerdir+=SOMETHING.")]
    [InlineData("lowerdir=/a:", "lowerdir=/a: has an empty path: take out the colon too much, or write \\: for a colon in a name.")]
    [InlineData("lowerdir=:/a", "lowerdir=:/a has an empty path: take out the colon too much, or write \\: for a colon in a name.")]
    [InlineData("lowerdir=/a::/b",
        "lowerdir=/a::/b has '::', which marks data-only layers, and Veneer does not support these yet: "
        + "use one colon if the layers may be seen.")]
    [InlineData("lowerdir=/a,datadir+=/b",
        "datadir+= asks for a data-only layer, which Veneer does not support yet: use lowerdir+= if the layer may be seen.")]
    [InlineData("lowerdir=/l,upperdir=/u",
        "upperdir=/u needs a work directory: add workdir=DIR, an empty directory on the same filesystem, beside the upper and not in it.")]
    [InlineData("lowerdir=/l,upperdir=", "upperdir needs a value: upperdir=SOMETHING.")]
    [InlineData("lowerdir=/l,index=on", "index=on is not supported yet: leave it out, hard links stay whole while mounted without it.")]
    [InlineData("lowerdir=/l,index=yes", "index=yes is not understood: index is on or off.")]
    [InlineData("lowerdir=/l,nfs_export=on",
        "nfs_export=on is not supported yet: leave it out, and export a layer instead of the overlay.")]
    [InlineData("lowerdir=/l,verity=require", "verity=require is not supported yet: leave it out if you trust the lower layers.")]
    [InlineData("lowerdir=/l,verity=on", "verity=on is not supported yet: leave it out if you trust the lower layers.")]
    [InlineData("lowerdir=/l,nooverride_creds",
        "nooverride_creds is not supported: Veneer always reaches the layers with the mounter's credentials.")]
    [InlineData("lowerdir=/l,metacopy=maybe", "metacopy=maybe is not understood: metacopy is on or off.")]
    [InlineData("lowerdir=/l,xino", "xino needs a value: on, auto or off.")]
    [InlineData("lowerdir=/l,threads=0", "threads=0 is not understood: use a number from 1 to 256.")]
    [InlineData("lowerdir=/l,volatile=yes", "volatile=yes is not understood: volatile takes no value.")]
    [InlineData("lowerdir=/l,userxattr,redirect_dir=on",
        "userxattr and redirect_dir exclude each other: leave redirect_dir out, or set redirect_dir=nofollow.")]
    [InlineData("lowerdir=/l,userxattr,metacopy=on", "userxattr and metacopy=on exclude each other: leave one of them out.")]
    [InlineData("lowerdir=/l,metacopy=on,redirect_dir=nofollow",
        "metacopy=on needs redirect_dir=on: leave redirect_dir out, or set it to on.")]
    [InlineData("lowerdir=/l,squash_to_root",
        "squash_to_root would change whose the files are, which Veneer does not support yet: leave it out, "
        + "or change the owners in the layers.")]
    [InlineData("lowerdir=/l,uidmapping=:0:1000:1:1:110000:65536",
        "uidmapping would change whose the files are, which Veneer does not support yet: leave it out, "
        + "or change the owners in the layers.")]
    [InlineData("lowerdir=/l,lowedir=/x", "The option lowedir is unknown: did you mean lowerdir?")]
    [InlineData("lowerdir=/l,noatme", "The option noatme is unknown: did you mean noatime?")]
    [InlineData("lowerdir=/l,frobnicate=3",
        "The option frobnicate is unknown: take it out, or see veneer mount --help for those that exist.")]
    [InlineData("lowerdir=/l,upperdir=/a,b/u",
        @"The option b/u is unknown: take it out, or, if it is part of a path, write \, for the comma before it.")]
    public void A_bad_option_gets_one_sentence(string options, string sentence)
    {
        Assert.Equal(sentence, Refusal(options));
    }

    [Fact]
    public void There_are_at_most_500_lower_directories()
    {
        Assert.Equal(500, Parse("lowerdir=" + string.Join(':', Enumerable.Repeat("/l", 500))).LowerDirectories.Count);
        Assert.Equal(
            "501 lower directories are given, and an overlay has at most 500: merge some of them.",
            Refusal("lowerdir=" + string.Join(':', Enumerable.Repeat("/l", 501))));
    }

    [Theory]
    [InlineData("ro,noatime", null)]
    [InlineData("lowerdir=a:b,upperdir=u,workdir=w,redirect_dir=on,errors=continue", null)]
    [InlineData("metacopy=off,passthrough=auto,allow_other,default_permissions", null)]
    [InlineData("lowerdir=a", "lowerdir")]
    [InlineData("lowerdir=b:a", "lowerdir")]
    [InlineData("upperdir=other", "upperdir")]
    [InlineData("workdir=other", "workdir")]
    [InlineData("redirect_dir=off", "redirect_dir=off")]
    [InlineData("noatime,metacopy=on", "metacopy=on")]
    [InlineData("userxattr", "userxattr")]
    [InlineData("volatile", "volatile")]
    public void A_remount_changes_flags_alone(string asked, string? change)
    {
        var parser = new OptionParser();
        parser.Add("remount," + asked);

        Assert.Equal(change, parser.FindChange(["redirect_dir=on"], ["a", "b"], "u", "w"));
        Assert.Equal(asked.StartsWith("ro", StringComparison.Ordinal), !parser.HasOverlayOptions);
    }

    /// <summary>As from another mount namespace: the names of the layers are not told.</summary>
    [Fact]
    public void A_remount_that_cannot_compare_layers_takes_them()
    {
        var parser = new OptionParser();
        parser.Add("remount,lowerdir=a,upperdir=b,workdir=c");

        Assert.Null(parser.FindChange([], [null], null, null));
        Assert.Equal("upperdir", parser.FindChange([], [null], "", ""));
    }

    [Fact]
    public void Remount_needs_no_layers()
    {
        var parser = new OptionParser();
        parser.Add("rw,remount,ro,nosuid");

        Assert.True(parser.Remount);
        Assert.Equal(MountFlags.ReadOnly | MountFlags.NoSetUid, parser.MountFlags);
    }

    [Fact]
    public void The_source_is_fsname_or_the_positional_or_veneer()
    {
        var parser = new OptionParser();
        parser.Add("lowerdir=/l");
        Assert.Equal("veneer", parser.Build("", "/mnt").Source);
        Assert.Equal("image", parser.Build("image", "/mnt").Source);
        parser.Add("fsname=name");
        Assert.Equal("name", parser.Build("image", "/mnt").Source);
    }

    /// <summary>What others wrote among options must not name layers, nor swallow what follows.</summary>
    [Theory]
    [InlineData("redirect_dir=on", true)]
    [InlineData("userxattr", true)]
    [InlineData("context=\"a,b\"", true)]
    [InlineData("workdir=evil", false)]
    [InlineData("upperdir=evil", false)]
    [InlineData("lowerdir=evil", false)]
    [InlineData("lowerdir+=evil", false)]
    [InlineData("datadir+=evil", false)]
    [InlineData("index=off,workdir=evil", false)]
    [InlineData("fsname=x", false)]
    [InlineData("source=x", false)]
    [InlineData("remount", false)]
    [InlineData("x-a,workdir=evil", false)]
    [InlineData("context=\"a", false)]
    [InlineData("x-a\\", false)]
    [InlineData("=", false)]
    [InlineData("", false)]
    public void One_option_that_names_no_layer_is_told_from_others(string text, bool expected) =>
        Assert.Equal(expected, OptionParser.IsOneOfNoLayer(text));

    [Theory]
    [InlineData("rw", true)]
    [InlineData("ro,nosuid,nodev,noexec,noatime,nodiratime,nosymfollow", true)]
    [InlineData("rw,workdir=evil", false)]
    [InlineData("rw,,ro", false)]
    [InlineData("rw,remount", false)]
    [InlineData("bind", false)]
    [InlineData("", false)]
    public void Flags_are_told_from_options(string text, bool expected) => Assert.Equal(expected, OptionParser.AreFlags(text));

    [Theory]
    [InlineData("veneer mount -o lowerdir=/l,inuse=warn /m", true)]
    [InlineData("veneer -oinuse=warn,lowerdir=/l /m", true)]
    [InlineData("veneer mount --options=inuse=warn /m", true)]
    [InlineData("veneer mount --options pin,inuse=refuse -o inuse=warn /m", true)]
    [InlineData("veneer mount -o pin,inuse=warn,inuse=refuse /m", false)]
    [InlineData("veneer mount -o inuse=warn -o inuse=refuse /m", false)]
    [InlineData("veneer mount -o lowerdir=/inuse=warn /inuse=warn", false)]
    [InlineData(@"veneer mount -o lowerdir=/a\,inuse=warn /m", false)]
    [InlineData("veneer mount -o inuse=warn,inuse=frob /m", true)]
    [InlineData("veneer mount -o lowerdir=/l -- -oinuse=warn", false)]
    [InlineData("veneer mount /m -o", false)]
    public void What_a_server_was_told_of_layers_in_use_is_read_from_its_words(string line, bool warns) =>
        Assert.Equal(warns ? InUse.Warn : InUse.Refuse, OptionParser.InUseOf(line.Split(' ')));

    [Theory]
    [InlineData(Sync.Auto)]
    [InlineData(Sync.Strict)]
    [InlineData(Sync.Volatile)]
    public void The_word_of_a_way_to_sync_means_it(Sync sync) =>
        Assert.Equal(sync, Parse($"lowerdir=/l,fsync={OptionTable.WordOf(sync)}").Sync);

    [Theory]
    [InlineData(OnError.Continue)]
    [InlineData(OnError.ReadOnly)]
    [InlineData(OnError.Shutdown)]
    public void The_word_of_what_follows_an_error_means_it(OnError errors) =>
        Assert.Equal(errors, Parse($"lowerdir=/l,errors={OptionTable.WordOf(errors)}").Errors);
}
