using Veneer.Linux;
using Veneer.Overlay.Control;

namespace Veneer.Overlay.Tests;

public sealed class ServerProcessTests
{
    [Theory]
    [InlineData(1, 0UL, true, "1 0")]
    [InlineData(4194304, 987654321UL, false, "4194304 987654321 lower")]
    [InlineData(int.MaxValue, ulong.MaxValue, false, "2147483647 18446744073709551615 lower")]
    public void What_is_written_is_read(int pid, ulong started, bool hasUpper, string value)
    {
        var server = new ServerProcess(pid, started, hasUpper);

        byte[] written = server.Write();

        Assert.Equal(value, PathText.Decode(written));
        Assert.InRange(written.Length, 0, ServerProcess.MaxSize);
        Assert.Equal(server, ServerProcess.Parse(written));
    }

    [Theory]
    [InlineData("")]
    [InlineData("1")]
    [InlineData("1 ")]
    [InlineData("-1 2")]
    [InlineData("1 2 upper")]
    [InlineData("1 2 lower more")]
    [InlineData("2147483648 1")]
    public void Anything_else_is_not(string value) => Assert.Null(ServerProcess.Parse(PathText.Encode(value).AsSpan()[..^1]));

    [Fact]
    public void A_recycled_pid_is_not_the_server()
    {
        var server = ServerProcess.OfThisProcess(hasUpper: true);

        Assert.True(server.IsRunning);
        Assert.False((server with { Started = server.Started + 1 }).IsRunning);
        Assert.False((server with { Pid = int.MaxValue }).IsRunning); // above the largest pid there may be
    }
}
