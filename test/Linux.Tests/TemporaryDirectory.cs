using System.Text;

namespace Veneer.Linux.Tests;

/// <summary>A directory for one test, with a descriptor.</summary>
internal sealed class TemporaryDirectory : IDisposable
{
    private readonly Fd fd;

    public TemporaryDirectory()
    {
        Path = Directory.CreateTempSubdirectory("veneer-linux-").FullName;
        Assert.Equal(Errno.None,
            Libc.OpenAt(Libc.AtCwd, Name(Path), OpenFlags.ReadOnly | OpenFlags.Directory, 0, ResolveFlags.None, out int descriptor));
        fd = new Fd(descriptor);
    }

    public string Path { get; }

    public int Descriptor => fd.Value;

    /// <summary>The bytes of a name, with a NUL.</summary>
    public static byte[] Name(string text) => [.. Encoding.UTF8.GetBytes(text), 0];

    /// <summary>Writes a file.</summary>
    public void Write(string name, string content) => File.WriteAllText(Path + "/" + name, content);

    /// <summary>Reads a file.</summary>
    public string Read(string name) => File.ReadAllText(Path + "/" + name);

    /// <summary>Opens a name in the directory; the test disposes it.</summary>
    public Fd Open(string name, OpenFlags flags, uint mode = 0)
    {
        Assert.Equal(Errno.None, Libc.OpenAt(Descriptor, Name(name), flags, mode, ResolveFlags.None, out int descriptor));
        return new Fd(descriptor);
    }

    /// <summary>What statx(2) says of a name.</summary>
    public Statx Stat(string name)
    {
        Assert.Equal(Errno.None, Libc.StatAt(Descriptor, Name(name), StatxMask.Basic, out Statx stat));
        return stat;
    }

    /// <summary>Whether there is such a name; a symbolic link that leads nowhere counts.</summary>
    public bool Has(string name) => !Libc.StatAt(Descriptor, Name(name), StatxMask.Basic, out _).IsError;

    public void Dispose()
    {
        fd.Dispose();
        Directory.Delete(Path, recursive: true);
    }
}
