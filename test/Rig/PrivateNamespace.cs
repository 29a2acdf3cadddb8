using System.Globalization;
using System.Text;
using Veneer.Linux;

namespace Veneer.Rig;

/// <summary>The namespaces in which a test mounts: no mount is seen outside, and no server outlives the tests.</summary>
public static unsafe class PrivateNamespace
{
    /// <summary>Set by who has made the namespaces: <see cref="Enter"/>, or whoever runs the tests in some.</summary>
    public const string Mark = "VENEER_TEST_NAMESPACE";

    /// <summary>Begins a mark that ends with the number of the descriptor of <see cref="WithoutMounts"/>.</summary>
    private const string InCopy = "copy of ";

    /// <summary>Why nothing can be mounted here, or null.</summary>
    public static string? Obstacle { get; private set; } = "PrivateNamespace.Enter was not called.";

    /// <summary>The mount namespace that this process's is a copy of, as a file: it has none of the mounts that are made here.</summary>
    public static string? WithoutMounts { get; private set; }

    /// <summary>Makes this process one in private mount and pid namespaces, by starting it again if need be.</summary>
    /// <param name="lastSignal">What this process gets when the one that has started it is gone.</param>
    public static void Enter(string lastSignal = "KILL")
    {
        if (WithoutMounts is not null) { return; }
        _ = Libc.SetUmask(Octal.Oct(22));
        Obstacle = Prepare(lastSignal);
    }

    private static string? Prepare(string lastSignal)
    {
        if (Libc.EffectiveUid != 0) { return "Mounting in tests needs root."; }
        if (!new FilePath("/dev/fuse").Exists) { return "There is no /dev/fuse."; }
        string? mark = Environment.GetEnvironmentVariable(Mark);
        if (mark is null)
        {
            // Returns only when it cannot be done.
            return StartAgain("own", "--pid", "--fork", $"--kill-child={lastSignal}", "--mount-proc");
        }
        if (Libc.ReadWhole("/proc/self/mountinfo\0"u8, out byte[] mounts).IsError) { return "/proc is not mounted."; }
        string root = Encoding.Latin1.GetString(mounts).Split('\n').First(line => line.Split(' ') is [_, _, _, _, "/", ..]);
        if (root.Contains(" shared:", StringComparison.Ordinal))
        {
            return $"{Mark} is set, but mounts would be seen outside of this process's namespace.";
        }
        if (!mark.StartsWith(InCopy, StringComparison.Ordinal))
        {
            int here;
            fixed (byte* p = "/proc/self/ns/mnt\0"u8) { here = Native.open(p, 0); } // stays open in what is started next
            return here < 0 ? "/proc is not mounted." : StartAgain($"{InCopy}{here}");
        }
        int original = int.Parse(mark.AsSpan(InCopy.Length), CultureInfo.InvariantCulture);
        _ = Native.fcntl(original, Native.SetDescriptorFlags, (void*)Native.CloseOnExec); // cannot fail
        WithoutMounts = $"/proc/{Environment.ProcessId}/fd/{original}";
        // Where connections can be aborted; a missing one costs only that.
        _ = Libc.Mount("fusectl\0"u8, "/sys/fs/fuse/connections\0"u8, "fusectl\0"u8, MountFlags.None, "\0"u8);
        return null;
    }

    private static string StartAgain(string mark, params string[] more)
    {
        if (Libc.ReadWhole("/proc/self/cmdline\0"u8, out byte[] line).IsError) { return "/proc is not mounted."; }
        Environment.SetEnvironmentVariable(Mark, mark);
        string[] own = Encoding.UTF8.GetString(line).TrimEnd('\0').Split('\0');
        byte[] buffer = new byte[4096];
        SysException.ThrowIf(Libc.ReadLinkAt(Libc.AtCwd, "/proc/self/exe\0"u8, buffer, out int length), "readlink(/proc/self/exe)");
        string[] words =
        [
            "unshare", "--mount", "--propagation", "private", .. more,
            PathText.Decode(buffer.AsSpan(0, length)), .. own[1..],
        ];
        string[] variables =
            [.. Environment.GetEnvironmentVariables().Cast<System.Collections.DictionaryEntry>().Select(v => $"{v.Key}={v.Value}")];
        foreach (string place in (ReadOnlySpan<string>)["/usr/bin/unshare", "/bin/unshare"])
        {
            Errno error = Execute(place, words, variables);
            if (error != Errno.ENOENT) { return $"{place} cannot be run: {error}."; }
        }
        return "unshare is not installed (util-linux).";
    }

    private static Errno Execute(string program, string[] arguments, string[] environment)
    {
        fixed (byte* p = PathText.Encode(program))
        {
            return Native.Check(Native.execve(p, Strings(arguments), Strings(environment)));
        }
    }

    /// <summary>A C array of strings; never freed, since the process is about to be replaced.</summary>
    private static byte** Strings(string[] values)
    {
        byte** array = (byte**)System.Runtime.InteropServices.NativeMemory.AllocZeroed((nuint)(values.Length + 1), (nuint)sizeof(byte*));
        for (int i = 0; i < values.Length; i++)
        {
            byte[] bytes = PathText.Encode(values[i]);
            array[i] = (byte*)System.Runtime.InteropServices.NativeMemory.Alloc((nuint)bytes.Length);
            bytes.CopyTo(new Span<byte>(array[i], bytes.Length));
        }
        return array;
    }
}
