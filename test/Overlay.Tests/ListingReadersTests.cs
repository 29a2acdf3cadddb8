using Veneer.Overlay.Lookup;

namespace Veneer.Overlay.Tests;

/// <summary>When the kernel is told not to keep a listing.</summary>
public sealed class ListingReadersTests
{
    [Fact]
    public void Who_begins_after_a_change_soon_after_another_one_mixes_with_him()
    {
        var readers = new ListingReaders();
        readers.Began(1, thread: 7);
        Assert.False(readers.HaveMixed());

        readers.Began(2, thread: 8);
        Assert.True(readers.HaveMixed());

        Thread.Sleep(150);
        Assert.False(readers.HaveMixed());
        readers.Began(3, thread: 9);
        Assert.False(readers.HaveMixed());
    }

    [Fact]
    public void A_thread_alone_and_readers_without_a_change_between_them_do_not_mix()
    {
        var readers = new ListingReaders();
        readers.Began(1, thread: 7);
        readers.Began(2, thread: 7);
        readers.Began(2, thread: 8);
        Assert.False(readers.HaveMixed());

        readers.Began(3, thread: 8); // 7 may still be about to look at its answer
        Assert.True(readers.HaveMixed());
    }
}
