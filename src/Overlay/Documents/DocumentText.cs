using System.Text.Json;
using System.Text.Json.Serialization;

namespace Veneer.Overlay.Documents;

/// <summary>Converts any text of a document. Characters that are not UTF-8 become U+FFFD, see <see cref="DocumentPath"/>.</summary>
internal sealed class DocumentText : JsonConverter<string>
{
    /// <inheritdoc/>
    public override string? Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) => reader.GetString();

    /// <inheritdoc/>
    public override void Write(Utf8JsonWriter writer, string value, JsonSerializerOptions options) =>
        writer.WriteStringValue(DocumentPath.Readable(value));
}
