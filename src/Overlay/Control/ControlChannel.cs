using System.Buffers;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text.Json;
using Veneer.Fuse;
using Veneer.Fuse.Locking;
using Veneer.Linux;
using Veneer.Overlay.Locking;

namespace Veneer.Overlay.Control;

/// <summary>Writes the answer to a question as one JSON document.</summary>
/// <returns>The error when there is no answer; <see cref="Errno.EOPNOTSUPP"/> when the question is not known.</returns>
internal delegate Errno Answerer(in Request request, Query query, ReadOnlySpan<byte> argument, Utf8JsonWriter document);

/// <summary>The server's end of the channel by which tools talk to a live mount. See docs/control.md.</summary>
/// <remarks>
/// An answer that is longer than a message is kept until its last part has been read, so that all parts describe the same
/// moment. Answers that are not read on are dropped: few are kept, and the oldest goes first.
/// </remarks>
/// <param name="mounter">The user who mounted, as the mount's user namespace has it.</param>
/// <param name="answer">Answers one question.</param>
internal sealed class ControlChannel(uint mounter, Answerer answer)
{
    /// <summary>The most answers that are kept for callers who read them in parts.</summary>
    public const int MaxDocuments = 8;

    /// <summary>The most bytes of one answer, and of all answers that are kept together.</summary>
    public const int MaxBytes = 16 << 20;

    private readonly OrderedLock gate = new(OverlayLocks.ControlChannel);
    private readonly List<(ulong Id, byte[] Bytes)> documents = []; // oldest first
    private ulong lastId;

    /// <summary>Serves one <see cref="ControlMessage"/>: a question, or a request for a further part of an answer.</summary>
    /// <param name="request">The request; its caller must be root or the user who mounted.</param>
    /// <param name="input">The message.</param>
    /// <param name="output">Room for the message that goes back.</param>
    /// <param name="outputLength">The length of that message in bytes.</param>
    /// <returns>The errors that docs/control.md lists.</returns>
    public Errno Serve(in Request request, ReadOnlySpan<byte> input, Span<byte> output, out int outputLength)
    {
        outputLength = 0;
        // The kernel tells the caller's id in the mount's user namespace, and callers cannot forge it.
        if (request.Header.Uid != 0 && request.Header.Uid != mounter) { return Errno.EPERM; }
        int size = Unsafe.SizeOf<ControlMessage>();
        if (input.Length != size || output.Length < size) { return Errno.EINVAL; }
        ref readonly ControlMessage message = ref MemoryMarshal.AsRef<ControlMessage>(input);
        if (message.Magic != ControlMessage.ExpectedMagic || message.Version != ControlMessage.CurrentVersion) { return Errno.EINVAL; }
        if (message.Length > ControlMessage.MaxLength || message.Reserved != 0) { return Errno.EINVAL; }

        ulong id = message.Document;
        byte[] document;
        if (id != 0)
        {
            if (!TryFind(id, out document)) { return Errno.ESTALE; }
        }
        else
        {
            if (message.Offset != 0) { return Errno.EINVAL; }
            Errno error = Ask(request, message, out document);
            if (error.IsError) { return error; }
        }
        if (message.Offset > (ulong)document.Length) { return Errno.EINVAL; }

        ReadOnlySpan<byte> part = document.AsSpan((int)message.Offset);
        bool isLast = part.Length <= ControlMessage.MaxLength;
        if (!isLast) { part = part[..ControlMessage.MaxLength]; }
        if (isLast && id != 0) { Remove(id); }
        else if (!isLast && id == 0) { id = Keep(document); }

        ref ControlMessage reply = ref MemoryMarshal.AsRef<ControlMessage>(output);
        reply.Magic = message.Magic;
        reply.Version = message.Version;
        reply.Query = message.Query;
        reply.Length = (uint)part.Length;
        reply.Document = isLast ? 0 : id;
        reply.Offset = message.Offset;
        reply.Total = (ulong)document.Length;
        reply.Reserved = 0;
        part.CopyTo(reply.Bytes);
        outputLength = ControlMessage.HeaderSize + part.Length;
        return Errno.None;
    }

    private Errno Ask(in Request request, in ControlMessage message, out byte[] document)
    {
        document = [];
        var buffer = new ArrayBufferWriter<byte>(ControlMessage.MaxLength);
        using (var writer = new Utf8JsonWriter(buffer))
        {
            ReadOnlySpan<byte> argument = message.Bytes;
            Errno error = answer(request, message.Query, argument[..(int)message.Length], writer);
            if (error.IsError) { return error; }
        }
        if (buffer.WrittenCount > MaxBytes) { return Errno.EFBIG; }
        document = buffer.WrittenSpan.ToArray();
        return Errno.None;
    }

    private bool TryFind(ulong id, out byte[] document)
    {
        using (gate.Enter())
        {
            document = documents.Find(kept => kept.Id == id).Bytes;
            return document is not null;
        }
    }

    private void Remove(ulong id)
    {
        using (gate.Enter()) { documents.RemoveAll(kept => kept.Id == id); }
    }

    private ulong Keep(byte[] document)
    {
        using (gate.Enter())
        {
            while (documents.Count == MaxDocuments || documents.Sum(kept => (long)kept.Bytes.Length) + document.Length > MaxBytes)
            {
                documents.RemoveAt(0);
            }
            documents.Add((++lastId, document));
            return lastId;
        }
    }
}
