using System.Diagnostics;
using System.Globalization;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse;

public sealed partial class Server
{
    /// <summary>The request that the thread serves, for the line of its reply. Lines of several threads are mixed.</summary>
    [ThreadStatic]
    private static (ulong Unique, string Text, long Started) traced;

    private void Trace(in Request request, ReadOnlySpan<byte> name)
    {
        if (options.Trace is null) { return; }
        string text = name.Length > 1 ? " " + PathText.PrintableAscii(name[..^1], isWord: true) : "";
        TraceRequest(request.Header, $" node={request.NodeId}{text}", $" pid={request.Header.Pid} uid={request.Header.Uid}");
    }

    private void TraceInit(in InHeader header, in InitIn input)
    {
        if (options.Trace is null) { return; }
        TraceRequest(header, $" protocol={input.Major}.{input.Minor}", $" pid={header.Pid}");
    }

    private void TraceRequest(in InHeader header, string what, string who)
    {
        string text = $"{header.Unique} {header.Opcode}{what}";
        options.Trace!(text + who);
        traced = (header.Unique, text, Stopwatch.GetTimestamp());
    }

    /// <summary>
    /// Traces a reply: the request, its result and how long it took. Both lines of a request begin with its number.
    /// </summary>
    private void TraceReply(ulong unique, Errno error, int length)
    {
        if (options.Trace is not { } trace) { return; }
        string result = error.IsError ? error.ToString() : $"OK, {length} bytes";
        // A malformed or untraced request has only its number.
        trace(traced.Unique == unique
            ? string.Create(CultureInfo.InvariantCulture,
                $"{traced.Text} -> {result}, {Stopwatch.GetElapsedTime(traced.Started).TotalMicroseconds:F0} us")
            : $"{unique} -> {result}");
    }
}
