using Veneer.Linux;

namespace Veneer.Rig;

/// <summary>
/// A path that can be extended with <c>/</c> and given to .NET as a string. It may hold any byte, see <see cref="PathText"/>.
/// </summary>
public readonly record struct FilePath(string Text)
{
    public static FilePath operator /(FilePath directory, string name) =>
        new(name is "." or "" ? directory.Text : $"{directory.Text}/{name}");

    public static FilePath operator /(FilePath directory, ReadOnlySpan<byte> name) => directory / PathText.Decode(name);

    public static implicit operator string(FilePath path) => path.Text;

    public static implicit operator FilePath(string path) => new(path);

    /// <summary>The bytes that a system call takes, with their NUL.</summary>
    public byte[] Bytes => PathText.Encode(Text);

    public string Name => Text[(Text.LastIndexOf('/') + 1)..];

    public FilePath Parent => new(Text[..Text.LastIndexOf('/')]);

    public bool Exists => !Libc.StatAt(Libc.AtCwd, Bytes, StatxMask.Basic, out _).IsError;

    /// <summary>The names in this directory, sorted; empty when there is no such directory.</summary>
    public string[] Entries() => Exists ? [.. Sys.ReadDirectory(this).Select(entry => entry.Name).Order(StringComparer.Ordinal)] : [];

    public override string ToString() => Text;
}
