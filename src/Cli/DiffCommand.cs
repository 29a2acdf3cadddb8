using System.Buffers;
using System.CommandLine;
using System.Globalization;
using System.Text;
using Microsoft.Win32.SafeHandles;
using Veneer.Linux;
using Veneer.Overlay;
using Veneer.Overlay.Changes;

namespace Veneer.Cli;

/// <summary><c>veneer diff</c>: lists or packs what an upper changes in what its lowers show.</summary>
internal static class DiffCommand
{
    /// <summary>The size of the pieces in which output is written, in bytes.</summary>
    private const int PieceSize = 64 * 1024;

    private enum Format { Text, Json, Stat }

    private static readonly Option<string> upper = new("--upper");
    private static readonly Option<string[]> lower = new("--lower")
    {
        Arity = ArgumentArity.OneOrMore,
        AllowMultipleArgumentsPerToken = false,
    };
    private static readonly Option<bool> userXattr = new("--userxattr");
    private static readonly Option<bool> json = new("--json");
    private static readonly Option<bool> stat = new("--stat");
    private static readonly Option<string> tar = new("--tar");
    private static readonly Option<string> time = new("--mtime");
    private static readonly Option<bool> clamp = new("--clamp-mtime");

    /// <summary>The options of the command.</summary>
    public static IEnumerable<Option> Options() => [upper, lower, userXattr, json, stat, tar, time, clamp];

    /// <summary>Lists or packs the changes.</summary>
    /// <returns>The exit status.</returns>
    public static int Run(ParseResult parsed, string[] words)
    {
        string? archive = parsed.GetValue(tar);
        if ((parsed.GetValue(json) ? 1 : 0) + (parsed.GetValue(stat) ? 1 : 0) + (archive is null ? 0 : 1) > 1)
        {
            throw new OverlayMountException("--json, --stat and --tar exclude each other: take one.");
        }
        if (archive is null && (parsed.GetValue(time) is not null || parsed.GetValue(clamp)))
        {
            throw new OverlayMountException("--mtime and --clamp-mtime are for --tar alone: add --tar FILE, or leave them out.");
        }
        LayerTimes times = archive is null ? default : TimesOf(parsed.GetValue(time), parsed.GetValue(clamp));
        Format format = parsed.GetValue(json) ? Format.Json : parsed.GetValue(stat) ? Format.Stat : Format.Text;

        using OverlayDiff diff = Open(words, parsed.GetValue(upper), parsed.GetValue(lower) ?? [], parsed.GetValue(userXattr));
        if (archive is null) { return Write(diff, format); }
        if (!diff.ReadsLayers)
        {
            throw new LayerException(
                $"The layers of {words[0]} cannot be reached from here, and only they can be made a tar of: ask as root, in "
                + "the mount namespace of the server.", ExitCode.Denied);
        }
        return WriteTar(diff, archive, times);
    }

    /// <summary>Reads the options as GNU tar does. Without --mtime, SOURCE_DATE_EPOCH limits the times.</summary>
    private static LayerTimes TimesOf(string? time, bool isLimit)
    {
        if (time is not null)
        {
            return LayerTimes.TryParse(time, out long given)
                ? new LayerTimes(given, isLimit)
                : throw new OverlayMountException(
                    $"--mtime {time} is not understood: give @SECONDS since 1970, or a date such as 2026-01-31 or "
                    + "2026-01-31T12:00:00Z.");
        }
        if (Environment.GetEnvironmentVariable("SOURCE_DATE_EPOCH") is { Length: > 0 } epoch)
        {
            return LayerTimes.TryParseEpoch(epoch, out long limit)
                ? new LayerTimes(limit, IsLimit: true)
                : throw new OverlayMountException(
                    $"SOURCE_DATE_EPOCH={epoch} in the environment is not understood: it is a number of seconds since 1970, or "
                    + "unset.");
        }
        return isLimit
            ? throw new OverlayMountException("--clamp-mtime needs a time: add --mtime @SECONDS, or set SOURCE_DATE_EPOCH.")
            : default;
    }

    private static OverlayDiff Open(string[] words, string? upper, string[] lowers, bool userXattr)
    {
        if (words.Length == 1)
        {
            if (upper is not null || lowers.Length > 0 || userXattr)
            {
                throw new OverlayMountException(
                    "A mount point and --upper, --lower or --userxattr exclude each other: the mount knows its layers.");
            }
            return MountedOverlay.At(words[0], LiveMount.AskFor).Diff();
        }
        if (upper is null || lowers.Length == 0)
        {
            throw new OverlayMountException("No overlay is given: name its mount point, or its layers with --upper DIR --lower DIR.");
        }
        if (!userXattr && !Capabilities.SeesTrustedAttributes)
        {
            if (Libc.StatAt(Libc.AtCwd, "/proc/self/ns\0"u8, StatxMask.Basic, out _).IsError)
            {
                throw new LayerException(
                    "Whether this process can read the attributes of the layers is not known, since there is no /proc: mount it, "
                    + "as with mount -t proc proc /proc.", ExitCode.System);
            }
            throw new LayerException(
                "Only root in the initial user namespace can read the trusted.overlay.* attributes of the layers: become "
                + "root, or add --userxattr if the overlay is mounted so.", ExitCode.Denied);
        }
        foreach (string one in lowers)
        {
            if (one.Length == 0) { throw new OverlayMountException("--lower is empty: name a directory."); }
            if (HasEmptyPath(one))
            {
                throw new OverlayMountException(
                    $"--lower {one} has an empty path: take out the colon too much, or write \\: for a colon in a name.");
            }
        }
        var parser = new OptionParser();
        // One lowerdir= would replace another, but every --lower is to count: so all go into one list.
        parser.Add($"lowerdir={string.Join(':', lowers).Replace(",", "\\,", StringComparison.Ordinal)}");
        return OverlayDiff.Open(upper, parser.Build(null, "").LowerDirectories, userXattr);
    }

    /// <summary>Whether a list of paths has a colon with nothing before or after it. A backslash makes a colon part of a path.</summary>
    private static bool HasEmptyPath(string list)
    {
        bool isEmpty = true;
        for (int i = 0; i < list.Length; i++)
        {
            if (list[i] == ':' && isEmpty) { return true; }
            isEmpty = list[i] == ':';
            if (list[i] == '\\') { i++; }
        }
        return isEmpty;
    }

    private static int Write(OverlayDiff diff, Format format)
    {
        var output = new ArrayBufferWriter<byte>(PieceSize + 8192);
        var totals = new SortedDictionary<ChangeKind, (long Count, long Bytes)>();
        long count = 0;
        foreach (Change change in diff.Changes())
        {
            count++;
            switch (format)
            {
                case Format.Json:
                    ChangeJson.Write(output, change);
                    break;
                case Format.Text:
                    output.Write(PathText.Encode(Line(change)).AsSpan()[..^1]);
                    break;
                default:
                    (long Count, long Bytes) total = totals.GetValueOrDefault(change.Kind);
                    bool hasContent = change.ContentChanged && change.Type == ObjectType.File && change.Kind != ChangeKind.Deleted;
                    totals[change.Kind] = (total.Count + 1, total.Bytes + (hasContent ? change.Size : 0));
                    break;
            }
            if (output.WrittenCount >= PieceSize && !Flush(output)) { return ExitCode.System; }
        }
        if (format == Format.Json) { ChangeJson.WriteEnd(output, count, diff.Disturbances); }
        if (format == Format.Stat) { output.Write(Encoding.UTF8.GetBytes(Summary(totals))); }
        return Flush(output) ? Conclude(diff.Disturbances) : ExitCode.System;
    }

    /// <summary>Writes the buffered output. False when nobody reads it any more.</summary>
    /// <exception cref="LayerException">The output cannot be written.</exception>
    private static bool Flush(ArrayBufferWriter<byte> output)
    {
        bool isHeard = Terminal.Print(output.WrittenSpan);
        output.ResetWrittenCount();
        return isHeard;
    }

    /// <summary>
    /// Writes a layer. A file is written under another name first, so that FILE is a whole layer or what it was before. A
    /// device or a pipe gets the bytes at once.
    /// </summary>
    private static int WriteTar(OverlayDiff diff, string file, LayerTimes times)
    {
        bool isFile = false;
        try
        {
            if (file == "-")
            {
                using Stream standard = Console.OpenStandardOutput();
                diff.WriteTar(standard, times);
            }
            else if (OpenSpecial(file, out string target) is { } special)
            {
                using var output = new FileStream(special, FileAccess.Write, PieceSize);
                diff.WriteTar(output, times);
            }
            else
            {
                isFile = true;
                WriteTarFile(diff, file, target, times);
            }
        }
        catch (Exception problem) when (problem is IOException or ArgumentOutOfRangeException) // ArgumentOutOfRangeException: EFBIG
        {
            throw new LayerException(isFile
                ? $"{file} cannot be written to its end: see whether there is space left, and ulimit -f."
                : $"{(file == "-" ? "Standard output" : file)} takes no more: the layer is cut off.", ExitCode.System);
        }
        return Conclude(diff.Disturbances);
    }

    /// <summary>Opens a nameless file in the directory of a path, to be linked there later, which takes /proc.</summary>
    private static Errno OpenNameless(string path, out int descriptor)
    {
        descriptor = -1;
        if (Libc.StatAt(Libc.AtCwd, "/proc/self/fd\0"u8, StatxMask.Basic, out _).IsError) { return Errno.EOPNOTSUPP; }
        string directory = path.LastIndexOf('/') is >= 0 and var slash ? path[..(slash + 1)] : ".";
        return Libc.OpenAt(Libc.AtCwd, PathText.Encode(directory), OpenFlags.TemporaryFile | OpenFlags.WriteOnly, 0x1B6,
            ResolveFlags.None, out descriptor);
    }

    /// <summary>Opens a path for writing when it is neither a file nor a directory. Null otherwise.</summary>
    /// <param name="file">The path as it was given.</param>
    /// <param name="target">The file to write: behind a symbolic link, its target, so that the link stays.</param>
    private static SafeFileHandle? OpenSpecial(string file, out string target)
    {
        target = file;
        if (MountTable.OpenPlace(file, out string resolved, out int descriptor).IsError) { return null; }
        using var place = new Fd(descriptor);
        if (Libc.StatAt(place.Value, Libc.Self, StatxMask.Basic, out Statx stat).IsError
            || stat.Type is FileType.Regular or FileType.Directory)
        {
            target = resolved;
            return null;
        }
        Errno error = Libc.Reopen(place.Value, OpenFlags.WriteOnly, out descriptor);
        return error.IsError
            ? throw new LayerException($"{file} cannot be written ({error}): name a file, or - for standard output.", ExitCode.System)
            : new SafeFileHandle(descriptor, ownsHandle: true);
    }

    private static void WriteTarFile(OverlayDiff diff, string file, string target, LayerTimes times)
    {
        byte[] whole = PathText.Encode(target), partial = PathText.Encode($"{target}.{Environment.ProcessId}.part");
        // A file without a name until it is whole, so that nothing is left when this process is killed. Not every
        // filesystem has such files.
        Errno error = OpenNameless(target, out int descriptor);
        bool isPartial = error.IsError;
        if (isPartial)
        {
            error = Libc.OpenAt(Libc.AtCwd, partial, OpenFlags.WriteOnly | OpenFlags.Create | OpenFlags.Exclusive, 0x1B6,
                ResolveFlags.None, out descriptor);
            isPartial = !error.IsError;
        }
        try
        {
            if (!error.IsError)
            {
                using var output = new FileStream(new SafeFileHandle(descriptor, ownsHandle: true), FileAccess.Write, PieceSize);
                diff.WriteTar(output, times);
                output.Flush(flushToDisk: true);
                if (!isPartial)
                {
                    error = Libc.LinkDescriptor(descriptor, Libc.AtCwd, partial);
                    isPartial = !error.IsError;
                }
                if (!error.IsError) { error = Libc.RenameAt(Libc.AtCwd, partial, Libc.AtCwd, whole, RenameFlags.None); }
            }
            if (error.IsError)
            {
                throw new LayerException($"{file} cannot be written ({error}): name a file in a directory that this user may write.",
                    ExitCode.System);
            }
            isPartial = false;
        }
        finally
        {
            if (isPartial) { _ = Libc.UnlinkAt(Libc.AtCwd, partial); } // best effort: the exception names the cause
        }
    }

    /// <summary>Reports what was disturbed, and gives the exit status.</summary>
    private static int Conclude(IReadOnlyList<Disturbance> disturbances)
    {
        int code = ExitCode.Success;
        foreach (Disturbance disturbance in disturbances)
        {
            Terminal.Complain($"{PathText.Printable(disturbance.Path)} {disturbance.Reason}.");
            code = Math.Max(code, disturbance.Kind switch
            {
                DisturbanceKind.LeftOut => ExitCode.Success,
                DisturbanceKind.Moved => ExitCode.Unsettled,
                _ => ExitCode.Incomplete,
            });
        }
        return code;
    }

    /// <summary>Formats a change as one line.</summary>
    private static string Line(Change change)
    {
        string path = PathText.Printable(change.Path);
        return change.Kind switch
        {
            ChangeKind.Added => $"A {path}\n",
            ChangeKind.Modified => change.ContentChanged ? $"M {path}\n" : $"m {path}\n",
            ChangeKind.Deleted => $"D {path}\n",
            ChangeKind.Replaced => $"S {path}\n",
            ChangeKind.Renamed =>
                $"{(change.ContentChanged ? "RM" : change.AttributesChanged ? "Rm" : "R")} {PathText.Printable(change.From!)} -> {path}\n",
            ChangeKind.TypeChanged => $"T {path}\n",
            _ => $"O {path}\n",
        };
    }

    private static string Summary(SortedDictionary<ChangeKind, (long Count, long Bytes)> totals)
    {
        var text = new StringBuilder();
        foreach ((ChangeKind kind, (long count, long bytes)) in totals)
        {
            text.Append(CultureInfo.InvariantCulture, $"{ChangeJson.Word(kind).Replace('_', ' '),-12} {count,8}");
            if (bytes > 0) { text.Append(CultureInfo.InvariantCulture, $"  {bytes} bytes"); }
            text.Append('\n');
        }
        text.Append(CultureInfo.InvariantCulture,
            $"{"in all",-12} {totals.Values.Sum(total => total.Count),8}  {totals.Values.Sum(total => total.Bytes)} bytes\n");
        return text.ToString();
    }
}
