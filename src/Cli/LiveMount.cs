using System.Globalization;
using System.Text.Json.Serialization.Metadata;
using Veneer.Linux;
using Veneer.Overlay;
using Veneer.Overlay.Control;
using Veneer.Overlay.Documents;

namespace Veneer.Cli;

/// <summary>Asks the server of a live mount: the tools' end of the control channel. See docs/control.md.</summary>
internal static class LiveMount
{
    private const string Variable = "VENEER_CONTROL";

    /// <summary>How long a server may take to answer a question that needs no work, in milliseconds.</summary>
    public const int AnswerTime = 5_000;

    /// <summary>
    /// The first byte of the child's output. After <c>A</c> comes an answer. After <c>C</c> come an exit status, a
    /// <see cref="LayerProblem"/> and a sentence.
    /// </summary>
    private const byte IsAnswer = (byte)'A', IsComplaint = (byte)'C';

    /// <summary>Whether this process is a child that asks for its parent.</summary>
    public static bool IsAsking => Self.IsStartedAs(Variable);

    /// <summary>Asks the server of a mount.</summary>
    /// <param name="place">Any file or directory of the mount.</param>
    /// <param name="query">The question.</param>
    /// <param name="argument">
    /// The argument of the question: text without NUL, at most <see cref="ControlMessage.MaxLength"/> bytes.
    /// </param>
    /// <param name="milliseconds">How long to wait, in milliseconds, on a machine that is not busy; -1 for no limit.</param>
    /// <returns>The answer, JSON in UTF-8.</returns>
    /// <exception cref="LayerException">There is no answer; the message is a sentence for the user.</exception>
    public static byte[] Ask(string place, Query query, string argument = "", int milliseconds = AnswerTime)
    {
        string number = ((uint)query).ToString(CultureInfo.InvariantCulture);
        byte[][] words = ["veneer"u8.ToArray(), PathText.Encode(place)[..^1], PathText.Encode(number)[..^1],
            PathText.Encode(argument)[..^1]];
        Errno error = Self.RunChild(Variable, words, milliseconds, out byte[] answer, out int silence);
        if (error.IsError)
        {
            throw new LayerException(
                $"A process that asks the server cannot be started{Self.StartFailure(error, "see the limits of this process")}",
                ExitCode.System);
        }
        if (silence > 0)
        {
            throw new LayerException(string.Create(CultureInfo.InvariantCulture,
                $"The server of {place} has not answered for {silence / 1000} seconds: see what it waits for, or unmount with "
                + $"veneer umount -l."), ExitCode.Failure, LayerProblem.Hangs);
        }
        return answer switch
        {
            [IsAnswer, .. byte[] document] => document,
            [IsComplaint, byte code, byte problem, .. byte[] sentence] =>
                throw new LayerException(PathText.Decode(sentence), code, (LayerProblem)problem),
            _ =>
                throw new LayerException($"The process that asked the server of {place} ended early: see whether there is memory left.",
                    ExitCode.System),
        };
    }

    /// <summary>Asks the server of a mount, and reads the document that it answers with.</summary>
    /// <exception cref="LayerException">There is none, or it is something else.</exception>
    public static T Ask<T>(string place, Query query, JsonTypeInfo<T> type, string argument = "", int milliseconds = AnswerTime)
        where T : class =>
        Read(Ask(place, query, argument, milliseconds), place, type);

    /// <summary>Reads an answer.</summary>
    /// <exception cref="LayerException">It is something else.</exception>
    public static T Read<T>(byte[] answer, string place, JsonTypeInfo<T> type) where T : class
    {
        try
        {
            return Document.Read(answer, type);
        }
        catch (FormatException problem)
        {
            throw new LayerException(
                $"The answer of the server of {place} cannot be read ({problem.Message}): it is another version of Veneer, "
                + "use that version's veneer.",
                ExitCode.Failure);
        }
    }

    /// <summary>Asks as <see cref="MountedOverlay"/> has it asked: what changed, for as long as it takes to read upper.</summary>
    public static byte[] AskFor(string mountPoint, Query query, string argument) =>
        Ask(mountPoint, query, argument, query == Query.Changes ? -1 : AnswerTime);

    /// <summary>In the child: asks the server, and passes the answer on to the parent.</summary>
    public static int RunChild(string place, string query, string argument)
    {
        Self.SignalStarted();
        try
        {
            Write(IsAnswer,
                AskHere(place, (Query)uint.Parse(query, CultureInfo.InvariantCulture), PathText.Encode(argument).AsSpan()[..^1]));
            return ExitCode.Success;
        }
        catch (Exception problem) when (problem is LayerException or OverlayQueryException)
        {
            int code = problem is LayerException layer ? layer.ExitCode : LayerException.CodeOf((OverlayQueryException)problem);
            Write(IsComplaint, [(byte)code, (byte)((problem as LayerException)?.Problem ?? LayerProblem.Other),
                .. PathText.Encode(problem.Message).AsSpan()[..^1]]);
            return code;
        }
    }

    private static void Write(byte kind, ReadOnlySpan<byte> content)
    {
        ReadOnlySpan<byte> rest = (byte[])[kind, .. content];
        while (rest.Length > 0)
        {
            Errno error = Libc.Write(2, rest, out int count);
            if (error == Errno.EINTR) { continue; }
            if (error.IsError) { return; } // nobody waits for the answer any more
            rest = rest[count..];
        }
    }

    private static byte[] AskHere(string place, Query query, ReadOnlySpan<byte> argument)
    {
        using Fd target = Open(place, out string path);
        return ControlClient.Ask(target.Value, path, query, argument);
    }

    private static string Gone(string path) => $"The server of {path} is gone: unmount it with veneer umount -l.";

    /// <summary>
    /// Opens a file or directory of a mount of Veneer, to ask about it. Any other mount is refused without waiting for its
    /// server.
    /// </summary>
    public static Fd Open(string place, out string path)
    {
        Errno error = Target.FindAround(place, out path, out MountEntry? mount, out int found);
        if (error.IsError)
        {
            throw new LayerException(error switch
            {
                Errno.ENOENT or Errno.ENOTDIR => $"{place} does not exist: name a mount point.",
                Errno.EACCES => $"{place} cannot be reached by this user: {ControlClient.WhoMayAsk}.",
                Errno.ENOTCONN or Errno.ECONNABORTED => Gone(place),
                _ => $"{place} cannot be looked at ({error}): see whether /proc is mounted.",
            }, CodeOf(error));
        }
        using var reached = new Fd(found);
        if (mount?.Type != "fuse.veneer")
        {
            throw new LayerException(
                $"{path} is not in a mount of Veneer{(mount is null ? "" : $", but in one of type {mount.Type}")}: name the "
                + "mount point of one, see findmnt -t fuse.veneer.", ExitCode.NotAnOverlay);
        }
        error = Libc.StatAt(reached.Value, Libc.Self, StatxMask.Basic, out Statx stat);
        // Opening a device file would open the device.
        if (!error.IsError && stat.Type is not (FileType.Directory or FileType.Regular))
        {
            throw new LayerException($"{path} is neither a file nor a directory: name the mount point.", ExitCode.NotAMount);
        }
        int descriptor = -1;
        if (!error.IsError) { error = Libc.Reopen(reached.Value, OpenFlags.ReadOnly | OpenFlags.NonBlock, out descriptor); }
        if (!error.IsError) { return new Fd(descriptor); }
        throw new LayerException(error switch
        {
            Errno.EACCES or Errno.EPERM => $"{path} cannot be opened by this user: {ControlClient.WhoMayAsk}.",
            Errno.ENOTCONN or Errno.ECONNABORTED => Gone(path),
            Errno.EIO => $"{path} gives EIO, as after a shutdown: unmount it with veneer umount.",
            _ => $"{path} cannot be opened ({error}): name the mount point.",
        }, CodeOf(error), error == Errno.EIO ? LayerProblem.IsShutDown : LayerProblem.Other);
    }

    private static int CodeOf(Errno error) => error switch
    {
        Errno.ENOENT or Errno.ENOTDIR => ExitCode.NotAMount,
        Errno.EPERM or Errno.EACCES or Errno.EOVERFLOW => ExitCode.Denied,
        _ => ExitCode.Failure,
    };
}
