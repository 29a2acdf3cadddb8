namespace Veneer.Linux.Tests;

/// <summary>What a process in another user namespace says of owners.</summary>
public sealed class OwnerWitnessTests : IDisposable
{
    private readonly TemporaryDirectory directory = new();

    public void Dispose() => directory.Dispose();

    [Fact]
    public void It_knows_the_two_ids_that_it_was_started_for()
    {
        Needs.Root();
        Assert.Equal(Errno.None, OwnerWitness.Start(1234, 5678, out OwnerWitness? witness));
        using (witness)
        {
            (string Name, uint Uid, uint Gid, KnownIds Expected)[] cases =
            [
                ("both", 1234, 5678, KnownIds.Owner | KnownIds.Group), ("owner", 1234, 0, KnownIds.Owner),
                ("group", 0, 5678, KnownIds.Group), ("none", 5678, 1234, KnownIds.None), ("root", 0, 0, KnownIds.None),
                ("nobody", 65534, 65534, KnownIds.None),
            ];
            foreach ((string name, uint uid, uint gid, KnownIds expected) in cases)
            {
                byte[] path = [.. System.Text.Encoding.ASCII.GetBytes(name), 0];
                Assert.Equal(Errno.None, Libc.SymbolicLinkAt("nowhere\0"u8, directory.Descriptor, path));
                Assert.Equal(Errno.None, Libc.ChangeOwnerAt(directory.Descriptor, path, uid, gid));
                Assert.Equal(Errno.None,
                    Libc.OpenAt(directory.Descriptor, path, OpenFlags.Path | OpenFlags.NoFollow, 0, ResolveFlags.None, out int descriptor));
                using var opened = new Fd(descriptor);

                Assert.Equal((Errno.None, expected), (witness!.Ask(descriptor, out KnownIds known), known));
            }
        }
    }

    [Fact]
    public void It_ends_with_its_owner_and_keeps_nothing_open()
    {
        Needs.Root();
        Assert.Equal(Errno.None,
            Libc.OpenAt(directory.Descriptor, ".\0"u8, OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None, out int held));
        using var opened = new Fd(held);
        string[] before = Children();

        Assert.Equal(Errno.None, OwnerWitness.Start(1234, 5678, out OwnerWitness? witness));
        Assert.Equal(Errno.None, witness!.Ask(held, out _));
        string child = Assert.Single(Children().Except(before));

        Assert.Equal(["0"], Directory.GetFileSystemEntries($"/proc/{child}/fd").Select(Path.GetFileName));
        witness.Dispose();
        Assert.False(Directory.Exists($"/proc/{child}"));
    }

    private static string[] Children() =>
    [
        .. Directory.GetDirectories("/proc/self/task")
            .SelectMany(task => File.ReadAllText(task + "/children").Split(' ', StringSplitOptions.RemoveEmptyEntries)),
    ];
}
