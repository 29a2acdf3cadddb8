using System.Text.Json.Serialization;
using Veneer.Overlay.Changes;
using Veneer.Overlay.Control;
using Veneer.Overlay.Topology;
using Veneer.Overlay.Usage;

namespace Veneer.Overlay.Documents;

/// <summary>The form of each document: the same type writes it and reads it.</summary>
/// <remarks>
/// The types are an interface, like the names of their members in JSON (docs/control.md, docs/changes.md, docs/checkpoint.md
/// and docs/lifecycle.md): members are added, and none goes away or changes its meaning. A member that is null is left out,
/// unless it is marked otherwise. Readers ignore members that they do not know.
/// </remarks>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    RespectNullableAnnotations = true,
    RespectRequiredConstructorParameters = true,
    GenerationMode = JsonSourceGenerationMode.Metadata,
    Converters = [typeof(DocumentText)])]
[JsonSerializable(typeof(Stats))]
[JsonSerializable(typeof(OverlayTopology))]
[JsonSerializable(typeof(ChangesPart))]
[JsonSerializable(typeof(Change))]
[JsonSerializable(typeof(Disturbance))]
[JsonSerializable(typeof(ChangesEnd))]
[JsonSerializable(typeof(OverlayStatus))]
[JsonSerializable(typeof(Remounted))]
[JsonSerializable(typeof(HolderReport))]
[JsonSerializable(typeof(OverlayList))]
[JsonSerializable(typeof(Checkpoint))]
public sealed partial class DocumentJson : JsonSerializerContext;
