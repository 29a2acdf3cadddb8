using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;

namespace Veneer.Linux.Tests;

/// <summary>Runs a test on a thread that may be changed for good: its identity, its umask, its mounts.</summary>
internal static partial class OwnThread
{
    private const int NewMountNamespace = 0x20000;
    private const MountFlags RecursivelyPrivate = (MountFlags)(0x4000 | (1 << 18));

    [LibraryImport("libc", SetLastError = true)]
    private static partial int unshare(int flags);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int prctl(int option, nuint a, nuint b, nuint c, nuint d);

    /// <summary>The calling thread's PR_SET_SECUREBITS.</summary>
    public static int SetSecureBits(int bits) => prctl(28, (nuint)bits, 0, 0, 0);

    /// <summary>The calling thread's PR_GET_SECUREBITS.</summary>
    public static int SecureBits => prctl(27, 0, 0, 0, 0);

    public static void Run(Action body)
    {
        ExceptionDispatchInfo? failure = null;
        var thread = new Thread(() =>
        {
            try
            {
                body();
            }
#pragma warning disable CA1031 // thrown again below
            catch (Exception exception)
            {
                failure = ExceptionDispatchInfo.Capture(exception);
            }
#pragma warning restore CA1031
        });
        thread.Start();
        Assert.True(thread.Join(60_000), "The thread does not end");
        failure?.Throw();
    }

    /// <summary>As root, in a mount namespace of the thread's own: nothing is seen outside, and nothing stays.</summary>
    public static void RunWithPrivateMounts(Action body)
    {
        Needs.Root();
        Run(() =>
        {
            Needs.That(unshare(NewMountNamespace) == 0, "mount namespaces");
            Assert.Equal(Errno.None, Libc.Mount("none\0"u8, "/\0"u8, default, RecursivelyPrivate, default));
            body();
        });
    }
}
