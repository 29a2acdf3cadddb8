using System.Buffers;
using Veneer.Overlay.Documents;

namespace Veneer.Overlay.Changes;

/// <summary>Writes changes as lines of JSON, one object each, as docs/changes.md describes them.</summary>
public static class ChangeJson
{
    /// <summary>Writes one change, and a newline.</summary>
    public static void Write(IBufferWriter<byte> output, Change change) => Document.Write(output, change, DocumentJson.Default.Change);

    /// <summary>
    /// Writes the lines after the last change: the disturbances, and the end. If the end is missing, the stream was cut off.
    /// </summary>
    public static void WriteEnd(IBufferWriter<byte> output, long changes, IReadOnlyList<Disturbance> disturbances)
    {
        foreach (Disturbance disturbance in disturbances) { Document.Write(output, disturbance, DocumentJson.Default.Disturbance); }
        Document.Write(output, new ChangesEnd(changes, disturbances.Count), DocumentJson.Default.ChangesEnd);
    }

    /// <summary>The word for a kind of change.</summary>
    public static string Word(ChangeKind kind) => ChangeKindWord.Of(kind);

    /// <summary>The word for a type of object.</summary>
    public static string Word(ObjectType type) => ObjectTypeWord.Of(type);
}
