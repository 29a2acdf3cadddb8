using Veneer.Overlay.Lookup;

namespace Veneer.Overlay.Tests;

/// <summary>When the kernel is told not to keep a listing.</summary>
public sealed class ListingReadersTests
{
    [Fact]
    public void Who_begins_after_a_change_soon_after_another_one_mixes_with_him()
    {
        var readers = new ListingReaders();
        readers.NoteReader(1, thread: 7, now: 1000);
        Assert.False(readers.MayBeMixed(1000));

        readers.NoteReader(2, thread: 8, now: 1099);
        Assert.True(readers.MayBeMixed(1099));

        Assert.False(readers.MayBeMixed(1100));
        readers.NoteReader(3, thread: 9, now: 1199);
        Assert.False(readers.MayBeMixed(1199));
    }

    [Fact]
    public void A_thread_alone_and_readers_without_a_change_between_them_do_not_mix()
    {
        var readers = new ListingReaders();
        readers.NoteReader(1, thread: 7, now: 1000);
        readers.NoteReader(2, thread: 7, now: 1001);
        readers.NoteReader(2, thread: 8, now: 1002);
        Assert.False(readers.MayBeMixed(1002));

        readers.NoteReader(3, thread: 8, now: 1003); // 7 may still be about to look at its answer
        Assert.True(readers.MayBeMixed(1003));
    }

    [Fact]
    public void Threads_of_other_pid_namespaces_are_taken_for_different_ones()
    {
        var readers = new ListingReaders();
        readers.NoteReader(1, thread: 0, now: 1000);
        readers.NoteReader(2, thread: 0, now: 1001);
        Assert.True(readers.MayBeMixed(1001));
    }
}
