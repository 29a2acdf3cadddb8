namespace Veneer.Rig;

/// <summary>C# has no octal numbers, and permissions are read in no other way.</summary>
public static class Octal
{
    /// <summary>The number whose octal digits these are: <c>Oct(4755)</c> is <c>rwsr-xr-x</c>.</summary>
    public static uint Oct(int digits)
    {
        uint value = 0;
        for (int place = 0; digits > 0; place += 3, digits /= 10) { value |= (uint)(digits % 10) << place; }
        return value;
    }

    /// <summary>The octal digits of permissions.</summary>
    public static string Text(uint mode) => Convert.ToString(mode & 0xFFF, 8).PadLeft(4, '0');
}
