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
        using (var json = new Utf8JsonWriter(output, Plain)) { Write(json, change); }
        output.Write("\n"u8);
    }

    /// <summary>The lines behind the last change: what was disturbed, and that this is the end. Without the last one, the stream was cut off.</summary>
    public static void WriteEnd(IBufferWriter<byte> output, long changes, IReadOnlyList<Disturbance> disturbances)
    {
        foreach (Disturbance disturbance in disturbances)
        {
            using (var json = new Utf8JsonWriter(output, Plain)) { Write(json, disturbance); }
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

    /// <summary>One change, an object.</summary>
    public static void Write(Utf8JsonWriter json, Change change)
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

    /// <summary>Something that was disturbed, an object.</summary>
    public static void Write(Utf8JsonWriter json, Disturbance disturbance)
    {
        json.WriteStartObject();
        WritePath(json, "disturbed", disturbance.Path);
        json.WriteString("kind"u8, Word(disturbance.Kind));
        json.WriteString("reason"u8, disturbance.Reason);
        json.WriteEndObject();
    }

    /// <summary>Reads a change.</summary>
    /// <exception cref="FormatException">It is something else.</exception>
    public static Change ReadChange(JsonElement element)
    {
        string word = element.GetProperty("change"u8).GetString() ?? "";
        ChangeKind kind = ChangeKind.Added;
        while (Word(kind) != word)
        {
            if (kind++ == ChangeKind.Opaque) { throw new FormatException($"{word} is not a change."); }
        }
        ObjectType type = ReadType(element.GetProperty("type"u8).GetString() ?? "");
        bool isNew = !element.TryGetProperty("content"u8, out JsonElement content);
        return new Change
        {
            Kind = kind,
            Path = ReadPath(element, "path") ?? throw new FormatException("A change has no path."),
            From = ReadPath(element, "from"),
            Type = type,
            Was = element.TryGetProperty("was"u8, out JsonElement was) ? ReadType(was.GetString() ?? "") : null,
            ContentChanged = isNew ? type != ObjectType.Directory : content.GetBoolean(),
            AttributesChanged = isNew || element.GetProperty("attributes"u8).GetBoolean(),
            Size = element.TryGetProperty("size"u8, out JsonElement size) ? size.GetInt64() : 0,
        };
    }

    /// <summary>Reads something that was disturbed.</summary>
    /// <exception cref="FormatException">It is something else.</exception>
    public static Disturbance ReadDisturbance(JsonElement element)
    {
        string word = element.GetProperty("kind"u8).GetString() ?? "";
        DisturbanceKind kind = DisturbanceKind.Moved;
        while (Word(kind) != word)
        {
            if (kind++ == DisturbanceKind.LeftOut) { throw new FormatException($"{word} is not a disturbance."); }
        }
        return new Disturbance(ReadPath(element, "disturbed") ?? "", kind, element.GetProperty("reason"u8).GetString() ?? "");
    }

    private static string Word(DisturbanceKind kind) => kind switch
    {
        DisturbanceKind.Moved => "moved",
        DisturbanceKind.Unreadable => "unreadable",
        DisturbanceKind.Unexpressed => "unexpressed",
        _ => "left_out",
    };

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

    /// <summary>What <see cref="WritePath"/> wrote, or null when it is not there.</summary>
    /// <exception cref="FormatException">The member is no path.</exception>
    public static string? ReadPath(JsonElement element, string member)
    {
        if (element.TryGetProperty(member + "_base64", out JsonElement bytes)) { return PathText.Decode(bytes.GetBytesFromBase64()); }
        return element.TryGetProperty(member, out JsonElement text) ? text.GetString() : null;
    }

    /// <summary>The opposite of <see cref="Word(ObjectType)"/>.</summary>
    internal static ObjectType ReadType(string word)
    {
        for (ObjectType type = ObjectType.File; type <= ObjectType.BlockDevice; type++)
        {
            if (Word(type) == word) { return type; }
        }
        throw new FormatException($"{word} is not a type.");
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
