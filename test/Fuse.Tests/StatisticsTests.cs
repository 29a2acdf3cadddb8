using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse.Tests;

/// <summary>What a server counts of what it serves.</summary>
public sealed class StatisticsTests
{
    [Fact]
    public void Every_time_is_in_the_bucket_that_ends_behind_it()
    {
        Assert.Equal(0, Latencies.BucketOf(0));
        for (int bucket = 0; bucket < Latencies.Buckets; bucket++)
        {
            long bound = Latencies.BoundOf(bucket);
            Assert.Equal(bucket, Latencies.BucketOf(bound - 1));
            Assert.Equal(Math.Min(bucket + 1, Latencies.Buckets - 1), Latencies.BucketOf(bound));
            if (bucket > 1) { Assert.InRange((double)bound / Latencies.BoundOf(bucket - 1), 1.14, 1.26); }
        }
        Assert.Equal(1L << 34, Latencies.BoundOf(Latencies.Buckets - 2));
        Assert.Equal(Latencies.Buckets - 1, Latencies.BucketOf(long.MaxValue));
    }

    [Fact]
    public void The_bounds_hit_every_doubling()
    {
        long[] bounds = [.. Enumerable.Range(0, Latencies.Buckets).Select(Latencies.BoundOf)];
        for (int power = 8; power <= 34; power++) { Assert.Contains(1L << power, bounds); } // which OpenMetrics shows
    }

    [Fact]
    public void Percentiles_are_right_to_some_ten_percent()
    {
        long[] counts = new long[Latencies.Buckets];
        Assert.Equal(0, Latencies.Percentile(counts, 0.5));
        for (int time = 1; time <= 100_000; time++) { counts[Latencies.BucketOf(time * 100)]++; } // 100 ns to 10 ms, evenly
        foreach (double part in new[] { 0.01, 0.1, 0.5, 0.9, 0.99, 1 })
        {
            Assert.InRange(Latencies.Percentile(counts, part) / (part * 10_000_000), 0.9, 1.13);
        }

        Array.Clear(counts);
        counts[Latencies.BucketOf(5_000)] = 99;
        counts[Latencies.BucketOf(1_000_000)] = 1;
        Assert.InRange(Latencies.Percentile(counts, 0.99), 4_500, 5_500);
        Assert.InRange(Latencies.Percentile(counts, 0.999), 900_000, 1_200_000);
    }

    [Fact]
    public void Requests_are_counted_by_kind()
    {
        var fileSystem = new TestFileSystem { Script = call => call.Method == "Lookup" ? Errno.ENOENT : Errno.None };
        using var kernel = FakeKernel.Start(fileSystem, new ServerOptions { Threads = 2, MaxWrite = 1 << 16 });
        foreach (Sample sample in Requests.All)
        {
            kernel.SendRaw(sample.Packet(kernel.NextUnique()));
            if (sample.Reply is not null || sample.Opcode == Opcode.Interrupt) { kernel.Receive(); }
        }
        for (int i = 0; i < 20; i++) { kernel.SendRaw(Requests.Of(Opcode.Lookup).Packet(kernel.NextUnique())); kernel.Receive(); }
        kernel.Call(Opcode.Poll, 1, new byte[24]);
        kernel.Call((Opcode)4711, 1);
        kernel.Call(Opcode.GetAttr, 1); // too short
        kernel.DisconnectAndWait();

        Statistics statistics = kernel.Server.Statistics;
        var totals = statistics.Requests.ToDictionary(one => one.Opcode);
        foreach (Sample sample in Requests.All)
        {
            long wanted = sample.Opcode switch { Opcode.Lookup => 21, Opcode.GetAttr => 2, _ => 1 };
            Assert.Equal((sample.Opcode, wanted), (sample.Opcode, totals[sample.Opcode].Counts.Sum()));
        }
        Assert.Equal(
            (21, 1, 1, 0, 1, 1),
            (totals[Opcode.Lookup].Errors, totals[Opcode.Poll].Errors, totals[0].Errors,
                totals[Opcode.StatFs].Errors, totals[Opcode.GetAttr].Errors, totals[Opcode.Interrupt].Errors));
        Assert.Equal(
            (9, 7, 61, 61, 0),
            (totals[Opcode.Read].Bytes, totals[Opcode.Write].Bytes, totals[Opcode.CopyFileRange].Bytes,
                totals[Opcode.CopyFileRange64].Bytes, totals[Opcode.StatFs].Bytes));
        Assert.All(totals.Values, one => Assert.InRange(one.Longest, 1, one.Time));
        Assert.Equal(totals.Values.Sum(one => one.Counts.Sum()), statistics.CountOver(ring: false));
        Assert.Equal(0, statistics.CountOver(ring: true));
        Assert.Equal(3, statistics.Opened(OpenWay.Kept)); // OPEN, CREATE, TMPFILE; OPENDIR opens no file
        Assert.True(statistics.Uptime > TimeSpan.Zero);
    }

    [Theory]
    [InlineData(OpenReply.None, OpenWay.Cached)]
    [InlineData(OpenReply.KeepCache, OpenWay.Kept)]
    [InlineData(OpenReply.DirectIo, OpenWay.Direct)]
    [InlineData(OpenReply.Passthrough, OpenWay.PassedThrough)]
    [InlineData(OpenReply.Passthrough | OpenReply.DirectIo, OpenWay.Mapped)]
    public void The_flags_of_a_reply_say_how_a_file_was_opened(OpenReply flags, OpenWay way) =>
        Assert.Equal(way, Server.OpenWayOf(Errno.None, flags));

    [Fact]
    public void What_one_thread_counts_another_can_read_at_any_time()
    {
        var statistics = new Statistics();
        bool done = false;
        Thread[] writers = [.. Enumerable.Range(0, 3).Select(_ => new Thread(() =>
        {
            ThreadCounts counts = statistics.Add(overRing: true);
            for (int i = 0; i < 200_000; i++) { counts.Add(Opcode.Read, new Outcome { Bytes = 10, Way = OpenWay.Direct }, i); }
        }))];
        var reader = new Thread(() =>
        {
            long last = 0;
            while (!Volatile.Read(ref done))
            {
                long now = statistics.CountOver(ring: true);
                if (now < last) { throw new InvalidOperationException("A count has fallen"); }
                last = now;
            }
        });
        foreach (Thread thread in (Thread[])[.. writers, reader]) { thread.Start(); }
        foreach (Thread thread in writers) { thread.Join(); }
        Volatile.Write(ref done, true);
        reader.Join();

        RequestTotals totals = Assert.Single(statistics.Requests);
        Assert.Equal((600_000, 6_000_000, 199_999), (totals.Counts.Sum(), totals.Bytes, totals.Longest));
        Assert.Equal(600_000, statistics.CountOver(ring: true));
        Assert.Equal(600_000, statistics.Opened(OpenWay.Direct));
    }
}
