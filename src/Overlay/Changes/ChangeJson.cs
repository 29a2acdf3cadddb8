using System.Buffers;
using Veneer.Overlay.Documents;

namespace Veneer.Overlay.Changes;

/// <summary>Changes as lines of JSON, one object each, as docs/changes.md describes them.</summary>
public static class ChangeJson
{
    /// <summary>One change, with the newline that ends it.</summary>
    public static void Write(IBufferWriter<byte> output, Change change) => Document.Write(output, change, DocumentJson.Default.Change);

    /// <summary>The lines behind the last change: what was disturbed, and that this is the end. Without the last one, the stream was cut off.</summary>
    public static void WriteEnd(IBufferWriter<byte> output, long changes, IReadOnlyList<Disturbance> disturbances)
    {
        foreach (Disturbance disturbance in disturbances) { Document.Write(output, disturbance, DocumentJson.Default.Disturbance); }
        Document.Write(output, new ChangesEnd(changes, disturbances.Count), DocumentJson.Default.ChangesEnd);
    }

    /// <summary>How a kind is written.</summary>
    public static string Word(ChangeKind kind) => ChangeKindWord.Of(kind);

    /// <summary>How a type is written.</summary>
    public static string Word(ObjectType type) => ObjectTypeWord.Of(type);
}
