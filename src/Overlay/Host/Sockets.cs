using Veneer.Linux;

namespace Veneer.Overlay.Host;

/// <summary>The sockets of the machine that are bound to files, which they hold for as long as somebody has them.</summary>
internal static class Sockets
{
    /// <summary>Asks in each network namespace, by going there.</summary>
    /// <param name="networks">The namespaces by their numbers, with paths that lead there.</param>
    /// <param name="missed">How many could not be entered.</param>
    /// <returns>The sockets by their numbers.</returns>
    public static Dictionary<uint, BoundSocket> In(IReadOnlyDictionary<ulong, string> networks, out int missed)
    {
        var found = new List<BoundSocket>();
        int closed = 0;
        ulong own = Processes.NamespaceOf("self", "net");
        if (Libc.FindBoundSockets(found).IsError) { closed++; }
        // A thread of its own, which does not come back.
        var thread = new Thread(() =>
        {
            foreach ((ulong id, string path) in networks)
            {
                if (id == own) { continue; }
                Errno error = Libc.OpenAt(Libc.AtCwd, PathText.Encode(path), OpenFlags.ReadOnly | OpenFlags.NonBlock, 0, ResolveFlags.None, out int opened);
                if (error is Errno.ENOENT or Errno.ESRCH) { continue; } // gone with its process
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
            if (socket.Number != 0) { byNumber.TryAdd(socket.Number, socket); } // others wait to be accepted, and hold nothing that the listener does not
        }
        return byNumber;
    }
}
