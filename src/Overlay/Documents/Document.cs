using System.Buffers;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace Veneer.Overlay.Documents;

/// <summary>Converts documents between objects and JSON in UTF-8. <see cref="DocumentJson"/> has the form of each.</summary>
public static class Document
{
    // Documents are not embedded in web pages, so < and é need no escapes.
    private static readonly JsonWriterOptions onOneLine = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };
    private static readonly JsonWriterOptions indented = new() { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping, Indented = true };

    /// <summary>Writes a document.</summary>
    /// <typeparam name="T">The document's type.</typeparam>
    /// <param name="output">Takes the document, with a newline at its end.</param>
    /// <param name="document">The document.</param>
    /// <param name="type">The document's form, from <see cref="DocumentJson"/>.</param>
    /// <param name="isIndented">Whether each member has a line of its own.</param>
    public static void Write<T>(IBufferWriter<byte> output, T document, JsonTypeInfo<T> type, bool isIndented = false)
    {
        using (var json = new Utf8JsonWriter(output, isIndented ? indented : onOneLine))
        {
            JsonSerializer.Serialize(json, document, type);
        }
        output.Write("\n"u8);
    }

    /// <summary>Reads a document.</summary>
    /// <typeparam name="T">The document's type.</typeparam>
    /// <param name="document">JSON in UTF-8.</param>
    /// <param name="type">The document's form, from <see cref="DocumentJson"/>.</param>
    /// <exception cref="FormatException">It is not such a document.</exception>
    public static T Read<T>(ReadOnlySpan<byte> document, JsonTypeInfo<T> type) where T : class
    {
        try
        {
            return JsonSerializer.Deserialize(document, type) ?? throw new FormatException("There is nothing in it.");
        }
        catch (JsonException problem)
        {
            throw new FormatException(problem.Message, problem);
        }
    }

    /// <summary>Reads a document that is a part of another one.</summary>
    /// <typeparam name="T">The document's type.</typeparam>
    /// <param name="element">The document.</param>
    /// <param name="type">The document's form, from <see cref="DocumentJson"/>.</param>
    /// <exception cref="FormatException">It is not such a document.</exception>
    public static T Read<T>(JsonElement element, JsonTypeInfo<T> type) where T : class
    {
        try
        {
            return element.Deserialize(type) ?? throw new FormatException("There is nothing in it.");
        }
        catch (JsonException problem)
        {
            throw new FormatException(problem.Message, problem);
        }
    }
}
