namespace Veneer.Rig;

/// <summary>The pairs of locks that checked servers have seen, and wrote into one file: see <c>LockOrder</c> in src/Fuse/Locking.</summary>
public static class LockRecord
{
    /// <summary>The variable that names the file to a server. A server that is shipped does not know it.</summary>
    public const string Variable = "VENEER_LOCK_RECORD";

    private static string File { get; } = System.IO.Path.Combine(CProgram.Repository, "artifacts/lock-record.txt");

    /// <summary>What is seen, and what of the chart is not, for people to read.</summary>
    public static string Report { get; } = System.IO.Path.Combine(CProgram.Repository, "artifacts/lock-pairs.txt");

    /// <summary>The chart.</summary>
    public static LockChart Chart => new(CProgram.Repository);

    /// <summary>The pairs that servers have seen so far, as <c>first > second</c>.</summary>
    public static string[] Pairs => [.. System.IO.File.ReadLines(File).Distinct().Order(StringComparer.Ordinal)];

    /// <summary>Has the servers that this process starts from now on write what they see, whoever they run as.</summary>
    public static void Begin()
    {
        System.IO.File.WriteAllText(File, "");
        System.IO.File.SetUnixFileMode(File, (UnixFileMode)0b110_110_110);
        Environment.SetEnvironmentVariable(Variable, File);
    }
}
