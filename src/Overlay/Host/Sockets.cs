using Veneer.Linux;

namespace Veneer.Overlay.Host;

/// <summary>Finds the sockets that are bound to files, which they hold as long as somebody has them.</summary>
internal static class Sockets
{
    /// <summary>Finds the bound sockets of all network namespaces, by entering each.</summary>
    /// <param name="networks">The namespaces by their inode numbers, with paths that lead there.</param>
    /// <param name="missed">The number of namespaces that could not be examined.</param>
    /// <returns>The sockets by their inode numbers.</returns>
    public static Dictionary<uint, BoundSocket> In(IReadOnlyDictionary<ulong, string> networks, out int missed)
    {
        var found = new List<BoundSocket>();
        int closed = 0;
        ulong own = Processes.NamespaceOf("self", "net");
        if (Libc.FindBoundSockets(found).IsError) { closed++; }
        // A separate thread enters the namespaces, and ends there.
        var thread = new Thread(() =>
        {
            foreach ((ulong id, string path) in networks)
            {
                if (id == own) { continue; }
                Errno error = Libc.OpenAt(Libc.AtCwd, PathText.Encode(path), OpenFlags.ReadOnly | OpenFlags.NonBlock, 0,
                    ResolveFlags.None, out int opened);
                if (error is Errno.ENOENT or Errno.ESRCH) { continue; } // the namespace has gone with its process
                using var network = new Fd(error.IsError ? -1 : opened);
                if (!error.IsError) { error = Libc.EnterNetworkNamespace(opened); }
                if (!error.IsError) { error = Libc.FindBoundSockets(found); }
                if (error.IsError) { closed++; }
            }
        });
        thread.Start();
        thread.Join();
        missed = closed;
        var byNumber = new Dictionary<uint, BoundSocket>();
        foreach (BoundSocket socket in found)
        {
            // other sockets wait to be accepted, and hold nothing that their listener does not
            if (socket.Number != 0) { byNumber.TryAdd(socket.Number, socket); }
        }
        return byNumber;
    }
}
