using System.Buffers;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using Veneer.Linux;

namespace Veneer.Overlay.Changes;

/// <summary>Changes as lines of JSON, one object each, as docs/changes.md describes them.</summary>
public static class ChangeJson
{
    private static readonly JsonWriterOptions Plain = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping }; // not for a web page

    /// <summary>One change, with the newline that ends it.</summary>
    public static void Write(IBufferWriter<byte> output, Change change)
    {
        using (var json = new Utf8JsonWriter(output, Plain))
        {
            json.WriteStartObject();
            json.WriteString("change"u8, Word(change.Kind));
            WritePath(json, "path", change.Path);
            if (change.From is { } from) { WritePath(json, "from", from); }
            json.WriteString("type"u8, Word(change.Type));
            if (change.Was is { } was) { json.WriteString("was"u8, Word(was)); }
            if (change.Kind is ChangeKind.Modified or ChangeKind.Renamed or ChangeKind.Replaced)
            {
                json.WriteBoolean("content"u8, change.ContentChanged);
                json.WriteBoolean("attributes"u8, change.AttributesChanged);
            }
            if (change.Type == ObjectType.File && change.Kind != ChangeKind.Deleted) { json.WriteNumber("size"u8, change.Size); }
            json.WriteEndObject();
        }
        output.Write("\n"u8);
    }

    /// <summary>The lines behind the last change: what was disturbed, and that this is the end. Without the last one, the stream was cut off.</summary>
    public static void WriteEnd(IBufferWriter<byte> output, long changes, IReadOnlyList<Disturbance> disturbances)
    {
        foreach (Disturbance disturbance in disturbances)
        {
            using (var json = new Utf8JsonWriter(output, Plain))
            {
                json.WriteStartObject();
                WritePath(json, "disturbed", disturbance.Path);
                json.WriteString("kind"u8, disturbance.Kind switch
                {
                    DisturbanceKind.Moved => "moved",
                    DisturbanceKind.Unreadable => "unreadable",
                    DisturbanceKind.Unexpressed => "unexpressed",
                    _ => "left_out",
                });
                json.WriteString("reason"u8, disturbance.Reason);
                json.WriteEndObject();
            }
            output.Write("\n"u8);
        }
        using (var json = new Utf8JsonWriter(output, Plain))
        {
            json.WriteStartObject();
            json.WriteNumber("end"u8, changes);
            json.WriteNumber("disturbances"u8, disturbances.Count);
            json.WriteEndObject();
        }
        output.Write("\n"u8);
    }

    /// <summary>A path; one that is not UTF-8 has U+FFFD for each byte that is not, and its bytes in base64 beside it.</summary>
    public static void WritePath(Utf8JsonWriter json, string member, string path)
    {
        if (PathText.IsUtf8(path))
        {
            json.WriteString(member, path);
            return;
        }
        var readable = new StringBuilder(path.Length);
        foreach (Rune rune in path.EnumerateRunes()) { readable.Append(rune); } // a lone surrogate comes as U+FFFD
        json.WriteString(member, readable.ToString());
        json.WriteBase64String(member + "_base64", PathText.Encode(path).AsSpan()[..^1]);
    }

    /// <summary>How a kind is written.</summary>
    public static string Word(ChangeKind kind) => kind switch
    {
        ChangeKind.Added => "added",
        ChangeKind.Modified => "modified",
        ChangeKind.Deleted => "deleted",
        ChangeKind.Replaced => "replaced",
        ChangeKind.Renamed => "renamed",
        ChangeKind.TypeChanged => "type_changed",
        _ => "opaque",
    };

    /// <summary>How a type is written.</summary>
    public static string Word(ObjectType type) => type switch
    {
        ObjectType.File => "file",
        ObjectType.Directory => "directory",
        ObjectType.SymbolicLink => "link",
        ObjectType.Fifo => "fifo",
        ObjectType.Socket => "socket",
        ObjectType.CharacterDevice => "character",
        _ => "block",
    };
}
