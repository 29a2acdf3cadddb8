using System.Text;
using Veneer.Overlay.Format;

namespace Veneer.Overlay.Tests.Format;

/// <summary>What a record of another program, or a shorter one, may lack. Round trips are in <see cref="FormatTests"/>.</summary>
public sealed class OwnerRecordTests
{
    private const string Least = "version=1\nrole=upper\npid=7\npidns=8\nmntns=9\nsince=10\nmount=11";

    private static OwnerRecord? Parse(string record) => OwnerRecord.Parse(Encoding.UTF8.GetBytes(record));

    [Fact]
    public void What_is_not_told_is_empty()
    {
        OwnerRecord? record = Parse(Least);

        Assert.Equal(
            new OwnerRecord
            {
                Role = "upper",
                Boot = "",
                Pid = 7,
                PidNamespace = 8,
                MountNamespace = 9,
                Since = DateTimeOffset.FromUnixTimeSeconds(10),
                MountId = 11,
                Device = "",
                MountPoint = "",
                Command = "",
            },
            record);
    }

    [Theory]
    [InlineData("0", true)]
    [InlineData("253402300799", true)] // the last second of the year 9999
    [InlineData("253402300800", false)]
    [InlineData("-1", false)]
    public void A_time_must_be_one_that_can_be_shown(string since, bool valid) =>
        Assert.Equal(valid, Parse(Least.Replace("since=10", "since=" + since, StringComparison.Ordinal)) is not null);

    [Theory]
    [InlineData(@"a\\b", @"a\b")]
    [InlineData(@"a\nb", "a\nb")]
    [InlineData(@"a\", @"a\")] // cut off behind the backslash
    [InlineData(@"a\x", "ax")]
    [InlineData("a=b", "a=b")]
    [InlineData("", "")]
    public void An_escaped_value_is_read(string value, string read) =>
        Assert.Equal(read, Parse(Least + "\ncommand=" + value)!.Command);

    [Theory]
    [InlineData("=")]
    [InlineData("=x")]
    [InlineData("x")]
    [InlineData("unknown=1")]
    public void A_line_that_says_nothing_is_passed_over(string line) => Assert.NotNull(Parse(line + "\n" + Least));

    [Theory]
    [InlineData(96, 96)]
    [InlineData(97, 99)] // 96 and "..."
    public void Only_a_command_that_is_too_long_is_cut(int length, int left)
    {
        OwnerRecord record = Parse(Least)! with { Command = new string('x', length) };

        Assert.Equal(left, OwnerRecord.Parse(record.ToBytes())!.Command.Length);
    }
}
