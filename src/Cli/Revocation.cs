using System.Globalization;
using Veneer.Fuse;
using Veneer.Linux;

namespace Veneer.Cli;

/// <summary>Looks up the names that make the kernel revoke passed-through files. See <see cref="Gate.Revoke"/>.</summary>
/// <remarks>A child process does it: the server would wait for itself.</remarks>
internal static class Revocation
{
    private const string Variable = "VENEER_REVOKE";
    private const int AnswerTime = 10_000;

    /// <summary>The child's output when all names were found. A runtime that cannot start writes something else.</summary>
    private static ReadOnlySpan<byte> Done => "."u8;

    /// <summary>Whether this process is the child that looks up.</summary>
    public static bool IsAsked => Self.IsStartedAs(Variable);

    /// <summary>In the server: has a number of names looked up.</summary>
    /// <returns>False when a name was not found, or no process could be started.</returns>
    public static bool Run(string place, int count)
    {
        byte[] number = PathText.Encode(count.ToString(CultureInfo.InvariantCulture))[..^1];
        return !Self.RunChild(Variable, ["veneer"u8.ToArray(), PathText.Encode(place)[..^1], number], AnswerTime, out byte[] answer,
                out _).IsError
            && Done.SequenceEqual(answer);
    }

    /// <summary>In the child: looks the names up.</summary>
    public static int LookUp(string place, string count)
    {
        Self.SignalStarted();
        if (!int.TryParse(count, NumberStyles.None, CultureInfo.InvariantCulture, out int number)) { return ExitCode.Usage; }
        string prefix = PathText.Decode(Gate.RevokedPrefix);
        for (int i = 0; i < number; i++)
        {
            Errno error = Libc.StatAt(Libc.AtCwd,
                PathText.Encode(string.Create(CultureInfo.InvariantCulture, $"{place}/{prefix}{i}")), StatxMask.Basic, out _);
            if (error.IsError) { return ExitCode.Failure; }
        }
        _ = Libc.Write(2, Done, out _); // best effort: the server may be gone
        return ExitCode.Success;
    }
}
