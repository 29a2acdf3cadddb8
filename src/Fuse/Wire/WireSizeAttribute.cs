namespace Veneer.Fuse.Wire;

/// <summary>States the size of a structure on the wire. A test compares it with the kernel's header.</summary>
[AttributeUsage(AttributeTargets.Struct)]
public sealed class WireSizeAttribute(int size) : Attribute
{
    /// <summary>The size in bytes.</summary>
    public int Size { get; } = size;
}
