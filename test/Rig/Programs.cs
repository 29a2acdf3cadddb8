using System.Diagnostics;

namespace Veneer.Rig;

/// <summary>Starts programs beside <see cref="Actor">actors</see>, which have copies of this process's descriptors.</summary>
/// <remarks>
/// <see cref="Process.Start(ProcessStartInfo)"/> waits until a pipe is closed that the new program closes as it begins. An actor that
/// copies the descriptors at that moment would have the pipe open for as long as it lives: the start would not return, and as the
/// runtime holds a lock meanwhile, no other program would be started, or seen to end.
/// </remarks>
public static class Programs
{
    private static readonly Lock starting = new();

    /// <summary>Starts a program.</summary>
    public static Process Start(ProcessStartInfo start)
    {
        lock (starting) { return Process.Start(start)!; }
    }

    /// <summary>Starts a program whose input is redirected and empty.</summary>
    public static Process StartWithoutInput(ProcessStartInfo start)
    {
        lock (starting)
        {
            Process process = Process.Start(start)!;
            process.StandardInput.Close();
            return process;
        }
    }

    /// <inheritdoc cref="Start(ProcessStartInfo)"/>
    public static Process Start(string program, params string[] arguments) => Start(new ProcessStartInfo(program, arguments));

    /// <summary>Does something while no program is being started.</summary>
    internal static void Without(Action action)
    {
        lock (starting) { action(); }
    }
}
