using System.Text;
using static Veneer.Linux.Tests.TemporaryDirectory;

namespace Veneer.Linux.Tests;

/// <summary>Extended attributes, through every way to name their owner.</summary>
public sealed class XattrTests : IDisposable
{
    private readonly TemporaryDirectory directory = new();

    public XattrTests()
    {
        directory.Write("file", "x");
        Directory.CreateDirectory(directory.Path + "/sub");
        File.CreateSymbolicLink(directory.Path + "/link", "file");
    }

    public void Dispose() => directory.Dispose();

    private static void Set_get_list_and_remove(int descriptor, byte[] name, string attribute)
    {
        byte[] key = Name(attribute);
        byte[] buffer = new byte[256];

        Assert.Equal(Errno.ENODATA, Libc.GetXattrAt(descriptor, name, key, buffer, out _));
        Assert.Equal(Errno.ENODATA, Libc.SetXattrAt(descriptor, name, key, "value"u8, XattrFlags.Replace));
        Assert.Equal(Errno.None, Libc.SetXattrAt(descriptor, name, key, "value"u8, XattrFlags.Create));
        Assert.Equal(Errno.EEXIST, Libc.SetXattrAt(descriptor, name, key, "value"u8, XattrFlags.Create));

        Assert.Equal(Errno.None, Libc.GetXattrAt(descriptor, name, key, default, out int size));
        Assert.Equal(5, size);
        Assert.Equal(Errno.ERANGE, Libc.GetXattrAt(descriptor, name, key, buffer.AsSpan(0, 4), out _));
        Assert.Equal(Errno.None, Libc.GetXattrAt(descriptor, name, key, buffer, out size));
        Assert.Equal("value"u8, buffer.AsSpan(0, size));

        Assert.Equal(Errno.None, Libc.ListXattrAt(descriptor, name, default, out int listSize));
        Assert.InRange(listSize, key.Length, 256);
        Assert.Equal(Errno.ERANGE, Libc.ListXattrAt(descriptor, name, buffer.AsSpan(0, 3), out _));
        Assert.Equal(Errno.None, Libc.ListXattrAt(descriptor, name, buffer, out size));
        Assert.Equal(listSize, size);
        Assert.Contains(attribute, Encoding.UTF8.GetString(buffer, 0, size).Split('\0'));

        Assert.Equal(Errno.None, Libc.SetXattrAt(descriptor, name, key, default, XattrFlags.Replace));
        Assert.Equal(Errno.None, Libc.GetXattrAt(descriptor, name, key, buffer, out size));
        Assert.Equal(0, size);

        Assert.Equal(Errno.None, Libc.RemoveXattrAt(descriptor, name, key));
        Errno gone = Libc.RemoveXattrAt(descriptor, name, key);
        Assert.Equal(Errno.ENODATA, gone);
        Assert.True(gone.IsNoXattr);
    }

    [Theory]
    [InlineData("file")]
    [InlineData("sub")]
    public void Attributes_of_a_name(string name) => Set_get_list_and_remove(directory.Descriptor, Name(name), "user.test");

    [Theory]
    [InlineData("file", OpenFlags.ReadOnly)]
    [InlineData("file", OpenFlags.Path)]
    [InlineData("sub", OpenFlags.ReadOnly | OpenFlags.Directory)]
    [InlineData("sub", OpenFlags.Path)]
    public void Attributes_of_a_descriptor(string name, OpenFlags flags)
    {
        using Fd opened = directory.Open(name, flags);

        Set_get_list_and_remove(opened.Value, Libc.Self.ToArray(), "user.test");
    }

    [Theory]
    [InlineData("file")]
    [InlineData("sub")]
    [InlineData("link")]
    public void Trusted_attributes_are_for_every_kind_of_object(string name)
    {
        Needs.Root();
        Set_get_list_and_remove(directory.Descriptor, Name(name), "trusted.test");
        using Fd opened = directory.Open(name, OpenFlags.Path | OpenFlags.NoFollow);
        Set_get_list_and_remove(opened.Value, Libc.Self.ToArray(), "trusted.test");
    }

    [Fact]
    public void A_user_attribute_of_a_symbolic_link_is_refused_and_its_target_left_alone()
    {
        byte[] buffer = new byte[16];
        using Fd link = directory.Open("link", OpenFlags.Path | OpenFlags.NoFollow);

        Assert.Equal(Errno.EPERM, Libc.SetXattrAt(directory.Descriptor, "link\0"u8, "user.test\0"u8, "v"u8, XattrFlags.None));
        Assert.Equal(Errno.EPERM, Libc.SetXattrAt(link.Value, Libc.Self, "user.test\0"u8, "v"u8, XattrFlags.None));

        Assert.Equal(Errno.ENODATA, Libc.GetXattrAt(directory.Descriptor, "file\0"u8, "user.test\0"u8, buffer, out _));
    }

    [Fact]
    public void Attributes_of_a_link_and_of_its_target_are_two()
    {
        Needs.Root();
        byte[] buffer = new byte[16];

        Assert.Equal(Errno.None, Libc.SetXattrAt(directory.Descriptor, "link\0"u8, "trusted.test\0"u8, "link"u8, XattrFlags.None));
        Assert.Equal(Errno.ENODATA, Libc.GetXattrAt(directory.Descriptor, "file\0"u8, "trusted.test\0"u8, buffer, out _));
    }

    [Fact]
    public void Names_without_a_filesystem_behind_them_are_errors()
    {
        byte[] buffer = new byte[16];

        Assert.Equal(Errno.ENOENT, Libc.GetXattrAt(directory.Descriptor, "none\0"u8, "user.test\0"u8, buffer, out _));
        Assert.Equal(Errno.ENAMETOOLONG, Libc.GetXattrAt(directory.Descriptor, Name(new string('n', 256)), "user.test\0"u8, buffer, out _));
        Assert.Equal(Errno.EOPNOTSUPP, Libc.GetXattrAt(directory.Descriptor, "file\0"u8, "unknown.test\0"u8, buffer, out _));
        Assert.True(Errno.EOPNOTSUPP.IsNoXattr);
    }

    [Fact]
    public void A_name_of_any_length_is_refused_on_the_old_path_too()
    {
        // What kernels before 6.13 are asked: /proc/self/fd/N/NAME has room for the longest name only.
        byte[] buffer = new byte[16];
        Assert.Equal(Errno.None,
            OnOldKernels(() => Libc.SetXattrAt(directory.Descriptor, "file\0"u8, "user.test\0"u8, "v"u8, XattrFlags.None)));
        foreach (int length in new[] { 255, 256, 300, 4096 })
        {
            byte[] name = Name(new string('n', length));
            Errno expected = length > 255 ? Errno.ENAMETOOLONG : Errno.ENOENT;
            Assert.Equal(expected, OnOldKernels(() => Libc.GetXattrAt(directory.Descriptor, name, "user.test\0"u8, buffer, out _)));
            Assert.Equal(expected,
                OnOldKernels(() => Libc.SetXattrAt(directory.Descriptor, name, "user.test\0"u8, "v"u8, XattrFlags.None)));
            Assert.Equal(expected, OnOldKernels(() => Libc.ListXattrAt(directory.Descriptor, name, buffer, out _)));
            Assert.Equal(expected, OnOldKernels(() => Libc.RemoveXattrAt(directory.Descriptor, name, "user.test\0"u8)));
        }
    }

    [Theory]
    [InlineData("file", "user.test")]
    [InlineData("sub", "user.test")]
    [InlineData("link", "trusted.test")]
    public void Old_kernels_are_served_too(string name, string attribute)
    {
        if (name == "link") { Needs.Root(); }
        OnOldKernels(() =>
        {
            Set_get_list_and_remove(directory.Descriptor, Name(name), attribute);
            return Errno.None;
        });
    }

    /// <summary>Does as if getxattrat and its sisters were not there, as before Linux 6.13.</summary>
    private static Errno OnOldKernels(Func<Errno> body)
    {
        System.Reflection.FieldInfo missing = typeof(Libc)
            .GetField("xattrAtMissing", System.Reflection.BindingFlags.NonPublic | System.Reflection.BindingFlags.Static)!;
        missing.SetValue(null, true);
        try
        {
            return body();
        }
        finally
        {
            missing.SetValue(null, false);
        }
    }
}
