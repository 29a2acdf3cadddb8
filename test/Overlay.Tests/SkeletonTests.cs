namespace Veneer.Overlay.Tests;

public sealed class SkeletonTests
{
    [Fact]
    public void Runs_on_a_little_endian_machine()
    {
        Assert.True(BitConverter.IsLittleEndian);
    }
}
