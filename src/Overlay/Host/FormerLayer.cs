using System.Globalization;
using System.Text;
using Veneer.Linux;

namespace Veneer.Overlay.Host;

/// <summary>A directory that was a layer of an overlay until that was shut down.</summary>
/// <remarks>
/// A server that is shut down has let go of its layers, but who has files open or mapped that are passed through keeps
/// their filesystems. So it leaves a record for those who look for holders: a file in memory, which is found
/// among its descriptors by its name and ends with it. Each layer in it ends with a NUL.
/// </remarks>
/// <param name="Role"><c>upper</c>, <c>work</c> or <c>lower</c>; or <c>mount</c>, of the overlay itself.</param>
/// <param name="Device">The number of its filesystem's device, as mountinfo has it.</param>
/// <param name="Inside">Its path from the filesystem's root; of a mount its id.</param>
internal readonly record struct FormerLayer(string Role, string Device, string Inside)
{
    private const int MaxRecord = 1 << 20;

    private const string MountRole = "mount";

    private static ReadOnlySpan<byte> Name => "veneer-layers-until-shutdown\0"u8;

    /// <summary>What the record's descriptor leads to, but for an end.</summary>
    public const string LinkName = "/memfd:veneer-layers-until-shutdown";

    /// <summary>Leaves the record.</summary>
    /// <param name="layers">The layers, which are open still.</param>
    /// <param name="device">The number of the overlay's device.</param>
    /// <returns>The record, or null when it cannot be made.</returns>
    public static Fd? Leave(IReadOnlyList<Place> layers, string device)
    {
        if (MountTable.Read(out List<MountEntry> table).IsError || Libc.CreateMemoryFile(Name, out int descriptor).IsError) { return null; }
        var record = new Fd(descriptor);
        var text = new StringBuilder();
        foreach (Place layer in layers)
        {
            // Where it is now, if that can be told.
            string? name = Processes.Link(string.Create(CultureInfo.InvariantCulture, $"/proc/self/fd/{layer.Descriptor}"));
            MountEntry? mount = table.Find(entry => (ulong)entry.Id == layer.Status.MountId);
            string? inside = (mount is null || name is null ? null : Place.InsideOf(mount, name)) ?? layer.Inside;
            if (inside is not null && layer.Device is { } number) { text.Append(layer.Role).Append(' ').Append(number).Append(' ').Append(inside).Append('\0'); }
        }
        // By these its open files are known, of which the kernel tells no more.
        foreach (MountEntry mount in table.FindAll(entry => entry.Device == device)) { text.Append(CultureInfo.InvariantCulture, $"{MountRole} {device} {mount.Id}\0"); }
        ReadOnlySpan<byte> rest = PathText.Encode(text.ToString()).AsSpan()[..^1];
        while (rest.Length > 0 && !Libc.Write(descriptor, rest, out int written).IsError) { rest = rest[written..]; }
        return record;
    }

    /// <summary>Reads the record of a server.</summary>
    /// <param name="path">Its descriptor in /proc.</param>
    /// <returns>What of it can be read.</returns>
    public static List<FormerLayer> Read(string path)
    {
        var layers = new List<FormerLayer>();
        // From its beginning, with an open file of our own.
        if (Libc.ReadWhole(Libc.AtCwd, PathText.Encode(path), out byte[] record, MaxRecord).IsError) { return layers; }
        foreach (Range line in record.AsSpan().Split((byte)0))
        {
            if (PathText.Decode(record.AsSpan(line)).Split(' ', 3) is [var role, var device, var inside]) { layers.Add(new FormerLayer(role, device, inside)); }
        }
        return layers;
    }

    /// <summary>The devices of overlays by the ids of their mounts, which may be in no table any more.</summary>
    public static Dictionary<int, string> MountsOf(IEnumerable<FormerLayer> records)
    {
        var devices = new Dictionary<int, string>();
        foreach (FormerLayer record in records)
        {
            if (record.Role == MountRole && int.TryParse(record.Inside, NumberStyles.None, CultureInfo.InvariantCulture, out int id)) { devices[id] = record.Device; }
        }
        return devices;
    }
}
