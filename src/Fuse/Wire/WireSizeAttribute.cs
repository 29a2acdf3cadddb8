namespace Veneer.Fuse.Wire;

/// <summary>How many bytes the structure has on the wire; a test compares it with the kernel's header.</summary>
[AttributeUsage(AttributeTargets.Struct)]
public sealed class WireSizeAttribute(int size) : Attribute
{
    /// <summary>Size in bytes.</summary>
    public int Size { get; } = size;
}
