namespace Veneer.Overlay.Tests;

public sealed class OptionTableTests
{
    [Fact]
    public void No_name_is_given_to_two_options() =>
        Assert.Equal(OptionTable.All.Count, OptionTable.All.DistinctBy(option => option.Name).Count());

    [Fact]
    public void Every_option_that_users_may_give_is_described_in_lines_that_fit()
    {
        string[] lines = OptionManual.Describe().Split('\n');

        Assert.All(lines, line => Assert.InRange(line.Length, 0, 80));
        string[] headings =
        [
            .. lines.Where(line => line.StartsWith("    ", StringComparison.Ordinal) && line[4] != ' ')
                .SelectMany(line => line.Trim().Split(", "))
                .Select(name => name.TrimEnd(',')),
        ];
        Assert.Equal(OptionTable.All.Where(option => option.IsShown).Select(option => option.Name + option.Value).Order(),
            headings.Order());
    }

    /// <summary>Each option that needs a value says so, or what is wrong with none.</summary>
    [Fact]
    public void An_option_whose_value_is_missing_is_refused_by_its_name()
    {
        foreach (MountOption option in OptionTable.All
            .Where(option => option.Value.StartsWith('=') && option.Name is not ("subtype" or "datadir+")))
        {
            string sentence = Assert.Throws<OverlayMountException>(() => new OptionParser().Add(option.Name)).Message;
            Assert.StartsWith($"{option.Name} needs a value: ", sentence, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void An_option_without_a_value_refuses_one()
    {
        foreach (MountOption option in OptionTable.All.Where(option => option.IsShown && option.Value.Length == 0))
        {
            string sentence = Assert.Throws<OverlayMountException>(() => new OptionParser().Add($"{option.Name}=1")).Message;
            Assert.Equal($"{option.Name}=1 is not understood: {option.Name} takes no value.", sentence);
        }
    }

    [Theory]
    [InlineData("upp", "upperdir=")]
    [InlineData("lower", "lowerdir=,lowerdir+=")]
    [InlineData("io_", "io_uring,io_uring=")]
    [InlineData("vol", "volatile")]
    [InlineData("squash", "")] // of others, and refused
    [InlineData("errors=", "errors=continue,errors=remount-ro,errors=shutdown")]
    [InlineData("io_uring=r", "io_uring=require")]
    [InlineData("upperdir=/", "")]
    [InlineData("frob=", "")]
    public void A_list_is_completed(string list, string expected)
    {
        Assert.Equal(expected.Split(',', StringSplitOptions.RemoveEmptyEntries), OptionTable.Complete(list));
        const string before = @"lowerdir=/a\,inuse=/,ro,";
        Assert.Equal(expected.Split(',', StringSplitOptions.RemoveEmptyEntries).Select(option => before + option),
            OptionTable.Complete(before + list));
    }

    [Fact]
    public void Each_option_that_the_manual_shows_is_among_the_completions() =>
        Assert.Equal(OptionTable.All.Where(option => option.IsShown).Select(option => option.Name).Order(),
            OptionTable.Complete("").Select(option => option.TrimEnd('=')).Distinct().Order());

    [Fact]
    public void Each_word_that_a_value_may_be_is_accepted_or_not_supported()
    {
        foreach (MountOption option in OptionTable.All)
        {
            foreach (string word in option.Choices)
            {
                try
                {
                    new OptionParser().Add($"{option.Name}={word}");
                }
                catch (OverlayMountException problem)
                {
                    Assert.Contains(" is not supported yet", problem.Message, StringComparison.Ordinal);
                }
            }
        }
    }

    [Fact]
    public void The_manual_names_the_options_of_others_too()
    {
        string text = OptionManual.DescribeOthers();

        Assert.All(text.Split('\n'), line => Assert.InRange(line.Length, 0, 80));
        Assert.Subset(text.Split((char[])[' ', ',', '\n'], StringSplitOptions.RemoveEmptyEntries).ToHashSet(),
            OptionTable.All.Where(option => !option.IsShown).Select(option => option.Name).ToHashSet());
    }
}
