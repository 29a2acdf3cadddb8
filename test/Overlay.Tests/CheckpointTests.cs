using System.Buffers;
using System.Text;
using System.Text.Json;
using Veneer.Overlay.Topology;

namespace Veneer.Overlay.Tests;

/// <summary>The document of a checkpoint, whole and damaged.</summary>
public sealed class CheckpointTests
{
    private static LayerDescription Layer(int index, string path) => new()
    {
        Index = index, Given = path, Path = $"/{path}", Device = "8:1", FileSystem = "ext4", Uuid = new string('A', 32), MountId = 7,
        Ino = 12, HandleType = 1, Handle = "0A0B",
    };

    private static byte[] Document()
    {
        var checkpoint = new Checkpoint
        {
            Type = "fuse.veneer",
            MountPoint = "/m\udcff",
            Source = "s",
            Flags = "rw",
            RootIno = 12,
            Topology = new OverlayTopology { Layers = [Layer(0, "u"), Layer(1, "l\udcfe"), Layer(-1, "w")], Options = ["volatile"] },
        };
        var output = new ArrayBufferWriter<byte>();
        using (var json = new Utf8JsonWriter(output)) { checkpoint.Write(json); }
        return output.WrittenSpan.ToArray();
    }

    [Fact]
    public void What_is_written_is_read()
    {
        Checkpoint read = Checkpoint.Read(Document());

        Assert.Equal(("fuse.veneer", "/m\udcff", "s", "rw", 12UL), (read.Type, read.MountPoint, read.Source, read.Flags, read.RootIno));
        Assert.Equal([Layer(0, "u"), Layer(1, "l\udcfe"), Layer(-1, "w")], read.Topology.Layers);
        Assert.Equal(["volatile"], read.Topology.Options);
    }

    /// <summary>Whatever is damaged, the answer is a checkpoint or the end of a sentence.</summary>
    [Fact]
    public void Any_damage_is_told_in_a_sentence()
    {
        byte[] whole = Document();
        var sentences = new HashSet<string>();
        for (int at = 0; at < whole.Length; at++)
        {
            foreach (byte damage in "\0\"{}[],:-19ex\\ /\u0080"u8)
            {
                byte[] damaged = [.. whole];
                damaged[at] = damage;
                Try(damaged);
            }
            Try(whole[..at]);
            Try([.. whole[..at], .. whole[(at + 1)..]]);
        }

        Assert.All(sentences, sentence => Assert.StartsWith("is ", sentence, StringComparison.Ordinal));
        Assert.InRange(sentences.Count(s => !s.StartsWith("is a checkpoint of version", StringComparison.Ordinal)), 2, 2);

        void Try(byte[] document)
        {
            try { _ = Checkpoint.Read(document); }
            catch (FormatException problem) { sentences.Add(problem.Message); }
        }
    }

    [Theory]
    [InlineData("1", "2")]
    [InlineData("1", "99999999999999999999")]
    [InlineData("1", "1.5")]
    public void Another_version_is_told_apart(string own, string other)
    {
        string document = Encoding.UTF8.GetString(Document())
            .Replace($"\"veneer_checkpoint\":{own}", $"\"veneer_checkpoint\":{other}", StringComparison.Ordinal);

        Assert.Equal($"is a checkpoint of version {other}, and this veneer reads version 1",
            Assert.Throws<OtherVersionException>(() => Checkpoint.Read(Encoding.UTF8.GetBytes(document))).Message);
    }

    [Theory]
    [InlineData("\"index\":0", "\"index\":1")]
    [InlineData("\"index\":-1", "\"index\":3")]
    [InlineData("\"index\":1,", "\"index\":2,")]
    public void Layers_that_make_no_overlay_are_damage(string own, string other)
    {
        string document = Encoding.UTF8.GetString(Document()).Replace(own, other, StringComparison.Ordinal);

        Assert.Contains("is damaged", Assert.Throws<FormatException>(() => Checkpoint.Read(Encoding.UTF8.GetBytes(document))).Message,
            StringComparison.Ordinal);
    }
}
