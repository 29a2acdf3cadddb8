using Veneer.Linux;

namespace Veneer.Overlay.Control;

/// <summary>A tool's end of the channel to a live mount. See docs/control.md.</summary>
public static class ControlClient
{
    /// <summary>
    /// The end of a sentence about a mount that this process may not open: who may ask. Without allow_other FUSE keeps root out
    /// as well.
    /// </summary>
    public static string WhoMayAsk => Environment.IsPrivilegedProcess
        ? "ask as the user who mounted it, whose mount lets nobody else in"
        : "ask as the user who mounted it, or as root";

    /// <summary>The number of attempts when other callers' answers displace ours before it is read.</summary>
    private const int Tries = 3;

    /// <summary>Asks the server of a mount, and waits for the answer. If the server hangs, the wait lasts until the server ends.</summary>
    /// <param name="descriptor">A file or a directory of the mount, open for reading.</param>
    /// <param name="name">The name of the mount in messages.</param>
    /// <param name="query">The question.</param>
    /// <param name="argument">The question's argument, at most <see cref="ControlMessage.MaxLength"/> bytes.</param>
    /// <returns>The answer, JSON in UTF-8.</returns>
    /// <exception cref="OverlayQueryException">There is no answer; the message is a sentence for the user.</exception>
    public static byte[] Ask(int descriptor, string name, Query query, ReadOnlySpan<byte> argument)
    {
        for (int i = 1; ; i++)
        {
            Errno error = Converse(descriptor, query, argument, out byte[] answer);
            if (!error.IsError) { return answer; }
            if (error == Errno.ESTALE && i < Tries) { continue; }
            throw new OverlayQueryException(
                error switch
                {
                    Errno.EPERM or Errno.EACCES or Errno.EOVERFLOW =>
                        $"Only root, or the user who mounted it, may ask the server of {name}: become one of them.",
                    Errno.ENOTTY or Errno.EOPNOTSUPP =>
                        $"{name} is served by an older Veneer, which does not know the question: unmount it, and mount it anew.",
                    Errno.EINVAL or Errno.EPROTO => $"{name} is served by another version of Veneer, with another form of questions: "
                        + "use that version's veneer, or unmount it and mount it anew.",
                    Errno.ENOTCONN or Errno.ECONNABORTED => $"The server of {name} is gone: unmount it with veneer umount -l.",
                    Errno.EROFS => $"{name} has no upper: there is nothing to sync.",
                    Errno.EBUSY => $"{name} is being synced already: wait for the end of that, see veneer status.",
                    Errno.ESTALE => $"Too many ask the server of {name} at once: try again.",
                    _ => $"The server of {name} gives no answer ({error}): see the system's log.",
                },
                error is Errno.EPERM or Errno.EACCES or Errno.EOVERFLOW ? QueryProblem.Denied : QueryProblem.NoAnswer);
        }
    }

    private static Errno Converse(int descriptor, Query query, ReadOnlySpan<byte> argument, out byte[] answer)
    {
        answer = [];
        if (argument.Length > ControlMessage.MaxLength) { return Errno.E2BIG; }
        byte[] document = [];
        ulong id = 0, offset = 0;
        do
        {
            var message = new ControlMessage(query, offset == 0 ? argument : default) { Document = id, Offset = offset };
            Errno error = Libc.Ioctl(descriptor, ControlMessage.Request, ref message, out _);
            if (error == Errno.EINTR && offset > 0) { continue; }
            if (error.IsError) { return error; }
            // A reply that breaks the protocol does not come from Veneer.
            if (offset == 0) { document = message.Total <= int.MaxValue ? new byte[message.Total] : []; }
            if (message.Length > ControlMessage.MaxLength
                || offset + message.Length > (ulong)document.Length
                || (message.Length == 0 && message.Document != 0))
            {
                return Errno.EPROTO;
            }
            ReadOnlySpan<byte> part = message.Bytes;
            part[..(int)message.Length].CopyTo(document.AsSpan((int)offset));
            offset += message.Length;
            id = message.Document;
        }
        while (id != 0);
        if (offset != (ulong)document.Length) { return Errno.EPROTO; }
        answer = document;
        return Errno.None;
    }
}
