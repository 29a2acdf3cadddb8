using System.Reflection;
using System.Text.RegularExpressions;
using Veneer.Fuse.Locking;
using Veneer.Overlay.Locking;
using Veneer.Rig;

namespace Veneer.Overlay.Tests;

/// <summary>The chart of locks in ARCHITECTURE.md, the classes of the locks, and the methods that need one.</summary>
public sealed partial class LockChartTests
{
    private static LockClass[] Classes(Type owner) =>
        [.. owner.GetFields(BindingFlags.Static | BindingFlags.Public).Select(field => (LockClass)field.GetValue(null)!)];

    [Fact]
    public void The_chart_says_what_is_checked()
    {
        LockClass[] classes = [.. Classes(typeof(OverlayLocks)).Concat(Classes(typeof(FuseLocks))).OrderBy(one => one.Rank)];
        var chart = new LockChart(Repository.Root);

        Assert.Equal(classes.Select(one => $"{one.Name}: {WhatMayBeTakenUnder(one)}"), chart.Rows);
        Assert.Equal(
            from one in classes
            from other in classes
            where one.MayBeHeldBefore(other, isSameLock: false)
            select $"{one} > {other}",
            chart.Pairs);
        Assert.Equal(classes.Length, classes.Select(one => one.Rank).Distinct().Count());
        Assert.All(classes, one => Assert.InRange(one.Rank, 0, LockClass.MaxRank - 1));
    }

    private static string WhatMayBeTakenUnder(LockClass held) =>
        held.IsNested ? "that of a child, all below"
            : !held.IsLeaf ? "all below"
            : held.Inner.Count == 0 ? "nothing" : string.Join(", ", held.Inner);

    /// <summary>By the text, since a release build has no checks.</summary>
    [Fact]
    public void A_method_that_needs_a_lock_checks_that_it_is_held()
    {
        Method[] methods = [.. Repository.SourcesIn("src/Fuse").Concat(Repository.SourcesIn("src/Overlay")).SelectMany(MethodsOf)];
        string[] faults =
        [
            .. from method in methods
               where !method.Checks
               let reason = method.IsLocked ? "its name says that it needs a lock"
                   : method.NeedsLock ? "its comment says that its caller holds a lock"
                   : method.IsProtected ? "the comment of its class says that its callers hold a lock"
                   : null
               where reason is not null
               select $"{method} does not begin with a check, and {reason}",
            .. from method in methods
               where method is { NeedsLock: true, IsLocked: false, IsConstructor: false, NeedsLockSometimes: false }
               select $"{method} needs a lock, and its name does not end in Locked",
        ];

        Assert.InRange(methods.Count(method => method.IsLocked), 80, int.MaxValue);
        Assert.InRange(methods.Count(method => method.NeedsLock), 40, int.MaxValue);
        Assert.InRange(methods.Count(method => method.IsProtected), 40, int.MaxValue);
        Assert.True(faults.Length == 0, string.Join("\n", faults));
    }

    /// <summary>A method or a constructor, as its source shows it.</summary>
    /// <param name="Type">The outermost type that has it.</param>
    /// <param name="TypeComment">The documentation of that type.</param>
    /// <param name="Declaration">The first line.</param>
    /// <param name="Name">The name.</param>
    /// <param name="Comment">The documentation.</param>
    /// <param name="Checks">Whether the first statement checks that a lock is held.</param>
    private sealed record Method(string Type, string TypeComment, string Declaration, string Name, string Comment, bool Checks)
    {
        public bool IsLocked => Name.EndsWith("Locked", StringComparison.Ordinal) && !IsCheck;

        public bool IsCheck => Name.StartsWith("Assert", StringComparison.Ordinal);

        public bool IsConstructor => Name == Type;

        public bool NeedsLock => !IsCheck && CallerHolds().IsMatch(Comment);

        /// <summary>Whether the method needs the lock in some cases only, so that not every caller holds it.</summary>
        public bool NeedsLockSometimes => CallerHolds().Match(Comment).Value.Contains(" if ", StringComparison.Ordinal);

        /// <summary>Whether the class says for all its methods which lock they need.</summary>
        /// <remarks>Static methods know nothing of the object, and a method may say that it needs no lock.</remarks>
        public bool IsProtected =>
            !Declaration.Contains("private ", StringComparison.Ordinal) && !Declaration.Contains(" static ", StringComparison.Ordinal)
            && !IsConstructor && !IsCheck && (ProtectedBy().IsMatch(TypeComment) || CallerHolds().IsMatch(TypeComment))
            && !Comment.Contains("Caller holds no lock", StringComparison.Ordinal);

        public override string ToString() => $"{Type}.{Name}";
    }

    private static IEnumerable<Method> MethodsOf(string file)
    {
        string[] lines = File.ReadAllLines(Path.Combine(Repository.Root, file));
        string type = "", typeComment = "", comment = "";
        for (int i = 0; i < lines.Length; i++)
        {
            string line = lines[i];
            if (line.TrimStart() is ['/', '/', '/', .. string text])
            {
                comment += text;
                continue;
            }
            if (line.TrimStart().StartsWith('[')) { continue; } // an attribute, between the comment and the declaration
            if (TypeDeclaration().Match(line) is { Success: true } outer)
            {
                (type, typeComment) = (outer.Groups["name"].Value, comment);
            }
            else if (MethodDeclaration().Match(line) is { Success: true } method)
            {
                int end = Array.FindIndex(lines, i, one => one == "    {" || one.Length == 0 || one.EndsWith(';'));
                bool checks = end >= 0 && lines[end] == "    {" && Check().IsMatch(lines[end + 1]);
                yield return new Method(type, typeComment, line, method.Groups["name"].Value, comment, checks);
            }
            comment = "";
        }
    }

    [GeneratedRegex(@"^(\w+ )*(class|struct|record|interface|enum) (struct |class )?(?<name>\w+)",
        RegexOptions.ExplicitCapture | RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1000)]
    private static partial Regex TypeDeclaration();

    [GeneratedRegex(
        @"^    (public|internal|private|protected) (?![\w ]*\b(class|struct|record|delegate) )"
        + @"([\w ]*\([^()]*\)\S* )?[^=(]*?\b(?<name>\w+)(<[^(]*>)?\(",
        RegexOptions.ExplicitCapture | RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1000)]
    private static partial Regex MethodDeclaration();

    [GeneratedRegex(@"^        ([\w.?]+\.)?Assert\w+\(",
        RegexOptions.ExplicitCapture | RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1000)]
    private static partial Regex Check();

    /// <summary>A sentence about a lock that a caller holds, and not one about the locks that it does not hold.</summary>
    [GeneratedRegex(@"\b[Cc]allers? holds? (?!no |neither )[^.]*",
        RegexOptions.ExplicitCapture | RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1000)]
    private static partial Regex CallerHolds();

    [GeneratedRegex(@"\bProtected by\b",
        RegexOptions.ExplicitCapture | RegexOptions.CultureInvariant, matchTimeoutMilliseconds: 1000)]
    private static partial Regex ProtectedBy();
}
