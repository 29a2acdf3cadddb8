using System.Globalization;
using System.Text;
using Veneer.Linux;
using Veneer.Overlay.Format;
using Veneer.Overlay.Host;

namespace Veneer.Overlay.Control;

/// <summary>
/// The process that serves a mount, as the attribute <c>user.veneer.server</c> of the mount's root tells it. The attribute is an
/// interface, see docs/control.md.
/// </summary>
/// <param name="Pid">The process id, in the server's own pid namespace.</param>
/// <param name="Started">The start time of the process in clock ticks, which tells it from a process with a recycled pid.</param>
/// <param name="HasUpper">Whether the overlay has an upper, and so can be written.</param>
public sealed record ServerProcess(int Pid, ulong Started, bool HasUpper)
{
    /// <summary>The largest size of the attribute, in bytes: no value is larger.</summary>
    public const int MaxSize = 64;

    private const string WithoutUpper = "lower";

    /// <summary>The attribute's name, with its NUL. It is in no list of attributes.</summary>
    public static ReadOnlySpan<byte> Attribute => AnsweredXattr.Server;

    /// <summary>This process, as the server of a mount.</summary>
    internal static ServerProcess OfThisProcess(bool hasUpper) => new(Libc.ProcessId, Processes.StartTimeOf("self") ?? 0, hasUpper);

    /// <summary>Whether the process runs. False when a process with its pid is another one, or none that is seen from here.</summary>
    public bool IsRunning => Processes.StartTimeOf(Pid.ToString(CultureInfo.InvariantCulture)) == Started;

    /// <summary>Writes the attribute's value.</summary>
    public byte[] Write() =>
        Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"{Pid} {Started}{(HasUpper ? "" : $" {WithoutUpper}")}"));

    /// <summary>Reads the attribute's value.</summary>
    /// <returns>Null when it is not one that <see cref="Write"/> makes.</returns>
    public static ServerProcess? Parse(ReadOnlySpan<byte> value)
    {
        string[] words = PathText.Decode(value).Split(' ');
        return words is [_, _] or [_, _, WithoutUpper]
            && int.TryParse(words[0], NumberStyles.None, CultureInfo.InvariantCulture, out int number)
            && ulong.TryParse(words[1], NumberStyles.None, CultureInfo.InvariantCulture, out ulong time)
            ? new ServerProcess(number, time, words.Length == 2)
            : null;
    }
}
