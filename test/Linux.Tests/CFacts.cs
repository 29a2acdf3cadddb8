using System.Globalization;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;

namespace Veneer.Linux.Tests;

/// <summary>What we believe of the kernel's structures and constants, to be compared with what the C compiler says.</summary>
/// <remarks>All facts of one instance are printed by one program: it is compiled and run once, by the first comparison.</remarks>
internal sealed class CFacts(string prologue)
{
    private readonly List<(string Group, string Expression, long Managed)> facts = [];
    private long[]? answers;

    /// <summary>A constant.</summary>
    public CFacts Constant(string group, string expression, long managed)
    {
        facts.Add((group, expression, managed));
        return this;
    }

    /// <summary>Every member of an enum, or of a class of constants, whose names in C follow from the rule.</summary>
    /// <remarks>The rule gives null for what the headers do not have.</remarks>
    public CFacts Constants(Type type, Func<string, string?> nameInC)
    {
        foreach (FieldInfo field in type.GetFields(BindingFlags.Public | BindingFlags.Static).Where(field => field.IsLiteral))
        {
            if (nameInC(field.Name) is { } name)
            {
                object value = field.GetRawConstantValue()!;
                Constant(type.Name, name, value is ulong large ? (long)large : Convert.ToInt64(value, CultureInfo.InvariantCulture));
            }
        }
        return this;
    }

    /// <summary>A structure: its size, and the place and width of every field.</summary>
    /// <param name="type">The managed structure.</param>
    /// <param name="nameInC">Such as <c>struct statx</c>.</param>
    /// <param name="fieldsInC">
    /// The names in C of all fields, private ones included, in the order of the managed fields; "-" for a field that C does not name.
    /// </param>
    /// <param name="size">What the size is in C, when it is not that of the structure.</param>
    public CFacts Structure(Type type, string nameInC, string fieldsInC, string? size = null)
    {
        string[] names = fieldsInC.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries);
        IReadOnlyList<Field> fields = Layout.Of(type);
        Assert.True(names.Length == fields.Count,
            $"{type.Name} has {fields.Count} fields, and {names.Length} names were given: "
            + string.Join(' ', fields.Select(field => field.Name)));
        Constant(type.Name, size ?? $"sizeof({nameInC})", Layout.SizeOf(type));
        foreach ((Field field, string name) in fields.Zip(names))
        {
            if (name == "-") { continue; }
            Constant(type.Name, $"offsetof({nameInC}, {name})", field.Offset);
            Constant(type.Name, $"sizeof((({nameInC} *)0)->{name})", field.Size);
        }
        return this;
    }

    /// <summary>The groups, each of which is the name of a managed type unless it was given.</summary>
    public IEnumerable<string> Groups => facts.Select(fact => fact.Group).Distinct(StringComparer.Ordinal);

    /// <summary>Fails when the compiler disagrees, and names every fact on which it does.</summary>
    public void AssertAgree(string group)
    {
        lock (facts) { answers ??= Ask(); }
        var wrong = new List<string>();
        int compared = 0;
        foreach (((string factGroup, string expression, long managed), long answer) in facts.Zip(answers))
        {
            if (factGroup != group) { continue; }
            compared++;
            if (managed != answer) { wrong.Add($"{expression} is {answer} (0x{answer:x}) in C, and {managed} (0x{managed:x}) here"); }
        }
        Assert.True(compared > 0, $"There is no fact about {group}");
        Assert.True(wrong.Count == 0, string.Join('\n', wrong));
    }

    private long[] Ask()
    {
        var program = new StringBuilder(prologue).Append("\n#include <stdio.h>\n#include <stddef.h>\nint main(void)\n{\n");
        foreach ((_, string expression, _) in facts)
        {
            program.Append(CultureInfo.InvariantCulture, $"    printf(\"%lld\\n\", (long long)({expression}));\n");
        }
        program.Append("    return 0;\n}\n");

        string directory = Directory.CreateTempSubdirectory("veneer-abi-").FullName;
        try
        {
            File.WriteAllText(directory + "/facts.c", program.ToString());
            Command.Run("gcc", "-w", "-o", directory + "/facts", directory + "/facts.c");
            string[] lines = Command.Run(directory + "/facts").Split('\n', StringSplitOptions.RemoveEmptyEntries);
            return [.. lines.Select(line => long.Parse(line, CultureInfo.InvariantCulture))];
        }
        finally
        {
            Directory.Delete(directory, recursive: true);
        }
    }
}

/// <summary>A field of a structure, as the runtime has laid it out.</summary>
internal readonly record struct Field(string Name, int Offset, int Size);

/// <summary>How the runtime lays out a structure, found without the marshaller, whose layout may be another one.</summary>
internal static class Layout
{
    private static readonly MethodInfo sizeOf = typeof(Unsafe).GetMethod(nameof(Unsafe.SizeOf))!;
    private static readonly MethodInfo fill = typeof(Layout).GetMethod(nameof(Fill), BindingFlags.NonPublic | BindingFlags.Static)!;
    private static readonly MethodInfo bytesOf = typeof(Layout).GetMethod(nameof(BytesOf), BindingFlags.NonPublic | BindingFlags.Static)!;

    /// <summary>Size in bytes.</summary>
    public static int SizeOf(Type type) => (int)sizeOf.MakeGenericMethod(type).Invoke(null, null)!;

    /// <summary>All instance fields in the order of their declaration.</summary>
    /// <remarks>Every byte of a value is given its own offset as its value; what a field holds then tells where it is.</remarks>
    public static IReadOnlyList<Field> Of(Type type)
    {
        object low = fill.MakeGenericMethod(type).Invoke(null, [0])!;
        object high = fill.MakeGenericMethod(type).Invoke(null, [8])!;
        return [.. type.GetFields(BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic)
            .OrderBy(field => field.MetadataToken)
            .Select(field =>
            {
                byte[] lowBytes = Bytes(field, low), highBytes = Bytes(field, high);
                return new Field(field.Name, lowBytes[0] | (highBytes[0] << 8), lowBytes.Length);
            })];
    }

    private static byte[] Bytes(FieldInfo field, object owner)
    {
        object value = field.GetValue(owner)!;
        if (value is Pointer) { return BitConverter.GetBytes(PointerValue(value)); }
        return (byte[])bytesOf.MakeGenericMethod(field.FieldType).Invoke(null, [value])!;
    }

    private static unsafe long PointerValue(object pointer) => (long)Pointer.Unbox(pointer);

    private static object Fill<T>(int shift) where T : unmanaged
    {
        byte[] pattern = new byte[Unsafe.SizeOf<T>()];
        for (int i = 0; i < pattern.Length; i++) { pattern[i] = (byte)(i >> shift); }
        return MemoryMarshal.Read<T>(pattern);
    }

    private static byte[] BytesOf<T>(object value) where T : unmanaged
    {
        T copy = (T)value;
        return MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in copy)).ToArray();
    }
}
