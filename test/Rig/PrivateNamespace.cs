using System.Text;
using Veneer.Linux;

namespace Veneer.Rig;

/// <summary>The namespaces in which a test mounts: no mount is seen outside, and no server outlives the tests.</summary>
public static unsafe class PrivateNamespace
{
    /// <summary>Set by who has made the namespaces: <see cref="Enter"/>, or the script that runs all tests.</summary>
    public const string Mark = "VENEER_TEST_NAMESPACE";

    /// <summary>Why nothing can be mounted here, or null.</summary>
    public static string? Obstacle { get; private set; } = "PrivateNamespace.Enter was not called.";

    /// <summary>Makes this process one in private mount and pid namespaces, by starting it again if need be.</summary>
    /// <param name="lastSignal">What this process gets when the one that has started it is gone.</param>
    public static void Enter(string lastSignal = "KILL")
    {
        _ = Libc.SetUmask(Octal.Oct(22));
        Obstacle = Prepare(lastSignal);
    }

    private static string? Prepare(string lastSignal)
    {
        if (Libc.EffectiveUid != 0) { return "Mounting in tests needs root."; }
        if (!new FilePath("/dev/fuse").Exists) { return "There is no /dev/fuse."; }
        if (Environment.GetEnvironmentVariable(Mark) is null)
        {
            // Returns only when it cannot be done.
            return StartAgain(lastSignal);
        }
        if (Libc.ReadWhole("/proc/self/mountinfo\0"u8, out byte[] mounts).IsError) { return "/proc is not mounted."; }
        string root = Encoding.Latin1.GetString(mounts).Split('\n').First(line => line.Split(' ') is [_, _, _, _, "/", ..]);
        if (root.Contains(" shared:", StringComparison.Ordinal)) { return $"{Mark} is set, but mounts would be seen outside of this process's namespace."; }
        // Where connections can be aborted; a missing one costs only that.
        _ = Libc.Mount("fusectl\0"u8, "/sys/fs/fuse/connections\0"u8, "fusectl\0"u8, MountFlags.None, "\0"u8);
        return null;
    }

    private static string StartAgain(string lastSignal)
    {
        if (Libc.ReadWhole("/proc/self/cmdline\0"u8, out byte[] line).IsError) { return "/proc is not mounted."; }
        Environment.SetEnvironmentVariable(Mark, "own");
        string[] own = Encoding.UTF8.GetString(line).TrimEnd('\0').Split('\0');
        byte[] buffer = new byte[4096];
        SysException.ThrowIf(Libc.ReadLinkAt(Libc.AtCwd, "/proc/self/exe\0"u8, buffer, out int length), "readlink(/proc/self/exe)");
        string[] words =
        [
            "unshare", "--mount", "--propagation", "private", "--pid", "--fork", $"--kill-child={lastSignal}", "--mount-proc",
            PathText.Decode(buffer.AsSpan(0, length)), .. own[1..],
        ];
        string[] variables = [.. Environment.GetEnvironmentVariables().Cast<System.Collections.DictionaryEntry>().Select(v => $"{v.Key}={v.Value}")];
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
