using System.Buffers.Binary;
using System.Globalization;
using Veneer.Linux;
using Veneer.Overlay.Host;

namespace Veneer.Overlay.Layers;

/// <summary>Notices that a layer was moved or removed while it is mounted.</summary>
/// <remarks>
/// The watch uses inotify(7), with a thread that sleeps until something happens. A move of the directory is an event of its
/// own. A removal causes no event as long as somebody has the directory open, as we do, so names in the parent directory
/// are watched, too. Moves of a directory further up change nothing for us and are not reported. Where nothing can be watched
/// (the limit of inotify, which is 128 per user by default; a network filesystem) nothing is noticed.
/// </remarks>
internal sealed class LayerWatch : IDisposable
{
    /// <summary>
    /// How long <see cref="Dispose"/> waits for the thread, in milliseconds. A layer that the thread examines may never answer.
    /// </summary>
    private const int Patience = 1000;

    [ThreadStatic]
    private static bool isOwnThread;

    private readonly Fd watches;
    private readonly Dictionary<int, List<Place>> watched = [];
    private readonly HashSet<Place> lost = [];
    private readonly Action<string> tell;
    private Thread? thread;
    private volatile bool stopping;

    private LayerWatch(int descriptor, Action<string> tell)
    {
        watches = new Fd(descriptor);
        this.tell = tell;
    }

    /// <summary>Whether the calling thread is the thread of a watch, for which <see cref="Dispose"/> waits.</summary>
    public static bool IsOwnThread => isOwnThread;

    /// <summary>Begins to watch.</summary>
    /// <param name="places">The layers; their descriptors stay open until this is disposed of.</param>
    /// <param name="tell">Called once for each layer that is lost, with a sentence without its full stop, on the watching thread.</param>
    /// <returns>Null when nothing can be watched.</returns>
    public static LayerWatch? Start(IReadOnlyList<Place> places, Action<string> tell)
    {
        if (Libc.OpenWatches(out int descriptor).IsError) { return null; }
        var watch = new LayerWatch(descriptor, tell);
        foreach (Place place in places)
        {
            watch.Add(place, "", WatchEvents.MoveSelf);
            watch.Add(place, "/..", WatchEvents.Delete | WatchEvents.MovedTo);
        }
        if (watch.watched.Count == 0)
        {
            watch.watches.Dispose();
            return null;
        }
        watch.thread = new Thread(watch.Run, maxStackSize: 256 * 1024) { IsBackground = true, Name = "layers" };
        watch.thread.Start();
        return watch;
    }

    private void Add(Place place, string relative, WatchEvents events)
    {
        byte[] path = PathText.Encode(string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{place.Descriptor}{relative}"));
        // One directory may be a layer and the parent of another layer.
        if (Libc.AddWatch(watches.Value, path, events | WatchEvents.OnlyDirectory | WatchEvents.AddToMask, out int number).IsError)
        {
            return;
        }
        if (!watched.TryGetValue(number, out List<Place>? places)) { watched[number] = places = []; }
        places.Add(place);
    }

    private void Run()
    {
        const int headLength = 16; // struct inotify_event: watch, mask, cookie, length of the name behind it
        isOwnThread = true;
        byte[] buffer = new byte[4096];
        while (!stopping)
        {
            Errno error = Libc.Read(watches.Value, buffer, out int count);
            if (error == Errno.EINTR) { continue; }
            if (error.IsError || stopping) { return; }
            for (int at = 0; at + headLength <= count; at += headLength + BinaryPrimitives.ReadInt32LittleEndian(buffer.AsSpan(at + 12)))
            {
                var events = (WatchEvents)BinaryPrimitives.ReadUInt32LittleEndian(buffer.AsSpan(at + 4));
                bool moved = (events & WatchEvents.MoveSelf) != 0;
                if ((events & WatchEvents.Overflow) != 0)
                {
                    // Events were lost: every layer is examined.
                    foreach (Place place in watched.Values.SelectMany(places => places).Distinct()) { Look(place, moved: false); }
                }
                if (!watched.TryGetValue(BinaryPrimitives.ReadInt32LittleEndian(buffer.AsSpan(at)), out List<Place>? places)) { continue; }
                foreach (Place place in places) { Look(place, moved); }
            }
        }
    }

    private void Look(Place place, bool moved)
    {
        if (stopping || lost.Contains(place) || Libc.StatAt(place.Descriptor, Libc.Self, StatxMask.Basic, out Statx status).IsError)
        {
            return;
        }
        if (stopping) { return; } // the call may have taken long: the descriptors may be closed and recycled by now
        string now = Host.Processes.Link(string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{place.Descriptor}")) ?? "";
        if (status.Nlink == 0)
        {
            lost.Add(place);
            tell($"the {place} was removed while it is mounted");
        }
        else if (moved && now != place.FullPath)
        {
            lost.Add(place);
            tell($"the {place} was moved to {now} while it is mounted");
        }
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        stopping = true;
        foreach (int number in watched.Keys)
        {
            _ = Libc.RemoveWatch(watches.Value, number); // best effort: one removal suffices to wake the thread
        }
        // The callback may end the overlay on the watching thread. A thread that hangs keeps its descriptor until it returns.
        if (thread != Thread.CurrentThread && thread?.Join(Patience) == false) { return; }
        watches.Dispose();
    }
}
