using System.Runtime.InteropServices;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse.Tests;

/// <summary>Requests that no kernel would send: the server answers, and lives.</summary>
public sealed class FuzzTests
{
    private const int Packets = 20_000;

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void Random_bytes_do_no_harm(int seed) => Run(seed, random =>
    {
        byte[] packet = new byte[random.Next(1, 400)];
        random.NextBytes(packet);
        return packet;
    });

    [Theory]
    [InlineData(4)]
    [InlineData(5)]
    [InlineData(6)]
    public void Random_bodies_below_a_right_header_do_no_harm(int seed) => Run(seed, random =>
    {
        byte[] body = new byte[random.Next(0, 300)];
        random.NextBytes(body);
        if (random.Next(2) == 0) { body.AsSpan().Replace((byte)0, (byte)1); } // few names end by chance
        if (random.Next(2) == 0 && body.Length > 0) { body[random.Next(body.Length)] = 0; }
        return FakeKernel.Packet((ulong)random.NextInt64(), (Opcode)random.Next(0, 56), (ulong)random.NextInt64(), body);
    });

    [Theory]
    [InlineData(7)]
    [InlineData(8)]
    [InlineData(9)]
    public void Requests_with_a_few_wrong_bytes_do_no_harm(int seed) => Run(seed, random =>
    {
        byte[] packet = Requests.All[random.Next(Requests.All.Count)].Packet((ulong)random.NextInt64());
        for (int changes = random.Next(1, 5); changes > 0; changes--)
        {
            // Mostly behind the length, so that more than the first check is reached.
            int at = random.Next(10) == 0 ? random.Next(packet.Length) : random.Next(4, packet.Length);
            packet[at] = random.Next(4) switch
            {
                0 => 0,
                1 => 0xFF,
                2 => (byte)(packet[at] ^ (1 << random.Next(8))),
                _ => (byte)random.Next(256),
            };
        }
        return packet;
    });

    private static void Run(int seed, Func<Random, byte[]> make)
    {
        var random = new Random(seed);
        var fileSystem = new TestFileSystem { Names = [Bytes.Of("one"), Bytes.Of("two")], IsRecording = false };
        using var kernel = FakeKernel.Start(fileSystem, new ServerOptions { Threads = 1, MaxWrite = 1 << 16 });
        const ulong sentinel = ulong.MaxValue - 1;
        for (int i = 0; i < Packets; i++)
        {
            byte[] packet = make(random);
            kernel.SendRaw(packet);
            if (i % 16 != 0) { continue; }

            // Whatever was answered, this is too: nothing was stuck, and at most one answer came for each.
            kernel.SendAs(sentinel, Opcode.StatFs, 1);
            int answers = 0;
            while (true)
            {
                ReadOnlySpan<byte> answer = kernel.ReceiveRaw();
                Assert.False(answer.IsEmpty, $"No answer after packet {i} of seed {seed}: {Convert.ToHexString(packet)}");
                OutHeader header = MemoryMarshal.Read<OutHeader>(answer);
                Assert.Equal(answer.Length, (int)header.Length);
                if (header.Unique == sentinel) { break; }
                answers++;
            }
            Assert.InRange(answers, 0, 16);
        }
        Assert.True(kernel.Logged.IsEmpty, $"Seed {seed}: {string.Join('\n', kernel.Logged.Take(3))}");
        Assert.Equal(Errno.None, kernel.Call(Opcode.GetAttr, 1, Bytes.Of(new GetAttrIn())).Error);
    }
}
