using System.Text.Json;
using Veneer.Fuse;
using Veneer.Fuse.Wire;
using Veneer.Linux;
using Veneer.Overlay.Control;
using Veneer.Overlay.Documents;
using Veneer.Overlay.Format;

namespace Veneer.Overlay.Live;

/// <summary>Answers tools that ask a live mount by an ioctl or an attribute. docs/control.md has the form of each answer.</summary>
internal sealed class LiveTools
{
    private readonly LiveStats stats;
    private readonly LiveLayers layers;
    private readonly LiveChanges changes;
    private readonly LiveStatus status;
    private readonly LiveSync sync;
    private readonly Shutdown shutdown;
    private readonly ServerAttribute server;
    private readonly ControlChannel control;

    public LiveTools(LiveStats stats, LiveLayers layers, LiveChanges changes, LiveStatus status, LiveSync sync, Shutdown shutdown,
        ServerAttribute server)
    {
        (this.stats, this.layers, this.changes, this.status, this.sync, this.shutdown, this.server) =
            (stats, layers, changes, status, sync, shutdown, server);
        control = new ControlChannel(Libc.EffectiveUid, Answer);
    }

    /// <summary>Answers an ioctl if it comes from a tool.</summary>
    /// <returns>False for any other.</returns>
    public bool TryIoctl(in Request request, in IoctlIn input, ReadOnlySpan<byte> argument, Span<byte> output, out int outputLength,
        out Errno error)
    {
        outputLength = 0;
        error = Errno.None;
        if (input.Command == ControlMessage.Request) { error = control.Serve(request, argument, output, out outputLength); }
        else if (input.Command == Shutdown.ShutdownRequest) { error = shutdown.Run(request); }
        else { return false; }
        return true;
    }

    /// <summary>Gets an attribute if it is one for tools.</summary>
    /// <returns>False for any other.</returns>
    public bool TryGetXattr(in Request request, ReadOnlySpan<byte> attribute, Span<byte> value, out int size, out Errno error)
    {
        size = 0;
        error = Errno.None;
        if (ServerAttribute.Matches(request.NodeId, attribute)) { error = server.Get(request, value, out size); }
        else if (AnsweredXattr.IsOfLayers(attribute)) { error = layers.GetAttribute(request.NodeId, attribute, value, out size); }
        else { return false; }
        return true;
    }

    private Errno Answer(in Request request, Query query, ReadOnlySpan<byte> argument, Utf8JsonWriter document)
    {
        switch (query)
        {
            case Query.Stats:
                if (!argument.IsEmpty) { return Errno.EINVAL; }
                JsonSerializer.Serialize(document, stats.Read(), DocumentJson.Default.Stats);
                return Errno.None;
            case Query.Layers:
                return layers.Answer(request, argument, document);
            case Query.Changes:
                return changes.Answer(argument, document);
            case Query.Durability:
                if (!argument.IsEmpty) { return Errno.EINVAL; }
                status.Write(document);
                return Errno.None;
            case Query.Sync:
                Errno error = sync.Start(argument);
                if (!error.IsError) { status.Write(document); }
                return error;
            case Query.Remounted:
                return status.FollowRemount(argument, document);
            default:
                return Errno.EOPNOTSUPP;
        }
    }
}
