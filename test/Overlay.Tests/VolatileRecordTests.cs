using System.Text;
using Veneer.Overlay.Durability;

namespace Veneer.Overlay.Tests;

/// <summary>What is written down of a volatile upper is understood as a whole or not at all, and all of it must agree.</summary>
public sealed class VolatileRecordTests
{
    private static readonly VolatileRecord record = new()
    {
        Boot = "11111111-2222-3333-4444-555555555555", Device = "8:1", FileSystemId = "a1b2", Instance = 77, Mount = 88, Upper = 99,
        Errors = 0x1005, IsInMemory = false, Failure = "-", Work = "2E2E2F776F726B",
    };

    private const string Golden =
        "veneer-volatile 1\nboot 11111111-2222-3333-4444-555555555555\ndevice 8:1\nfsid a1b2\ninstance 77\nmount 88\nupper 99\n"
        + "errors 1005\nmemory 0\nfailure -\nwork 2E2E2F776F726B\n";

    private static VolatileRecord? Parse(string text) => VolatileRecord.Parse(Encoding.Latin1.GetBytes(text));

    [Fact]
    public void A_record_is_stored_as_the_page_about_the_format_says() => Assert.Equal(Golden, Encoding.ASCII.GetString(record.ToBytes()));

    [Fact]
    public void What_was_stored_is_read()
    {
        Assert.Equal(record, Parse(Golden));
        VolatileRecord other = record with { Errors = null, IsInMemory = true, Failure = "EIO", Work = "" };
        Assert.Equal(other, VolatileRecord.Parse(other.ToBytes()));
    }

    [Fact]
    public void Every_beginning_of_a_record_is_none()
    {
        for (int length = 0; length < Golden.Length; length++) { Assert.Null(Parse(Golden[..length])); }
    }

    [Theory]
    [InlineData("veneer-volatile 1", "veneer-volatile 2")]
    [InlineData("boot 1", "boat 1")]
    [InlineData("instance 77", "instance -77")]
    [InlineData("instance 77", "instance x")]
    [InlineData("upper 99", "upper 18446744073709551616")]
    [InlineData("errors 1005", "errors 100000000")]
    [InlineData("errors 1005", "errors ")]
    [InlineData("memory 0", "memory 2")]
    [InlineData("failure -", "failure ")]
    [InlineData("work 2E", "work 2")]
    [InlineData("work 2E", "work xx")]
    [InlineData("mount 88\n", "")]
    [InlineData("mount 88\n", "mount 88\nmount 88\n")]
    [InlineData("2F776F726B\n", "2F776F726B\nmore\n")]
    [InlineData("8:1", "8:\u00b9")]
    public void What_is_not_understood_is_no_record(string part, string replacement)
    {
        Assert.Contains(part, Golden, StringComparison.Ordinal);
        Assert.Null(Parse(Golden.Replace(part, replacement, StringComparison.Ordinal)));
    }

    private static VolatileState Judge(
        Func<VolatileRecord, VolatileRecord>? then = null, Func<VolatileRecord, VolatileRecord>? now = null) =>
        (then?.Invoke(record) ?? record).Judge(now?.Invoke(record) ?? record);

    [Fact]
    public void When_all_agrees_all_is_there()
    {
        Assert.Equal(VolatileStateKind.Whole, Judge().Kind);
        // The mount may be another one where the filesystem's own number says that it has stayed.
        Assert.Equal(VolatileStateKind.Whole, Judge(now: r => r with { Mount = 89 }).Kind);
    }

    /// <summary>
    /// Where /proc does not tell the boot, two records are not taken to be of one boot. Nobody is told to discard what can be
    /// judged elsewhere.
    /// </summary>
    [Fact]
    public void A_start_of_the_machine_that_is_not_known_is_none()
    {
        VolatileRecord Unknown(VolatileRecord r) => r with { Boot = VolatileRecord.UnknownBoot };

        Assert.Equal(VolatileStateKind.Unreadable, Judge(now: Unknown).Kind);
        Assert.Equal(VolatileStateKind.Unreadable, Judge(Unknown, Unknown).Kind);
        Assert.DoesNotContain("discard", Judge(now: Unknown).Sentence("it"), StringComparison.Ordinal);
        Assert.Equal(VolatileStateKind.Lost, Judge(Unknown).Kind);
        Assert.Equal(VolatileStateKind.Lost, Judge(Unknown, r => Unknown(r) with { Upper = 100 }).Kind);
    }

    [Fact]
    public void Any_difference_may_be_a_loss()
    {
        Assert.All(
            new (Func<VolatileRecord, VolatileRecord>, string)[]
            {
                (r => r with { Boot = "2" }, "the machine has been started anew"),
                (r => r with { Device = "8:2" }, "it is on another filesystem"),
                (r => r with { FileSystemId = "0" }, "it is on another filesystem"),
                (r => r with { Instance = 78 }, "its filesystem has been mounted anew"),
                (r => r with { Instance = 0, Mount = 89 }, "its filesystem has been mounted anew"),
                (r => r with { Instance = 0, Mount = 0 }, "its filesystem has been mounted anew"),
                (r => r with { Upper = 100 }, "the record in it is that of another directory, so that it is a copy"),
                (r => r with { Errors = 0x2005 }, "writing to its filesystem failed"),
                (r => r with { Errors = 0 }, "writing to its filesystem failed"),
            },
            change => Assert.Equal(VolatileState.Lost(change.Item2), Judge(now: change.Item1)));
        Assert.Equal(VolatileState.Lost("writing to its filesystem failed (EIO)"), Judge(r => r with { Failure = "EIO" }));
    }

    [Fact]
    public void Without_the_error_sequence_it_is_in_doubt()
    {
        Assert.Equal(VolatileStateKind.Doubtful, Judge(r => r with { Errors = null }).Kind);
        Assert.Equal(VolatileStateKind.Doubtful, Judge(now: r => r with { Errors = null }).Kind);
        // In memory there is nothing that could fail.
        VolatileRecord memory = record with { IsInMemory = true, Errors = null, Instance = 0, Mount = 0 };
        Assert.Equal(VolatileStateKind.Whole, memory.Judge(memory).Kind);
        Assert.Equal(VolatileStateKind.Lost, memory.Judge(memory with { FileSystemId = "1" }).Kind);
    }
}
