using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Durability;
using Veneer.Overlay.Locking;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay.Tests;

/// <summary>A sync of directories that change at a chosen moment: it asks between two operations whether it is to end.</summary>
public sealed class UpperSyncTests : IDisposable
{
    private readonly string root = Directory.CreateTempSubdirectory("veneer-sync-").FullName;
    private readonly SharedLock renameLock = new(OverlayLocks.Rename);
    private readonly Fd upper;

    public UpperSyncTests()
    {
        foreach (string directory in (string[])["a/b/c", "a/b/d", "a/z"])
        {
            Directory.CreateDirectory(Path.Combine(root, directory));
            File.WriteAllText(Path.Combine(root, directory, "file"), "x");
        }
        Assert.Equal(Errno.None, Libc.OpenAt(Libc.AtCwd, PathText.Encode(root), OpenFlags.ReadOnly | OpenFlags.Directory, 0,
            ResolveFlags.None, out int descriptor));
        upper = new Fd(descriptor);
    }

    public void Dispose()
    {
        upper.Dispose();
        renameLock.Dispose();
        Directory.Delete(root, recursive: true);
    }

    [Fact]
    public void All_files_and_directories_are_synced()
    {
        var sync = new UpperSync(upper.Value, 0);

        Assert.True(sync.Run());

        Assert.Equal((9, 9, 0, true), (sync.Total, sync.Done, sync.Failed, sync.IsOver));
    }

    /// <summary>Whatever directory the walk is in at that moment, nothing of the others is left out.</summary>
    [Fact]
    public void A_directory_that_is_moved_meanwhile_does_not_lead_it_astray()
    {
        int questions = 0;
        Assert.True(new UpperSync(upper.Value, 0).Run(() => { questions++; return false; }));
        Assert.InRange(questions, 10, 100);
        for (int moment = 1; moment <= questions; moment++)
        {
            int asked = 0;
            var sync = new UpperSync(upper.Value, 0);

            bool isSynced = sync.Run(() =>
            {
                if (++asked == moment) { Directory.Move(Path.Combine(root, "a/b"), Path.Combine(root, "moved")); }
                return false;
            });

            Assert.Empty(sync.Failures);
            Assert.True(isSynced);
            Assert.Equal(0, sync.Failed);
            Assert.InRange(sync.Done, 4, 14); // before the walk comes to it, or after it has been there, it may be seen never or twice
            Directory.Move(Path.Combine(root, "moved"), Path.Combine(root, "a/b"));
        }
    }

    /// <summary>However late or early: what was there when the sync began is on the disk when it ends.</summary>
    [Theory]
    [InlineData("a/b", "moved", 9)]
    [InlineData("a/b", "a/z/new/moved", 9)]
    [InlineData("a/b/c/file", "file", 9)]
    public void What_is_moved_meanwhile_is_synced_where_it_is_then(string from, string to, int all)
    {
        int questions = 0;
        Assert.True(new UpperSync(upper.Value, 0).Run(() => { questions++; return false; }));
        for (int moment = 1; moment <= questions; moment++)
        {
            int asked = 0;
            using var moves = new Moves();
            var sync = new UpperSync(upper.Value, 0, moves);

            bool isSynced = sync.Run(() =>
            {
                if (++asked == moment) { Move(from, to, moves); }
                return false;
            });

            Assert.Empty(sync.Failures);
            Assert.True(isSynced);
            Assert.InRange(sync.Done, all, 2 * (all + 1)); // at most twice, with the directory that was made for it
            Assert.InRange(sync.Total, all, 2 * (all + 1));
            Assert.Empty(moves.Take());
            Move(to, from, moves);
        }
    }

    private void Move(string from, string to, Moves moves)
    {
        string place = Path.Combine(root, to), parent = Path.GetDirectoryName(place)!;
        Directory.CreateDirectory(parent);
        Directory.Move(Path.Combine(root, from), place);
        Assert.Equal(Errno.None, Libc.OpenAt(Libc.AtCwd, PathText.Encode(parent), OpenFlags.Path | OpenFlags.Directory, 0,
            ResolveFlags.None, out int directory));
        using var opened = new Fd(directory);
        using (renameLock.Share()) { moves.AddLocked(directory, PathText.Encode(Path.GetFileName(place))); }
    }

    [Fact]
    public void What_cannot_be_found_again_is_nothing_to_worry_about_where_all_moves_are_known()
    {
        Directory.Delete(Path.Combine(root, "a/b/d"), recursive: true);
        using var moves = new Moves();
        var sync = new UpperSync(upper.Value, 0, moves);
        bool isMoved = false;

        bool isSynced = sync.Run(() =>
        {
            if (!isMoved && Descriptors().Contains(Path.Combine(root, "a/b/c"), StringComparer.Ordinal) && sync.Total > 0)
            {
                isMoved = true;
                Move("a/b/c", "c", moves);
                Move("a/b", "moved", moves);
            }
            return false;
        });

        Assert.True(isMoved);
        Assert.Empty(sync.Failures);
        Assert.True(isSynced);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void What_stands_in_the_place_of_what_was_moved_is_no_failure(bool isFile)
    {
        using var moves = new Moves();
        var sync = new UpperSync(upper.Value, 0, moves);
        string old = Path.Combine(root, isFile ? "a/b/c/file" : "a/b");

        bool isSynced = sync.Run(() =>
        {
            // Its directory has been listed, and it has not been opened.
            bool isListed = sync.Total > 0 && Descriptors().Contains(Path.Combine(root, isFile ? "a/b/c" : "a"), StringComparer.Ordinal);
            if (isListed && !Path.Exists(Path.Combine(root, "moved")))
            {
                Move(Path.GetRelativePath(root, old), "moved", moves);
                File.CreateSymbolicLink(old, "elsewhere");
            }
            return false;
        });

        Assert.NotNull(new FileInfo(old).LinkTarget);
        Assert.Empty(sync.Failures);
        Assert.True(isSynced);
        Assert.InRange(sync.Done, 8, 18);
    }

    [Fact]
    public void More_moves_than_are_kept_are_known_of()
    {
        for (int i = 0; i <= 500; i++) { File.WriteAllText(Path.Combine(root, $"a/{i}"), "x"); }
        using var moves = new Moves();
        Assert.InRange(moves.Most, 25, 500);
        for (int i = 0; i < moves.Most; i++) { Move($"a/{i}", $"{i}", moves); }
        Assert.False(moves.IsIncomplete);

        Move($"a/{moves.Most}", "last", moves);

        Assert.True(moves.IsIncomplete);
        Assert.True(new UpperSync(upper.Value, 0, moves).Run());
    }

    [Fact]
    public void What_is_moved_over_and_over_is_synced_where_it_was_put_last()
    {
        using var moves = new Moves();
        for (int i = 0; i < moves.Most; i++)
        {
            Move("a/b", "moved", moves);
            Move("moved", "a/b", moves);
        }

        Assert.False(moves.IsIncomplete);
        Move move = Assert.Single(moves.Take());
        Assert.Equal(Path.Combine(root, "a"), new FileInfo($"/proc/self/fd/{move.Directory.Value}").LinkTarget);
        move.Dispose();
    }

    /// <summary>Somebody who never stops moving things does not keep it from its end.</summary>
    [Fact]
    public void It_ends_though_things_are_moved_all_the_time()
    {
        using var moves = new Moves();
        var sync = new UpperSync(upper.Value, 0, moves);
        int asked = 0;

        bool isSynced = sync.Run(() =>
        {
            Move(asked % 2 == 0 ? "a/b" : "moved", asked % 2 == 0 ? "moved" : "a/b", moves);
            return ++asked > 500;
        });

        Assert.True(isSynced);
        Assert.Empty(sync.Failures);
        Assert.InRange(sync.Done, 9, 40);
    }

    /// <summary>Who moves a thing says so a moment later.</summary>
    [Fact]
    public void A_move_that_was_not_told_of_in_time_is_waited_for()
    {
        Action? late = null;
        using var moves = new Moves(() => Interlocked.Exchange(ref late, null)?.Invoke());
        var sync = new UpperSync(upper.Value, 0, moves);
        bool isMoved = false;

        Assert.True(sync.Run(() =>
        {
            if (!isMoved && sync.Total > 0)
            {
                isMoved = true;
                Directory.Move(Path.Combine(root, "a/b"), Path.Combine(root, "moved"));
                late = () =>
                {
                    using (renameLock.Share()) { moves.AddLocked(upper.Value, PathText.Encode("moved")); }
                };
            }
            return false;
        }));

        Assert.Null(late);
        Assert.InRange(sync.Done, 9, 18);
    }

    [Fact]
    public void What_is_moved_and_removed_is_no_failure()
    {
        using var moves = new Moves();
        var sync = new UpperSync(upper.Value, 0, moves);
        bool isMoved = false;

        bool isSynced = sync.Run(() =>
        {
            if (!isMoved && sync.Total > 0)
            {
                isMoved = true;
                Move("a/b", "moved", moves);
                Directory.Delete(Path.Combine(root, "moved"), recursive: true);
            }
            return false;
        });

        Assert.Empty(sync.Failures);
        Assert.True(isSynced);
    }

    [Fact]
    public void What_is_made_later_is_not_waited_for()
    {
        using var moves = new Moves();
        Thread.Sleep(20);
        File.WriteAllText(Path.Combine(root, "later"), "x");

        Move("later", "a/later", moves);

        Assert.Empty(moves.Take());
        Assert.False(moves.IsIncomplete);
    }

    [Fact]
    public void What_cannot_be_found_again_is_named()
    {
        Directory.Delete(Path.Combine(root, "a/b/d"), recursive: true);
        var sync = new UpperSync(upper.Value, 0);
        bool isMoved = false;

        bool isSynced = sync.Run(() =>
        {
            // When it has synced the file of a/b/c or is about to: both ways back to a/b are gone then.
            if (!isMoved && Descriptors().Contains(Path.Combine(root, "a/b/c"), StringComparer.Ordinal) && sync.Total > 0)
            {
                isMoved = true;
                Directory.Move(Path.Combine(root, "a/b/c"), Path.Combine(root, "c"));
                Directory.Move(Path.Combine(root, "a/b"), Path.Combine(root, "moved"));
            }
            return false;
        });

        Assert.True(isMoved);
        Assert.False(isSynced);
        Assert.Equal([new SyncFailure("a/b", Errno.ENOENT)], sync.Failures);
        Assert.Equal(sync.Total - 1, sync.Done);
    }

    private static IEnumerable<string?> Descriptors() =>
        Directory.GetFileSystemEntries("/proc/self/fd").Select(file => new FileInfo(file).LinkTarget);

    [Fact]
    public void It_ends_when_it_is_told_to()
    {
        var counting = new UpperSync(upper.Value, 0);
        Assert.False(counting.Run(() => true));
        Assert.Equal((0, 0, true), (counting.Total, counting.Done, counting.IsOver));

        var later = new UpperSync(upper.Value, 0);
        Assert.False(later.Run(() => later.Done >= 2));
        Assert.Equal((9, 2, 0), (later.Total, later.Done, later.Failed));
    }

    [Fact]
    public void What_cannot_be_opened_is_no_loss()
    {
        Assert.True(WritebackErrors.IsLoss(Errno.EIO) && WritebackErrors.IsLoss(Errno.ENOSPC));
        Assert.False(WritebackErrors.IsLoss(Errno.None) || WritebackErrors.IsLoss(Errno.EINVAL));
        using var closed = new Fd(-1);
        var sync = new UpperSync(closed.Value, 0);

        Assert.False(sync.Run());

        Assert.Equal([""], sync.Failures.Select(failure => failure.Path));
        Assert.Equal(Errno.None, sync.Loss);
    }
}
