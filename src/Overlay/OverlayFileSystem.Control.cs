using System.Text.Json;
using Veneer.Fuse;
using Veneer.Linux;
using Veneer.Overlay.Control;

namespace Veneer.Overlay;

/// <summary>What tools ask of a live mount; docs/control.md has the form of each answer.</summary>
internal sealed partial class OverlayFileSystem
{
    private Errno Answer(in Request request, Query query, ReadOnlySpan<byte> argument, Utf8JsonWriter document)
    {
        switch (query)
        {
            case Query.Stats:
                if (!argument.IsEmpty) { return Errno.EINVAL; }
                WriteStats(document);
                return Errno.None;
            case Query.Layers:
                return AnswerLayers(request, argument, document);
            case Query.Changes:
                return AnswerChanges(argument, document);
            default:
                return Errno.EOPNOTSUPP;
        }
    }

    private void WriteStats(Utf8JsonWriter document)
    {
        document.WriteStartObject();
        document.WriteNumber("open_files"u8, files.Count);
        document.WriteEndObject();
    }
}
