using Veneer.Linux;
using Veneer.Overlay.Layers;
using Veneer.Overlay.Lookup;

namespace Veneer.Overlay.Changes;

/// <summary>Finds what an upper changes in what its lower layers show: the changes since the baseline.</summary>
/// <remarks>
/// A diff reads all of upper, and of the lowers only objects with the same names as objects in upper, so the time that it
/// takes follows the size of upper. Nothing that it reads is changed, not even an access time if the caller may ask for
/// that, and no symbolic link is followed. The overlay may be mounted and in use: objects that change while they are read
/// are among <see cref="Disturbances"/>. A diff must not be used by two threads at once.
/// </remarks>
public sealed class OverlayDiff : IDisposable
{
    private readonly LayerSet? layers;
    private readonly AskedDiff? asked;
    private readonly List<Disturbance> disturbances = [];
    private readonly HashSet<(string, DisturbanceKind, string)> disturbed = [];

    private OverlayDiff(LayerSet? layers, AskedDiff? asked)
    {
        this.layers = layers;
        this.asked = asked;
    }

    /// <summary>The objects that changed while they were read or could not be read, so far, each path once.</summary>
    public IReadOnlyList<Disturbance> Disturbances => disturbances;

    /// <summary>Opens the layers of an overlay.</summary>
    /// <param name="upper">The upper directory; a relative path begins at the caller's working directory.</param>
    /// <param name="lowers">The lower directories, topmost first; at least one.</param>
    /// <param name="userXattr">Whether the overlay was mounted with <c>userxattr</c>.</param>
    /// <exception cref="OverlayMountException">A layer cannot be read; the message is a sentence for the user.</exception>
    public static OverlayDiff Open(string upper, IReadOnlyList<string> lowers, bool userXattr = false)
    {
        var opened = new List<(int Descriptor, string Path)>();
        using var top = new Fd(OpenLayer(upper, "upper"));
        try
        {
            foreach (string lower in lowers) { opened.Add((OpenLayer(lower, "lower"), lower)); }
            return new OverlayDiff(LayerSet.Hold((top.Value, upper), opened, userXattr), null);
        }
        finally
        {
            foreach ((int descriptor, _) in opened) { Libc.Close(descriptor); }
        }
    }

    /// <summary>Uses layers that are open. The caller keeps the descriptors.</summary>
    internal static OverlayDiff Open((int Descriptor, string Path) upper, IReadOnlyList<(int Descriptor, string Path)> lowers,
        bool userXattr, bool lowerUserXattr) => new(LayerSet.Hold(upper, lowers, userXattr, lowerUserXattr), null);

    /// <summary>Makes the diff of an overlay without upper, which has no changes.</summary>
    internal static OverlayDiff OfNothing() => new(null, null);

    /// <summary>Makes a diff that asks the server of a mount.</summary>
    internal static OverlayDiff Ask(Func<string, byte[]> ask) => new(null, new AskedDiff(ask));

    /// <summary>
    /// Whether the layers are read here. If not, the server of the mount is asked, and <see cref="WriteTar"/> is not possible.
    /// </summary>
    public bool ReadsLayers => asked is null;

    internal static int OpenLayer(string path, string role)
    {
        Errno error = Libc.OpenAt(Libc.AtCwd, PathText.Encode(path), OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None,
            out int descriptor);
        return error switch
        {
            Errno.None => descriptor,
            Errno.ENOENT => throw new OverlayMountException($"The {role} directory {path} does not exist: name the one of the overlay."),
            Errno.ENOTDIR =>
                throw new OverlayMountException($"The {role} directory {path} is not a directory: name the one of the overlay."),
            Errno.EACCES => throw new OverlayMountException($"The {role} directory {path} cannot be reached: "
                + "ask as a user who may search the directories above it, or as root."),
            _ => throw new OverlayMountException($"The {role} directory {path} cannot be opened ({error}): name the one of the overlay."),
        };
    }

    /// <summary>Reads the changes, ordered by path as bytes. Each enumeration reads the layers anew.</summary>
    /// <remarks>The root itself is not among the changes: upper's root was made by whoever made upper.</remarks>
    public IEnumerable<Change> Changes() => Changes(null);

    /// <summary>Reads the changes after a position; null is the beginning, at the time when the first change is asked for.</summary>
    internal IEnumerable<Change> Changes(DiffPosition? position)
    {
        if (asked is not null)
        {
            disturbances.Clear();
            disturbed.Clear();
            foreach (Change change in asked.Changes(Disturb)) { yield return change; }
            yield break;
        }
        foreach ((_, Change? change) in Walk(position, forArchive: false))
        {
            if (change is not null) { yield return change; }
        }
    }

    /// <summary>Writes the changes as a layer of an OCI image, in the tar format; the same layers give the same bytes.</summary>
    /// <param name="output">Takes the archive. It is flushed, and stays open.</param>
    /// <param name="times">How times of modification are written; by default they are kept.</param>
    /// <remarks>
    /// A layer cannot express a rename: it deletes the old name and has the whole object under the new one, which for a
    /// directory is read from the lowers, too. Objects that a layer cannot hold are among <see cref="Disturbances"/>.
    /// </remarks>
    /// <exception cref="IOException">The output takes no more.</exception>
    /// <exception cref="InvalidOperationException"><see cref="ReadsLayers"/> is false.</exception>
    public void WriteTar(Stream output, LayerTimes times = default)
    {
        if (asked is not null) { throw new InvalidOperationException("The layers are out of reach."); }
        var tar = new LayerTar(layers!, output, times, Disturb); // without layers there is only its end
        foreach ((Step step, Change? change) in Walk(null, forArchive: true)) { tar.Write(step, change); }
        tar.Finish();
    }

    /// <summary>Walks every name in upper, with its change if it has one.</summary>
    private IEnumerable<(Step Step, Change? Change)> Walk(DiffPosition? from, bool forArchive)
    {
        disturbances.Clear();
        disturbed.Clear();
        if (layers is null) { yield break; }
        DiffPosition position = from ?? DiffPosition.Begin();
        var renames = new Renames(layers);
        foreach (Step step in new UpperWalk(layers, position with { After = [] }, forArchive: false, static (_, _) => { }).Run())
        {
            renames.Learn(step);
        }
        renames.EndFirstWalk();
        var comparison = new Comparison(layers);
        foreach (Step step in new UpperWalk(layers, position, forArchive, Disturb).Run())
        {
            yield return (step, Describe(step, renames, comparison));
        }
    }

    private void Disturb(byte[] path, Errno error) => Disturb(
        path,
        error is Errno.None or Errno.ENOENT or Errno.ESTALE ? DisturbanceKind.Moved : DisturbanceKind.Unreadable,
        error switch
        {
            Errno.None or Errno.ENOENT or Errno.ESTALE => "changed while it was read",
            Errno.EACCES or Errno.EPERM => $"cannot be read ({error}): ask as root",
            Errno.EINVAL => "has a redirect that leads nowhere",
            _ => $"cannot be read ({error})",
        });

    /// <summary>Records a disturbance, once for each path and kind.</summary>
    private void Disturb(byte[] path, DisturbanceKind kind, string reason)
    {
        string text = path.Length == 0 ? "." : PathText.Decode(path);
        Disturb(new Disturbance(text, kind, reason));
    }

    private void Disturb(Disturbance disturbance)
    {
        if (disturbed.Add((disturbance.Path, disturbance.Kind, disturbance.Kind == DisturbanceKind.LeftOut ? disturbance.Reason : "")))
        {
            disturbances.Add(disturbance);
        }
    }

    private Change? Describe(Step step, Renames renames, Comparison comparison)
    {
        Change change = new()
        {
            Kind = ChangeKind.Added,
            Path = PathText.Decode(step.Path),
            Type = TypeOf(step.Found.Exists ? step.Found.Stat : step.Base!.Found.Stat),
            Was = step.Base is { } covered ? TypeOf(covered.Found.Stat) : null,
            ContentChanged = true,
            AttributesChanged = true,
            Size = step.Found is { Exists: true, Stat.IsRegular: true } ? (long)step.Found.Stat.Size : 0,
        };
        if (!step.Found.Exists)
        {
            return renames.IsSource(step.Base!)
                ? null
                : change with { Kind = ChangeKind.Deleted, From = Elsewhere(step, step.Base!.Path) };
        }
        if (!step.Found.HasUpper) { return null; } // part of a renamed directory, and unchanged
        if (step.Directory is { } directory) { return DescribeDirectory(step, directory, change, comparison); }

        if (step.Base is { } same && renames.IsSame(step))
        {
            change = Compare(step, same, change with { Kind = ChangeKind.Modified, From = Elsewhere(step, same.Path) }, comparison);
            return change.ContentChanged || change.AttributesChanged ? change : null;
        }
        if (renames.SourceOf(step) is { } source)
        {
            return Compare(step, source, change with { Kind = ChangeKind.Renamed, From = PathText.Decode(source.Path) }, comparison);
        }
        return step.Base is not { } was ? change
            : was.Found.Stat.Type != step.Found.Stat.Type ? change with { Kind = ChangeKind.TypeChanged, From = Elsewhere(step, was.Path) }
            : Compare(step, was, change with { Kind = ChangeKind.Replaced, From = Elsewhere(step, was.Path) }, comparison);
    }

    private Change? DescribeDirectory(Step step, DirectoryStack directory, Change change, Comparison comparison)
    {
        change = change with { ContentChanged = false };
        if (step.Source is { } source)
        {
            bool isRenamed = step.IsRenamedDirectory;
            RealDirectory lower = directory.Lowers[0];
            var found = new Found { Exists = true, Stat = step.Whole.LowerStat, LowerDirectory = lower.Parent };
            var was = new Baseline(step.Parent, lower.Name, source, found);
            change = Compare(
                step,
                was,
                change with
                {
                    Kind = isRenamed ? ChangeKind.Renamed : ChangeKind.Modified,
                    From = isRenamed ? PathText.Decode(source) : Elsewhere(step, source)
                },
                comparison);
            return isRenamed || change.AttributesChanged ? change : null;
        }
        return step.Base is not { } covered
            ? change
            : change with
            {
                Kind = covered.Found.Stat.IsDirectory ? ChangeKind.Opaque : ChangeKind.TypeChanged,
                From = Elsewhere(step, covered.Path)
            };
    }

    private Change Compare(Step step, Baseline was, Change change, Comparison comparison)
    {
        Errno error = comparison.Run(step, was, out bool content, out bool attributes);
        // An object that cannot be compared counts as changed, and is disturbed.
        if (error.IsError) { Disturb(step.Path, error); }
        return change with { ContentChanged = error.IsError || content, AttributesChanged = error.IsError || attributes };
    }

    private static string? Elsewhere(Step step, byte[] path) => path.AsSpan().SequenceEqual(step.Path) ? null : PathText.Decode(path);

    internal static ObjectType TypeOf(in Statx stat) => stat.Type switch
    {
        FileType.Directory => ObjectType.Directory,
        FileType.SymbolicLink => ObjectType.SymbolicLink,
        FileType.Fifo => ObjectType.Fifo,
        FileType.Socket => ObjectType.Socket,
        FileType.CharacterDevice => ObjectType.CharacterDevice,
        FileType.BlockDevice => ObjectType.BlockDevice,
        _ => ObjectType.File,
    };

    /// <summary>Releases the layers.</summary>
    public void Dispose() => layers?.Dispose();
}
