namespace Veneer.Rig;

/// <summary>The kernel's offer of FUSE over io_uring, which is off unless root switches it on.</summary>
public static class IoUringSwitch
{
    private const string Parameter = "/sys/module/fuse/parameters/enable_uring";

    private static string? was;

    /// <summary>Switches it on until this process ends.</summary>
    /// <returns>Why the kernel does not offer it, or null.</returns>
    public static string? TurnOn()
    {
        if (!File.Exists(Parameter)) { return "This kernel has no FUSE over io_uring (Linux 6.14)."; }
        string now = File.ReadAllText(Parameter);
        if (now.StartsWith('Y')) { return null; }
        try
        {
            File.WriteAllText(Parameter, "Y");
        }
        catch (Exception problem) when (problem is IOException or UnauthorizedAccessException)
        {
            return $"FUSE over io_uring is off: {problem.Message}";
        }
        if (was is null)
        {
            was = now;
            AppDomain.CurrentDomain.ProcessExit += (_, _) => File.WriteAllText(Parameter, was);
        }
        return null;
    }

    /// <summary>Switches it on, if that is possible, until the result is disposed of.</summary>
    /// <param name="missing">Why the kernel does not offer it, or null.</param>
    public static IDisposable OnForNow(out string? missing)
    {
        string? before = File.Exists(Parameter) ? File.ReadAllText(Parameter) : null;
        missing = TurnOn();
        return new Restorer(missing is null ? before : null);
    }

    private sealed class Restorer(string? before) : IDisposable
    {
        public void Dispose()
        {
            if (before is not null) { File.WriteAllText(Parameter, before); }
        }
    }
}
