using System.Text.Json;
using System.Text.Json.Serialization;
using Veneer.Overlay.Changes;
using Veneer.Overlay.Topology;
using Veneer.Overlay.Usage;

// A value that has a name has a word as well: CS8509 refuses a switch that lacks it. No default arm may hide that.
#pragma warning disable CS8524 // a value without a name ends in an exception

namespace Veneer.Overlay.Documents;

/// <summary>Converts a value of an enum to a word of a document, and back. An unknown word is an error.</summary>
/// <typeparam name="T">The enum.</typeparam>
/// <param name="word">The word of each value.</param>
internal abstract class DocumentWord<T>(Func<T, string> word) : JsonConverter<T> where T : struct, Enum
{
    private readonly T[] values = Enum.GetValues<T>();

    /// <inheritdoc/>
    public override T Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        string? text = reader.GetString();
        foreach (T value in values)
        {
            if (word(value) == text) { return value; }
        }
        throw new JsonException($"{text} is none of the words for {typeof(T).Name}.");
    }

    /// <inheritdoc/>
    public override void Write(Utf8JsonWriter writer, T value, JsonSerializerOptions options) => writer.WriteStringValue(word(value));
}

/// <summary>Converts what happened to a name.</summary>
internal sealed class ChangeKindWord() : DocumentWord<ChangeKind>(Of)
{
    /// <summary>The word of a value.</summary>
    public static string Of(ChangeKind kind) => kind switch
    {
        ChangeKind.Added => "added",
        ChangeKind.Modified => "modified",
        ChangeKind.Deleted => "deleted",
        ChangeKind.Replaced => "replaced",
        ChangeKind.Renamed => "renamed",
        ChangeKind.TypeChanged => "type_changed",
        ChangeKind.Opaque => "opaque",
    };
}

/// <summary>Converts the type of an object.</summary>
internal sealed class ObjectTypeWord() : DocumentWord<ObjectType>(Of)
{
    /// <summary>The word of a value.</summary>
    public static string Of(ObjectType type) => type switch
    {
        ObjectType.File => "file",
        ObjectType.Directory => "directory",
        ObjectType.SymbolicLink => "link",
        ObjectType.Fifo => "fifo",
        ObjectType.Socket => "socket",
        ObjectType.CharacterDevice => "character",
        ObjectType.BlockDevice => "block",
    };
}

/// <summary>Converts the kind of a disturbance.</summary>
internal sealed class DisturbanceKindWord() : DocumentWord<DisturbanceKind>(kind => kind switch
{
    DisturbanceKind.Moved => "moved",
    DisturbanceKind.Unreadable => "unreadable",
    DisturbanceKind.Unexpressed => "unexpressed",
    DisturbanceKind.LeftOut => "left_out",
});

/// <summary>Converts the way in which a mount holds something.</summary>
internal sealed class MountRelationWord() : DocumentWord<MountRelation>(relation => relation switch
{
    MountRelation.Nested => "nested",
    MountRelation.Pin => "pin",
    MountRelation.Image => "image",
    MountRelation.Copy => "copy",
});

/// <summary>Converts whether the kernel serves an overlay: <c>kernel</c> for true, <c>veneer</c> for false.</summary>
internal sealed class OverlayKindWord : JsonConverter<bool>
{
    /// <inheritdoc/>
    public override bool Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options) =>
        reader.GetString() == "kernel";

    /// <inheritdoc/>
    public override void Write(Utf8JsonWriter writer, bool value, JsonSerializerOptions options) =>
        writer.WriteStringValue(value ? "kernel"u8 : "veneer"u8);
}

/// <summary>Converts the roles of a part of an object to a list of words, and back. Unknown words are ignored.</summary>
internal sealed class PartRolesWords : JsonConverter<PartRoles>
{
    private static readonly PartRoles[] all = [.. Enum.GetValues<PartRoles>().Where(role => role != PartRoles.None)];

    /// <inheritdoc/>
    public override PartRoles Read(ref Utf8JsonReader reader, Type typeToConvert, JsonSerializerOptions options)
    {
        if (reader.TokenType != JsonTokenType.StartArray) { throw new JsonException("The roles are not a list."); }
        var roles = PartRoles.None;
        while (reader.Read() && reader.TokenType != JsonTokenType.EndArray)
        {
            string? word = reader.GetString();
            foreach (PartRoles role in all) { roles |= Of(role) == word ? role : PartRoles.None; }
        }
        return roles;
    }

    /// <inheritdoc/>
    public override void Write(Utf8JsonWriter writer, PartRoles value, JsonSerializerOptions options)
    {
        writer.WriteStartArray();
        foreach (string word in AllOf(value)) { writer.WriteStringValue(word); }
        writer.WriteEndArray();
    }

    /// <summary>The words of several roles, in the order of their values.</summary>
    public static IEnumerable<string> AllOf(PartRoles roles) => all.Where(role => (roles & role) != 0).Select(Of);

    private static string Of(PartRoles role) => role switch
    {
        PartRoles.Upper => "upper",
        PartRoles.Lower => "lower",
        PartRoles.Merged => "merged",
        PartRoles.Opaque => "opaque",
        PartRoles.Whiteout => "whiteout",
        PartRoles.Metacopy => "metacopy",
        PartRoles.Data => "data",
        PartRoles.Origin => "origin",
        PartRoles.Redirected => "redirected",
        PartRoles.None => throw new ArgumentOutOfRangeException(nameof(role)), // not a role
    };
}
