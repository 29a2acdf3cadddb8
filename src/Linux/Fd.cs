namespace Veneer.Linux;

/// <summary>Owns one file descriptor and closes it once. Hot code borrows <see cref="Value"/>.</summary>
/// <remarks>There is no finalizer: whoever opens a descriptor names its owner.</remarks>
public sealed class Fd : IDisposable
{
    private int value;

    /// <summary>Takes ownership of <paramref name="descriptor"/>.</summary>
    public Fd(int descriptor) => value = descriptor;

    /// <summary>The descriptor, or -1 once disposed.</summary>
    public int Value => Volatile.Read(ref value);

    /// <summary>Gives up ownership: the caller closes the returned descriptor.</summary>
    public int Release() => Interlocked.Exchange(ref value, -1);

    /// <inheritdoc/>
    public void Dispose()
    {
        int descriptor = Interlocked.Exchange(ref value, -1);
        if (descriptor >= 0) { Libc.Close(descriptor); }
    }
}
