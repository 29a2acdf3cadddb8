namespace Veneer.Mount.Tests;

/// <summary>For what becomes true a moment after the call that causes it has returned.</summary>
internal static class Patience
{
    /// <summary>Far longer than anything takes that is waited for here, also on a busy machine.</summary>
    private static readonly TimeSpan limit = TimeSpan.FromSeconds(20);

    /// <summary>Asserts again until it is true, or fails with the assertion when the time is over.</summary>
    public static void Eventually(Action assertion)
    {
        var waited = System.Diagnostics.Stopwatch.StartNew();
        while (true)
        {
            try
            {
                assertion();
                return;
            }
            catch (Xunit.Sdk.XunitException) when (waited.Elapsed < limit) { Thread.Sleep(1); }
        }
    }
}
