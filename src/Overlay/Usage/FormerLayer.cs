using System.Globalization;
using System.Text;
using Veneer.Linux;
using Veneer.Overlay.Host;

namespace Veneer.Overlay.Usage;

/// <summary>A directory that was a layer of an overlay until the overlay was shut down.</summary>
/// <remarks>
/// A server that is shut down has released its layers, but processes that have passed-through files open or mapped still
/// hold the layers' filesystems. So the server leaves a record for those who look for holders: a file in memory, found by
/// its name among the server's descriptors, which ends with the server. Each layer in the record ends with a NUL.
/// </remarks>
/// <param name="Role"><c>upper</c>, <c>work</c> or <c>lower</c>; or <c>mount</c> for a mount of the overlay itself.</param>
/// <param name="Device">The device number of its filesystem, as in mountinfo.</param>
/// <param name="Inside">The path from the filesystem's root; for a mount, the mount id.</param>
internal readonly record struct FormerLayer(string Role, string Device, string Inside)
{
    private const int MaxRecord = 1 << 20;

    private const string MountRole = "mount";

    private static ReadOnlySpan<byte> Name => "veneer-layers-until-shutdown\0"u8;

    /// <summary>The target of the record's link in /proc, without its end.</summary>
    public const string LinkName = "/memfd:veneer-layers-until-shutdown";

    /// <summary>Makes the record.</summary>
    /// <param name="layers">The layers, which are still open.</param>
    /// <param name="device">The device number of the overlay.</param>
    /// <returns>The record, or null when it cannot be made.</returns>
    public static Fd? WriteRecord(IReadOnlyList<Place> layers, string device)
    {
        if (MountTable.Read(out List<MountEntry> table).IsError || Libc.CreateMemoryFile(Name, out int descriptor).IsError)
        {
            return null;
        }
        var record = new Fd(descriptor);
        var text = new StringBuilder();
        foreach (Place layer in layers)
        {
            // The layer's current path, if it can be determined.
            string? name = Processes.Link(string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{layer.Descriptor}"));
            MountEntry? mount = table.Find(entry => (ulong)entry.Id == layer.Status.MountId);
            string? inside = (mount is null || name is null ? null : Place.InsideOf(mount, name)) ?? layer.Inside;
            if (inside is not null && layer.Device is { } number)
            {
                text.Append(layer.Role).Append(' ').Append(number).Append(' ').Append(inside).Append('\0');
            }
        }
        // The mount ids identify the overlay's open files, of which the kernel tells nothing else.
        foreach (MountEntry mount in table.FindAll(entry => entry.Device == device))
        {
            text.Append(CultureInfo.InvariantCulture, $"{MountRole} {device} {mount.Id}\0");
        }
        ReadOnlySpan<byte> rest = PathText.Encode(text.ToString()).AsSpan()[..^1];
        while (rest.Length > 0 && !Libc.Write(descriptor, rest, out int written).IsError) { rest = rest[written..]; }
        return record;
    }

    /// <summary>Reads the record of a server.</summary>
    /// <param name="path">The path of its descriptor in /proc.</param>
    /// <returns>The layers that can be read.</returns>
    public static List<FormerLayer> ReadRecord(string path)
    {
        var layers = new List<FormerLayer>();
        // A new open file begins at offset 0.
        if (Libc.ReadWhole(Libc.AtCwd, PathText.Encode(path), out byte[] record, MaxRecord).IsError) { return layers; }
        foreach (Range line in record.AsSpan().Split((byte)0))
        {
            if (PathText.Decode(record.AsSpan(line)).Split(' ', 3) is [var role, var device, var inside])
            {
                layers.Add(new FormerLayer(role, device, inside));
            }
        }
        return layers;
    }

    /// <summary>The devices of overlays by their mount ids, since these mounts may be in no table any more.</summary>
    public static Dictionary<int, string> MountsOf(IEnumerable<FormerLayer> records)
    {
        var devices = new Dictionary<int, string>();
        foreach (FormerLayer record in records)
        {
            if (record.Role == MountRole && int.TryParse(record.Inside, NumberStyles.None, CultureInfo.InvariantCulture, out int id))
            {
                devices[id] = record.Device;
            }
        }
        return devices;
    }
}
