using System.Text.Json.Serialization.Metadata;
using Veneer.Linux;
using Veneer.Overlay.Changes;
using Veneer.Overlay.Control;
using Veneer.Overlay.Documents;
using Veneer.Overlay.Host;
using Veneer.Overlay.Topology;

namespace Veneer.Overlay;

/// <summary>Asks the server of a mount of Veneer.</summary>
/// <param name="mountPoint">The mount point.</param>
/// <param name="query">The question.</param>
/// <param name="argument">The question's argument.</param>
/// <returns>The answer, JSON in UTF-8.</returns>
public delegate byte[] Asker(string mountPoint, Query query, string argument);

/// <summary>A mounted overlay, of Veneer or of the kernel, and the questions that can be asked about it.</summary>
/// <remarks>
/// No method changes anything, except access times if the caller may not keep them. A method throws
/// <see cref="OverlayQueryException"/> when the mount cannot be examined, and <see cref="OverlayMountException"/> when a
/// layer cannot be read; both have a sentence for the user.
/// </remarks>
public sealed class MountedOverlay
{
    private readonly KernelOverlay? kernel;
    private readonly Asker ask;

    private MountedOverlay(MountEntry mount, Asker ask)
    {
        Mount = mount;
        kernel = KernelOverlay.Of(mount);
        this.ask = ask;
    }

    /// <summary>The mount, as in the mount table.</summary>
    public MountEntry Mount { get; }

    /// <summary>The mount point.</summary>
    public string MountPoint => Mount.MountPoint;

    /// <summary>Whether the mount is one of the kernel's overlayfs.</summary>
    public bool IsKernel => kernel is not null;

    /// <summary>Lists the overlays that can be seen in this mount namespace, in the order of the mount table.</summary>
    /// <param name="ask">How a server is asked, as for <see cref="At"/>.</param>
    /// <exception cref="OverlayQueryException">There is no mount table.</exception>
    public static IReadOnlyList<MountedOverlay> List(Asker? ask = null)
    {
        Errno error = MountTable.Read(out List<MountEntry> table);
        if (error.IsError) { throw new OverlayQueryException($"The mounts cannot be listed ({error}): see whether /proc is mounted."); }
        // Of several mounts on one mount point only the last one can be seen.
        return
        [
            .. table
                .Where(mount => mount.Type is "overlay" or "fuse.veneer"
                    && table.FindLast(other => other.MountPoint == mount.MountPoint) == mount)
                .Select(mount => new MountedOverlay(mount, ask ?? AskHere))
        ];
    }

    /// <summary>Finds the overlay that is mounted at a path.</summary>
    /// <param name="path">The mount point.</param>
    /// <param name="ask">
    /// How a server is asked; by default through <see cref="ControlClient"/>, which waits for a server that hangs.
    /// </param>
    /// <exception cref="OverlayQueryException">No overlay is mounted there.</exception>
    public static MountedOverlay At(string path, Asker? ask = null)
    {
        MountedOverlay overlay = Around(path, out string resolved, ask);
        return overlay.MountPoint == resolved ? overlay : throw NotAMount(resolved);
    }

    /// <summary>Finds the overlay that a path leads into.</summary>
    /// <param name="path">The path.</param>
    /// <param name="resolved">The path without symbolic links.</param>
    /// <param name="ask">How a server is asked, as for <see cref="At"/>.</param>
    /// <exception cref="OverlayQueryException">The path does not lead into an overlay.</exception>
    public static MountedOverlay Around(string path, out string resolved, Asker? ask = null)
    {
        Errno error = MountTable.FindAround(path, out resolved, out MountEntry? mount, out int descriptor);
        if (error.IsError)
        {
            throw new OverlayQueryException(
                error switch
                {
                    Errno.ENOENT or Errno.ENOTDIR => $"{path} does not exist: name a mount point.",
                    Errno.EACCES => $"{path} cannot be reached: {ControlClient.WhoMayAsk}.",
                    _ => $"{path} cannot be looked at ({error}): see whether /proc is mounted.",
                },
                error == Errno.EACCES ? QueryProblem.Denied : QueryProblem.NotAMount);
        }
        Libc.Close(descriptor);
        if (mount?.Type is "overlay" or "fuse.veneer")
        {
            error = MountTable.FindAround(mount.MountPoint, out _, out MountEntry? here, out descriptor);
            if (!error.IsError) { Libc.Close(descriptor); }
            return here?.Id == mount.Id
                ? new MountedOverlay(mount, ask ?? AskHere)
                : throw new OverlayQueryException(
                    $"{path} is in another mount namespace, or below another mount: "
                        + $"ask where it is seen on {mount.MountPoint}, as with nsenter -m.",
                    QueryProblem.OutOfReach);
        }
        throw mount is null || mount.MountPoint != resolved
            ? NotAMount(resolved)
            : new OverlayQueryException(
                $"{resolved} is a mount of type {mount.Type}, not an overlay: name the mount point of an overlay.",
                QueryProblem.NotAnOverlay);
    }

    /// <summary>Makes the exception for a path that is no mount point.</summary>
    private static OverlayQueryException NotAMount(string path) =>
        new($"{path} is not a mount point: name the mount point of an overlay.", QueryProblem.NotAMount);

    /// <summary>Describes what the overlay is made of and, if asked, what its layers contribute to one object.</summary>
    /// <param name="path">The object, from the mount point; empty for the root, null for no object.</param>
    public OverlayTopology Layers(string? path = null)
    {
        OverlayTopology topology;
        if (kernel is not null)
        {
            KernelOverlay known = Resolve(kernel);
            if (path is not null) { CheckDataOnly(kernel); }
            if (path is not null && !kernel.UserXattr) { CheckTrusted("become root."); }
            topology = OverlayTopology.Of(known.UpperDirectory, known.LowerDirectories, known.WorkDirectory, kernel.UserXattr, path,
                kernel.DataDirectories) with
            {
                // seclabel tells something, and is no option
                Options = [.. kernel.Options.Where(option => !MountEntry.IsFileSystemFlag(option) && option != "seclabel")],
            };
        }
        else
        {
            // If the mount shows a part of the overlay, the server still knows paths from the root of the whole.
            string? whole = path is null ? null : $"{Mount.Root.TrimEnd('/')}/{path}";
            topology = Parse(ask(MountPoint, Query.Layers, whole ?? ""), DocumentJson.Default.OverlayTopology);
        }
        return topology with { Layers = [.. topology.Layers.Select(layer => layer with { Path = LayerFinder.Find(layer) })] };
    }

    /// <summary>Makes the diff of the overlay. Where the layers are out of reach, as in a container, the server is asked.</summary>
    public OverlayDiff Diff()
    {
        if (kernel is not null) { CheckDataOnly(kernel); }
        OverlayTopology topology = Layers();
        LayerDescription? upper = topology.Layers.FirstOrDefault(layer => layer.Index == 0);
        if (upper is null) { return OverlayDiff.OfNothing(); } // without upper there are no changes
        List<LayerDescription> lowers = [.. topology.Layers.Where(layer => layer.Index > 0)];
        bool isReached = upper.Path is not null && lowers.TrueForAll(layer => layer.Path is not null)
            && topology.UserXattr == topology.UpperUserXattr
            && (topology.UserXattr || Capabilities.SeesTrustedAttributes);
        if (isReached) { return OverlayDiff.Open(upper.Path!, [.. lowers.Select(layer => layer.Path!)], topology.UserXattr); }
        if (!IsKernel) { return OverlayDiff.Ask(position => ask(MountPoint, Query.Changes, position)); }
        CheckTrusted("become root.");
        throw new OverlayQueryException($"A layer of {MountPoint} is out of reach: see veneer layers {MountPoint}.",
            QueryProblem.OutOfReach);
    }

    /// <summary>Asks the server what it has served, and what it holds. For overlays of Veneer only.</summary>
    public Stats Stats() => Ask(Query.Stats, DocumentJson.Default.Stats);

    /// <summary>Asks the server whether what was written is safe. For overlays of Veneer only.</summary>
    public OverlayStatus Status() => Ask(Query.Durability, DocumentJson.Default.OverlayStatus);

    private T Ask<T>(Query query, JsonTypeInfo<T> type) where T : class => IsKernel
        ? throw new OverlayQueryException(
            $"{MountPoint} is an overlay of the kernel, which does not tell: name one of Veneer.", QueryProblem.NotAnOverlay)
        : Parse(ask(MountPoint, query, ""), type);

    private T Parse<T>(byte[] answer, JsonTypeInfo<T> type) where T : class
    {
        try
        {
            return Document.Read(answer, type);
        }
        catch (FormatException problem)
        {
            throw new OverlayQueryException(
                $"The answer of the server of {MountPoint} is not understood: use the veneer that it was mounted with.", problem);
        }
    }

    private void CheckDataOnly(KernelOverlay overlay)
    {
        if (overlay.DataDirectories.Count == 0) { return; }
        throw new OverlayQueryException(
            $"{MountPoint} has data-only layers, in which Veneer does not look objects up yet: ask about the layers alone.",
            QueryProblem.OutOfReach);
    }

    private static void CheckTrusted(string remedy)
    {
        if (Capabilities.SeesTrustedAttributes) { return; }
        throw new OverlayQueryException(
            $"Only root in the initial user namespace can read the trusted.overlay.* attributes of the layers: {remedy}",
            QueryProblem.Denied);
    }

    /// <summary>Finds which paths in the options of a kernel overlay still lead to its layers.</summary>
    /// <exception cref="OverlayQueryException">A path is relative, or leads elsewhere by now.</exception>
    private KernelOverlay Resolve(KernelOverlay overlay)
    {
        foreach (string? layer in (IEnumerable<string?>)
            [.. overlay.LowerDirectories, .. overlay.DataDirectories, overlay.UpperDirectory, overlay.WorkDirectory])
        {
            if (layer is null || layer.StartsWith('/')) { continue; }
            throw new OverlayQueryException(
                $"{MountPoint} was mounted with the relative path {layer}, and the kernel does not keep where that begins: "
                    + "mount it by absolute paths, or name the layers to veneer diff with --upper and --lower.",
                QueryProblem.OutOfReach);
        }
        // The paths may lead elsewhere by now, or may belong to another mount namespace.
        using Fd? root = OpenDirectory(MountPoint);
        if (overlay.UpperDirectory is not { } first)
        {
            using Fd? top = OpenDirectory(overlay.LowerDirectories[0]);
            if (Mount.Root != "/" || root is null || top is null
                || RootIdentity.Of(root.Value) is not { } lower || lower.Matches(top.Value))
            {
                return overlay;
            }
            throw NotItsLayer("topmost lower", overlay.LowerDirectories[0]);
        }
        int index = 0;
        while (index < overlay.UpperReadings.Count && !IsUpper(overlay.UpperReadings[index], root, overlay)) { index++; }
        if (index == overlay.UpperReadings.Count) { throw NotItsLayer("upper", first); }
        // If upper was given by a path with escapes, work probably was, too.
        string? work = overlay.WorkReadings.Skip(index).Concat(overlay.WorkReadings).FirstOrDefault(path => Exists(path))
            ?? overlay.WorkDirectory;
        return overlay with { UpperDirectory = overlay.UpperReadings[index], WorkDirectory = work };
    }

    private OverlayQueryException NotItsLayer(string role, string path) =>
        new(
            $"The mount {MountPoint} names {path} as its {role}, but that is not what it has mounted: "
                + "name the layers to veneer diff with --upper and --lower.",
            QueryProblem.OutOfReach);

    private static Fd? OpenDirectory(string path) =>
        Libc.OpenAt(Libc.AtCwd, PathText.Encode(path), OpenFlags.Path | OpenFlags.Directory, 0, ResolveFlags.None,
            out int descriptor).IsError
            ? null
            : new Fd(descriptor);

    private static bool Exists(string path)
    {
        using Fd? directory = OpenDirectory(path);
        return directory is not null;
    }

    /// <summary>Whether a directory may be the upper of a kernel overlay, judged by the root of its mount.</summary>
    /// <remarks>
    /// If the kernel does not tell (before Linux 6.6), the root has its upper's inode number, except for the highest bits, which
    /// may tell the layer (xino). With layers on several filesystems, and without xino, the root has a number of its own, and
    /// nothing can be compared: then the answer is yes.
    /// </remarks>
    private bool IsUpper(string directory, Fd? root, KernelOverlay overlay)
    {
        const ulong withoutLayer = (1UL << 48) - 1;
        using Fd? upper = OpenDirectory(directory);
        if (root is null || upper is null) { return false; }
        if (Mount.Root != "/")
        {
            // A part of the overlay that is not in upper tells nothing.
            using Fd? part = OpenDirectory(directory + Mount.Root);
            return part is null || RootIdentity.Of(root.Value) is not { } here || here.Matches(part.Value);
        }
        if (RootIdentity.Of(root.Value) is { } identity) { return identity.Matches(upper.Value); }
        if (Libc.StatAt(root.Value, Libc.Self, StatxMask.Basic, out Statx shown).IsError
            || Libc.StatAt(upper.Value, Libc.Self, StatxMask.Basic, out Statx real).IsError)
        {
            return false;
        }
        bool isNumbered = overlay.Options.Contains("xino=on", StringComparer.Ordinal)
            || overlay.LowerDirectories.All(lower =>
                !Libc.StatAt(Libc.AtCwd, PathText.Encode(lower), StatxMask.Basic, out Statx other).IsError && other.Dev == real.Dev);
        return !isNumbered || (shown.Ino & withoutLayer) == (real.Ino & withoutLayer);
    }

    private static byte[] AskHere(string mountPoint, Query query, string argument)
    {
        Errno error = Libc.OpenAt(Libc.AtCwd, PathText.Encode(mountPoint), OpenFlags.ReadOnly | OpenFlags.NonBlock, 0, ResolveFlags.None,
            out int descriptor);
        if (error.IsError)
        {
            throw new OverlayQueryException(
                $"{mountPoint} cannot be opened ({error}): {ControlClient.WhoMayAsk}.",
                error is Errno.EACCES or Errno.EPERM ? QueryProblem.Denied : QueryProblem.NoAnswer);
        }
        using var mount = new Fd(descriptor);
        return ControlClient.Ask(mount.Value, mountPoint, query, PathText.Encode(argument).AsSpan()[..^1]);
    }
}
