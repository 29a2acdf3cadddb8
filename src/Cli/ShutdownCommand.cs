using System.CommandLine;
using Veneer.Fuse;
using Veneer.Linux;

namespace Veneer.Cli;

/// <summary><c>veneer shutdown</c>: ends an overlay while its mount stays, so that its layers are free.</summary>
internal static class ShutdownCommand
{
    private const string Variable = "VENEER_SHUTDOWN";

    /// <summary>The ioctl FS_IOC_SHUTDOWN.</summary>
    private const ulong ShutdownRequest = 0x8004587D;

    /// <summary>Whether this process is the child that calls for its parent.</summary>
    public static bool IsAsked => Self.IsStartedAs(Variable);

    /// <summary>Shuts an overlay down.</summary>
    /// <returns>The exit status.</returns>
    public static int Run(ParseResult parsed, string[] words)
    {
        // No time limit: the server finishes the requests that it serves first.
        using var patience = new Timer(_ => Terminal.Complain(
            $"The server of {words[0]} has not answered for 5 seconds: what it serves ends first; if it hangs, veneer "
            + "umount -l takes the mount away."), null, 5000, Timeout.Infinite);
        Errno error = Self.RunChild(Variable, ["veneer"u8.ToArray(), PathText.Encode(words[0])[..^1]], -1, out byte[] answer, out _);
        if (error.IsError)
        {
            throw new MountException($"A process that asks the server cannot be started ({error}): see the limits of this process.");
        }
        switch (answer)
        {
            case [ExitCode.Success]:
                return ExitCode.Success;
            case [> ExitCode.Success and <= ExitCode.Failure, _, ..]:
                Terminal.Complain(PathText.Decode(answer.AsSpan(1)));
                return answer[0];
            default:
                throw new LayerException(
                    $"The process that asked the server of {words[0]} ended early: see whether there is memory left, and ask "
                    + "again.", ExitCode.System);
        }
    }

    /// <summary>
    /// In the child: shuts the overlay down, and writes the exit status as one byte, followed by the reason of a failure.
    /// </summary>
    public static int RunChild(string place)
    {
        Self.SignalStarted();
        string complaint = "";
        int code = ExitCode.Failure;
        try
        {
            using Fd target = LiveMount.Open(place, out string path);
            Errno error = Libc.Ioctl(target.Value, ShutdownRequest, 0, out _);
            if (!error.IsError) { code = ExitCode.Success; }
            if (error == Errno.ETIMEDOUT) { code = ExitCode.Held; }
            if (error is Errno.EPERM or Errno.EACCES) { code = ExitCode.Denied; }
            complaint = error switch
            {
                Errno.None => "",
                Errno.EBUSY =>
                    $"{path} is shut down, but files that the kernel reads and writes by itself could not be taken from who has "
                    + "them open: end these processes, see veneer holders.",
                Errno.ETIMEDOUT =>
                    $"{path} is shut down, and its upper is free, but a layer does not answer, and is held until it does by what "
                    + "waits for it: see what is the matter with its filesystem.",
                Errno.EPERM or Errno.EACCES =>
                    $"Only a process with CAP_SYS_ADMIN in the user namespace of {path}, or who mounted it, may shut it down, and "
                    + "its server must see that process: become root there.",
                Errno.EIO => $"{path} has been shut down already: unmount it.",
                Errno.ENOTTY => $"{path} is served by an older Veneer, which cannot be shut down: unmount it.",
                Errno.ENOTCONN or Errno.ECONNABORTED => $"The server of {path} is gone: unmount it with veneer umount -l.",
                _ => $"{path} cannot be shut down ({error}): see the system's log.",
            };
        }
        catch (LayerException problem)
        {
            complaint = problem.Message;
            code = problem.ExitCode;
        }
        // best effort: perhaps nobody waits any more
        _ = Libc.Write(2, [(byte)code, .. PathText.Encode(complaint).AsSpan()[..^1]], out _);
        return code;
    }
}
