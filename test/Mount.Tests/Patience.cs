namespace Veneer.Mount.Tests;

/// <summary>For what becomes true a moment after the call that causes it has returned.</summary>
internal static class Patience
{
    /// <summary>Asserts again until it is true, for at most five seconds.</summary>
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
            catch (Xunit.Sdk.XunitException) when (waited.Elapsed < TimeSpan.FromSeconds(5)) { Thread.Sleep(1); }
        }
    }
}
