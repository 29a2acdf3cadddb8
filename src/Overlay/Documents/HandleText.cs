using System.Text.Json;
using System.Text.Json.Serialization;
using Veneer.Linux;

namespace Veneer.Overlay.Documents;

/// <summary>Converts a file handle in hexadecimal. Other text is an error, since a handle that was read is given to the kernel.</summary>
internal sealed class HandleText : JsonConverter<string>
{
    /// <inheritdoc/>
    public override string Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        string text = reader.GetString() ?? "";
        bool isHandle = text.Length % 2 == 0 && text.Length <= 2 * FileHandle.MaxLength && text.All(char.IsAsciiHexDigitUpper);
        return isHandle ? text : throw new JsonException("A handle is not in hexadecimal.");
    }

    /// <inheritdoc/>
    public override void Write(Utf8JsonWriter writer, string value, JsonSerializerOptions options) => writer.WriteStringValue(value);
}
