using System.Globalization;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Host;
using Veneer.Overlay.Layers;

namespace Veneer.Overlay.Usage;

/// <summary>A directory that was given to a server as a layer.</summary>
/// <param name="Role"><c>upper</c>, <c>work</c> or <c>lower</c>.</param>
/// <param name="Descriptor">The server's descriptor of the directory.</param>
/// <param name="Device">The device number of its filesystem, as in mountinfo.</param>
/// <param name="Inside">Its path from the filesystem's root.</param>
/// <param name="Owner">The owner record on the directory; null for a lower.</param>
internal readonly record struct GivenLayer(string Role, int Descriptor, string Device, string Inside, OwnerRecord? Owner);

/// <summary>The layers that a process was given, if it is a server of Veneer, and those that it had until it was shut down.</summary>
/// <param name="directory">The process's directory in /proc, without its path.</param>
internal sealed class ServerLayers(string directory)
{
    private readonly List<GivenLayer> given = [];
    private List<FormerLayer>? former;

    /// <summary>The layers that it was given.</summary>
    public IReadOnlyList<GivenLayer> Given => given;

    /// <summary>The path of its descriptor of the record that a shut-down server leaves; null when it has none.</summary>
    public string? FormerRecord { get; set; }

    /// <summary>The layers that it had until it was shut down; users of its files may still hold their filesystems.</summary>
    public IReadOnlyList<FormerLayer> Former =>
        former ??= FormerRecord is { } record && given.Count == 0 ? FormerLayer.ReadRecord(record) : [];

    /// <summary>The owner record on the server's upper or work, or null.</summary>
    public OwnerRecord? Owner => given.Select(layer => layer.Owner).FirstOrDefault(owner => owner is not null);

    /// <summary>
    /// Finds the layers of a server: the directories that it has open with O_PATH. Upper and work it has locked as well.
    /// </summary>
    /// <remarks>These are opened following symbolic links; directories inside the layers are not, which tells them apart.</remarks>
    /// <param name="files">The files that the process uses.</param>
    public void Find(IReadOnlyList<UsedFile> files)
    {
        var opened = new List<UsedFile>();
        var locked = new List<UsedFile>();
        foreach (UsedFile file in files)
        {
            if (file.Use.Descriptor < 0 || file.Inside is null) { continue; }
            (OpenFlags flags, bool isLocked) = Processes.KindOf(directory, file.Use.Descriptor);
            if ((flags & OpenFlags.Directory) == 0) { continue; }
            if (isLocked) { locked.Add(file); }
            else if ((flags & OpenFlags.Path) != 0 && (flags & OpenFlags.NoFollow) == 0 && !opened.Exists(other => AreSame(other, file)))
            {
                opened.Add(file);
            }
        }
        // With inuse=warn the server locks nothing that others have locked, and an upper cannot be told from a lower.
        string unlocked = OptionParser.InUseOf(Processes.WordsOf(directory)) == InUse.Warn ? "layer" : "lower";
        foreach (UsedFile layer in opened)
        {
            int index = locked.FindIndex(other => AreSame(other, layer));
            OwnerRecord? owner = index < 0 ? null : ReadOwner(locked[index].Use.Descriptor);
            string role = index < 0 ? unlocked : owner?.Role ?? (index == 0 ? "upper" : "work"); // upper is locked first
            given.Add(new GivenLayer(role, layer.Use.Descriptor, layer.Device, layer.Inside!, owner));
        }

        static bool AreSame(in UsedFile one, in UsedFile other) => one.Device == other.Device && one.Inside == other.Inside;
    }

    private OwnerRecord? ReadOwner(int descriptor)
    {
        if (Open(descriptor) is not { } opened) { return null; }
        using (opened) { return InUseLock.ReadOwner(opened.Value); }
    }

    /// <summary>Opens what the process has open, with O_PATH, or returns null.</summary>
    public Fd? Open(int descriptor)
    {
        string path = string.Create(CultureInfo.InvariantCulture, $"/proc/{directory}/fd/{descriptor}");
        return Libc.OpenAt(Libc.AtCwd, PathText.Encode(path), OpenFlags.Path, 0, ResolveFlags.None, out int opened).IsError
            ? null
            : new Fd(opened);
    }
}
