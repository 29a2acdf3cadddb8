namespace Veneer.Mount.Tests;

/// <summary>Locks between processes, on files of either layer.</summary>
/// <remarks>
/// Every descriptor is an actor's: one of the test's own would be copied for a moment into any process that another test
/// starts, and with it the lock.
/// </remarks>
public sealed class LockTests
{
    public static TheoryData<string> Places => ["lower", "upper"];

    [MountTheory]
    [MemberData(nameof(Places))]
    public void Flock_is_between_open_files(string place)
    {
        using Overlay overlay = Placed(place);
        using Actor me = Actor.Process();
        me.Do(() =>
        {
            Descriptor one = Open(overlay), other = Open(overlay);

            Assert.Equal(Errno.None, one.Flock(LockType.Read));
            Assert.Equal(Errno.None, other.Flock(LockType.Read));
            Assert.Equal(Errno.EAGAIN, other.Flock(LockType.Write));
            Assert.Equal(Errno.None, one.Flock(LockType.None));
            Assert.Equal(Errno.None, other.Flock(LockType.Write));
            other.Dispose();
            Assert.Equal(Errno.None, one.Flock(LockType.Write));
        });
    }

    [MountTheory]
    [MemberData(nameof(Places))]
    public void Record_locks_are_between_processes_and_cover_their_range(string place)
    {
        using Overlay overlay = Placed(place);
        using Actor me = Actor.Process(), you = Actor.Process();
        Descriptor mine = me.Do(() => Open(overlay)), yours = you.Do(() => Open(overlay));

        Assert.Equal(Errno.None, me.Do(() => mine.Lock(LockType.Write, 10, 10)));
        Assert.Equal(Errno.EAGAIN, you.Do(() => yours.Lock(LockType.Write, 15, 10)));
        Assert.Equal(Errno.EAGAIN, you.Do(() => yours.Lock(LockType.Read, 19, 1)));
        Assert.Equal(Errno.None, you.Do(() => yours.Lock(LockType.Write, 20, 10)));
        Assert.Equal((LockType.Write, 10, 10), you.Do(() => yours.TestLock(LockType.Write, 0, 0)));
        Assert.Equal(LockType.None, you.Do(() => yours.TestLock(LockType.Write, 0, 10).Type));
        // A process's own locks are never in its way, and closing any descriptor of the file releases them.
        Assert.Equal(Errno.None, me.Do(() => mine.Lock(LockType.Read, 12, 2)));
        me.Do(() => Open(overlay).Dispose());
        Assert.Equal(Errno.None, you.Do(() => yours.Lock(LockType.Write, 10, 10)));
    }

    [MountTheory]
    [MemberData(nameof(Places))]
    public void Locks_of_an_open_file_conflict_within_a_process_and_with_record_locks(string place)
    {
        using Overlay overlay = Placed(place);
        using Actor me = Actor.Process(), you = Actor.Process();
        Descriptor one = me.Do(() => Open(overlay)), other = me.Do(() => Open(overlay)), yours = you.Do(() => Open(overlay));

        Assert.Equal(Errno.None, me.Do(() => one.Lock(LockType.Write, 0, 100, LockOwner.OpenFile)));
        Assert.Equal(Errno.EAGAIN, me.Do(() => other.Lock(LockType.Read, 50, 1, LockOwner.OpenFile)));
        Assert.Equal(Errno.EAGAIN, you.Do(() => yours.Lock(LockType.Write, 0, 0)));
        me.Do(one.Dispose);
        Assert.Equal(Errno.None, you.Do(() => yours.Lock(LockType.Write, 0, 0)));
    }

    [MountTheory]
    [InlineData("flock")]
    [InlineData("process")]
    [InlineData("open file")]
    public void Who_waits_for_a_lock_gets_it_when_it_is_released(string kind)
    {
        using Overlay overlay = Placed("lower");
        using Actor me = Actor.Process(), you = Actor.Process();
        Descriptor mine = me.Do(() => Open(overlay)), yours = you.Do(() => Open(overlay));
        Assert.Equal(Errno.None, me.Do(() => Take(mine, wait: false)));

        Task<Errno> waiting = you.Begin(() => Take(yours, wait: true));

        Assert.False(waiting.Wait(200));
        me.Do(mine.Dispose);
        Assert.True(waiting.Wait(5000), "It waited though nobody held the lock.");
        Assert.Equal(Errno.None, waiting.Result);
        Assert.Equal(Errno.EAGAIN, me.Do(() => Take(Open(overlay), wait: false)));

        Errno Take(Descriptor file, bool wait) => kind switch
        {
            "flock" => file.Flock(LockType.Write, wait),
            "process" => file.Lock(LockType.Write, 5, 10, LockOwner.Process, wait),
            _ => file.Lock(LockType.Write, 5, 10, LockOwner.OpenFile, wait),
        };
    }

    [MountFact]
    public void A_circle_of_waiting_processes_is_noticed()
    {
        using Overlay overlay = Placed("upper");
        using Actor me = Actor.Process(), you = Actor.Process();
        Descriptor mine = me.Do(() => Open(overlay)), yours = you.Do(() => Open(overlay));
        Assert.Equal(Errno.None, me.Do(() => mine.Lock(LockType.Write, 0, 1)));
        Assert.Equal(Errno.None, you.Do(() => yours.Lock(LockType.Write, 1, 1)));
        Task<Errno> waiting = you.Begin(() => yours.Lock(LockType.Write, 0, 1, wait: true));
        you.AwaitInKernel(Actor.SysFcntl);

        Assert.Equal(Errno.EDEADLK, me.Do(() => mine.Lock(LockType.Write, 1, 1, wait: true)));

        me.Do(mine.Dispose);
        Assert.Equal(Errno.None, waiting.Result);
    }

    [MountFact]
    public void A_process_that_ends_leaves_no_lock_behind()
    {
        using Overlay overlay = Placed("lower");
        using (Actor gone = Actor.Process())
        {
            Descriptor its = gone.Do(() => Open(overlay));
            Assert.Equal(Errno.None, gone.Do(() => its.Lock(LockType.Write)));
        }
        using Actor me = Actor.Process();

        Assert.Equal(Errno.None, me.Do(() => Open(overlay).Lock(LockType.Write)));
    }

    [MountFact]
    public void A_lock_on_a_lower_file_holds_against_who_writes_its_copy()
    {
        using Overlay overlay = Placed("lower");
        using Actor me = Actor.Process(), you = Actor.Process();
        Assert.Equal(Errno.None, me.Do(() => Sys.Open(overlay.Merged / "file", OpenFlags.ReadOnly).Flock(LockType.Read)));

        Descriptor writer = you.Do(() => Open(overlay));

        Assert.Equal(Errno.EAGAIN, you.Do(() => writer.Flock(LockType.Write)));
        Assert.Equal(Errno.None, you.Do(() => writer.Flock(LockType.Read)));
    }

    private static Overlay Placed(string place) =>
        place == "lower" ? Overlay.With(lower: Tree.Of(("file", "content"))) : Overlay.With(upper: Tree.Of(("file", "content")));

    private static Descriptor Open(Overlay overlay) => Sys.Open(overlay.Merged / "file", OpenFlags.ReadWrite);
}
