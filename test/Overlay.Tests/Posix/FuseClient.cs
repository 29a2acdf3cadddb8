using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Text;
using Veneer.Fuse.Tests;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Overlay.Tests.Posix;

/// <summary>An entry of a directory as READDIR or READDIRPLUS tells it.</summary>
/// <param name="Ino">The inode number that readdir(3) shows.</param>
/// <param name="Type">The type bits of the mode.</param>
/// <param name="Attr">The attributes of READDIRPLUS; null with READDIR.</param>
internal sealed record Listed(ulong Ino, uint Type, Attr? Attr);

/// <summary>
/// Asks a server as the kernel does: by nodeids, which are looked up and forgotten. Root is the caller unless told otherwise.
/// </summary>
internal sealed class FuseClient(FakeKernel kernel)
{
    /// <summary>Larger answers come through a pipe, which a socket passes on in pieces.</summary>
    private const int MaxRead = 1 << 13;

    private readonly Dictionary<ulong, ulong> lookups = [];
    private readonly Dictionary<ulong, int> pinned = [];

    private static byte[] Name(string name) => [.. Encoding.UTF8.GetBytes(name), 0];

    private Answer Call(Opcode opcode, ulong node, (uint Uid, uint Gid) caller, params ReadOnlySpan<byte[]> body)
    {
        ulong unique = kernel.NextUnique();
        byte[] packet = FakeKernel.Packet(unique, opcode, node, body);
        InHeader header = MemoryMarshal.Read<InHeader>(packet);
        (header.Uid, header.Gid) = caller;
        MemoryMarshal.Write(packet, header);
        kernel.SendRaw(packet);
        while (true)
        {
            ReadOnlySpan<byte> message = kernel.ReceiveRaw();
            if (message.IsEmpty) { throw new TimeoutException($"No answer to {opcode}. " + string.Join('\n', kernel.Logged)); }
            OutHeader answer = MemoryMarshal.Read<OutHeader>(message);
            if (answer.Unique == 0) { continue; } // a notification
            Assert.Equal(unique, answer.Unique);
            return new Answer(unique, (Errno)(-answer.Error), message[Unsafe.SizeOf<OutHeader>()..].ToArray());
        }
    }

    private Answer Call(Opcode opcode, ulong node, params ReadOnlySpan<byte[]> body) => Call(opcode, node, default, body);

    private Errno Entry(Answer answer, out ulong node, out Attr attr)
    {
        node = 0;
        attr = default;
        if (answer.Error.IsError) { return answer.Error; }
        EntryOut entry = MemoryMarshal.Read<EntryOut>(answer.Body);
        if (entry.NodeId == 0) { return Errno.ENOENT; }
        Keep(entry.NodeId);
        node = entry.NodeId;
        attr = entry.Attr;
        return Errno.None;
    }

    private void Keep(ulong node) => lookups[node] = lookups.GetValueOrDefault(node) + 1;

    public Errno Lookup(ulong directory, string name, out ulong node, out Attr attr) =>
        Entry(Call(Opcode.Lookup, directory, Name(name)), out node, out attr);

    /// <summary>What the kernel does before it asks for a new name: looks whether there is one.</summary>
    private Errno MustBeAbsent(ulong directory, string name)
    {
        Errno error = Lookup(directory, name, out _, out _);
        return error == Errno.ENOENT ? Errno.None : error.IsError ? error : Errno.EEXIST;
    }

    /// <summary>Keeps a nodeid until <see cref="Unpin"/>, as the kernel does for an open file.</summary>
    public void Pin(ulong node) => pinned[node] = pinned.GetValueOrDefault(node) + 1;

    public void Unpin(ulong node)
    {
        if (--pinned[node] == 0) { pinned.Remove(node); }
    }

    /// <summary>Forgets every nodeid that is not pinned.</summary>
    public void ForgetAll()
    {
        foreach ((ulong node, ulong count) in lookups.Where(pair => !pinned.ContainsKey(pair.Key)).ToArray())
        {
            kernel.Send(Opcode.Forget, node, Bytes.Of(new ForgetIn { Lookups = count }));
            lookups.Remove(node);
        }
    }

    public Errno GetAttr(ulong node, out Attr attr) => Attributes(Call(Opcode.GetAttr, node, Bytes.Of(new GetAttrIn())), out attr);

    public Errno SetAttr(ulong node, SetAttrIn input) => Attributes(Call(Opcode.SetAttr, node, Bytes.Of(input)), out _);

    private static Errno Attributes(Answer answer, out Attr attr)
    {
        attr = answer.Error.IsError ? default : answer.As<AttrOut>().Attr;
        return answer.Error;
    }

    public Errno Create(ulong directory, string name, CreateIn input, (uint, uint) caller, out ulong node, out ulong fh)
    {
        node = fh = 0;
        Errno error = MustBeAbsent(directory, name);
        if (error.IsError) { return error; }
        Answer answer = Call(Opcode.Create, directory, caller, Bytes.Of(input), Name(name));
        fh = answer.Error.IsError ? 0 : answer.As<CreateOut>().Open.Fh;
        return Entry(answer, out node, out _);
    }

    public Errno MkNod(ulong directory, string name, MkNodIn input, (uint, uint) caller)
    {
        Errno error = MustBeAbsent(directory, name);
        return error.IsError ? error : Entry(Call(Opcode.MkNod, directory, caller, Bytes.Of(input), Name(name)), out _, out _);
    }

    public Errno MkDir(ulong directory, string name, MkDirIn input, (uint, uint) caller)
    {
        Errno error = MustBeAbsent(directory, name);
        return error.IsError ? error : Entry(Call(Opcode.MkDir, directory, caller, Bytes.Of(input), Name(name)), out _, out _);
    }

    public Errno SymLink(ulong directory, string name, string target, (uint, uint) caller)
    {
        Errno error = MustBeAbsent(directory, name);
        return error.IsError ? error : Entry(Call(Opcode.SymLink, directory, caller, Name(name), Name(target)), out _, out _);
    }

    public Errno Link(ulong node, ulong directory, string name)
    {
        Errno error = MustBeAbsent(directory, name);
        var input = new LinkIn { OldNodeId = node };
        return error.IsError ? error : Entry(Call(Opcode.Link, directory, Bytes.Of(input), Name(name)), out _, out _);
    }

    public Errno Unlink(ulong directory, string name) => Remove(Opcode.Unlink, directory, name);

    public Errno RmDir(ulong directory, string name) => Remove(Opcode.RmDir, directory, name);

    private Errno Remove(Opcode opcode, ulong directory, string name)
    {
        Errno error = Lookup(directory, name, out _, out _);
        return error.IsError ? error : Call(opcode, directory, Name(name)).Error;
    }

    public Errno Rename(ulong directory, string name, ulong newDirectory, string newName, RenameFlags flags)
    {
        Errno error = Lookup(directory, name, out _, out _);
        if (!error.IsError) { error = Lookup(newDirectory, newName, out _, out _); }
        if (error.IsError && error != Errno.ENOENT) { return error; }
        var input = new Rename2In { NewDirectory = newDirectory, Flags = flags };
        return Call(Opcode.Rename2, directory, Bytes.Of(input), Name(name), Name(newName)).Error;
    }

    public Errno ReadLink(ulong node, out string target)
    {
        Answer answer = Call(Opcode.ReadLink, node);
        target = Encoding.UTF8.GetString(answer.Body);
        return answer.Error;
    }

    public Errno Open(ulong node, OpenFlags flags, out ulong fh)
    {
        Answer answer = Call(Opcode.Open, node, Bytes.Of(new OpenIn { Flags = flags }));
        fh = answer.Error.IsError ? 0 : answer.As<OpenOut>().Fh;
        return answer.Error;
    }

    public void Release(ulong node, ulong fh) =>
        Assert.Equal(Errno.None, Call(Opcode.Release, node, Bytes.Of(new ReleaseIn { Fh = fh })).Error);

    /// <summary>Reads an open file to its end.</summary>
    public Errno Read(ulong node, ulong fh, out byte[] content)
    {
        var all = new List<byte>();
        Answer answer;
        do
        {
            answer = Call(Opcode.Read, node, Bytes.Of(new ReadIn { Fh = fh, Offset = (ulong)all.Count, Size = MaxRead }));
            all.AddRange(answer.Body);
        }
        while (!answer.Error.IsError && answer.Body.Length > 0);
        content = [.. all];
        return answer.Error;
    }

    public Errno Write(ulong node, ulong fh, ulong offset, byte[] data)
    {
        Answer answer = Call(Opcode.Write, node, Bytes.Of(new WriteIn { Fh = fh, Offset = offset, Size = (uint)data.Length }), data);
        if (!answer.Error.IsError) { Assert.Equal((uint)data.Length, answer.As<WriteOut>().Size); }
        return answer.Error;
    }

    public Errno SetXattr(ulong node, string name, byte[] value, XattrFlags flags) =>
        Call(Opcode.SetXattr, node, Bytes.Of(new SetXattrIn { Size = (uint)value.Length, Flags = flags }), Name(name), value).Error;

    public Errno RemoveXattr(ulong node, string name) => Call(Opcode.RemoveXattr, node, Name(name)).Error;

    public Errno GetXattr(ulong node, string name, out byte[] value)
    {
        Answer answer = Call(Opcode.GetXattr, node, Bytes.Of(new GetXattrIn { Size = 4096 }), Name(name));
        value = answer.Body;
        return answer.Error;
    }

    public Errno ListXattr(ulong node, out string[] names)
    {
        Answer answer = Call(Opcode.ListXattr, node, Bytes.Of(new GetXattrIn { Size = 4096 }));
        names = Encoding.UTF8.GetString(answer.Body).Split('\0', StringSplitOptions.RemoveEmptyEntries);
        return answer.Error;
    }

    /// <summary>Reads a directory to its end.</summary>
    /// <param name="directory">The directory.</param>
    /// <param name="isPlus">By READDIRPLUS.</param>
    /// <param name="size">The room of one reply in bytes.</param>
    /// <param name="entries">The entries without <c>.</c> and <c>..</c>, which must be there.</param>
    public Errno ReadDir(ulong directory, bool isPlus, uint size, out Dictionary<string, Listed> entries)
    {
        entries = [];
        ulong offset = 0;
        while (true)
        {
            var input = new ReadIn { Offset = offset, Size = size };
            Answer answer = Call(isPlus ? Opcode.ReadDirPlus : Opcode.ReadDir, directory, Bytes.Of(input));
            if (answer.Error.IsError) { return answer.Error; }
            if (answer.Body.Length == 0) { break; }
            for (ReadOnlySpan<byte> rest = answer.Body; rest.Length > 0;)
            {
                int before = 0;
                EntryOut entry = default;
                if (isPlus)
                {
                    entry = MemoryMarshal.Read<EntryOut>(rest);
                    before = Unsafe.SizeOf<EntryOut>();
                }
                DirEnt dirent = MemoryMarshal.Read<DirEnt>(rest[before..]);
                before += Unsafe.SizeOf<DirEnt>();
                string name = Encoding.UTF8.GetString(rest.Slice(before, (int)dirent.NameLength));
                if (entry.NodeId != 0) { Keep(entry.NodeId); }
                var listed = new Listed(dirent.Ino, dirent.Type << 12, entry.NodeId == 0 ? null : entry.Attr);
                Assert.True(entries.TryAdd(name, listed), $"{name} is listed twice");
                offset = dirent.Offset;
                rest = rest[((before + (int)dirent.NameLength + 7) & ~7)..];
            }
        }
        Assert.True(entries.Remove(".") && entries.Remove(".."), "A directory lists no . or no ..");
        return Errno.None;
    }
}
