using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Veneer.Fuse.Wire;
using Veneer.Linux;

namespace Veneer.Fuse;

public sealed partial class Server
{
    /// <summary>The longest target of a symbolic link in bytes: PATH_MAX - 1, the most that the kernel takes.</summary>
    private const int LongestTarget = 4095;

    /// <summary>Calls the filesystem for one request and writes the reply. A request that is too short gets EINVAL.</summary>
    private void Dispatch(Exchange exchange, in Request request, ref RequestReader reader)
    {
        ref readonly InHeader header = ref request.Header;
        ulong unique = header.Unique;
        ReadOnlySpan<byte> name, second;
        EntryOut entry;
        Errno error;
        switch (header.Opcode)
        {
            case Opcode.Lookup:
                if (!reader.TakeName(out name)) { break; }
                Trace(request, name);
                error = fileSystem.Lookup(request, name, out entry);
                if (!error.IsError && entry.Attr.Mode >> 12 == FileType.Regular >> 12) { Volatile.Write(ref lastLookedUp, entry.NodeId); }
                ReplyEntry(exchange, unique, error, entry);
                return;

            case Opcode.Forget:
                if (reader.Take(out ForgetIn forget)) { End(Opcode.Forget, header.NodeId, forget.Lookups); }
                return; // has no reply

            case Opcode.BatchForget:
                if (!reader.Take(out BatchForgetIn batch)) { return; }
                for (uint i = 0; i < batch.Count && reader.Take(out ForgetOne one); i++) { End(Opcode.Forget, one.NodeId, one.Lookups); }
                return; // has no reply

            case Opcode.GetAttr:
                if (!reader.Take(out GetAttrIn getAttr)) { break; }
                Trace(request, default);
                error = fileSystem.GetAttr(request, getAttr, out AttrOut attributes);
                ReplyWith(exchange, unique, error, attributes);
                return;

            case Opcode.StatX:
                if (!reader.Take(out StatXIn statX)) { break; }
                Trace(request, default);
                error = fileSystem.StatX(request, statX, out StatXOut statXOut);
                ReplyWith(exchange, unique, error, statXOut);
                return;

            case Opcode.SetAttr:
                if (!reader.Take(out SetAttrIn setAttr)) { break; }
                Trace(request, default);
                error = fileSystem.SetAttr(request, setAttr, out attributes);
                ReplyWith(exchange, unique, error, attributes);
                return;

            case Opcode.ReadLink:
                Trace(request, default);
                error = fileSystem.ReadLink(request, exchange.Payload[..LongestTarget], out int length);
                ReplyPayload(exchange, unique, error, length);
                return;

            case Opcode.SymLink:
                if (!reader.TakeName(out name) || !reader.TakeName(out second)) { break; }
                Trace(request, name);
                error = fileSystem.SymLink(request, name, second, out entry);
                ReplyEntry(exchange, unique, error, entry);
                return;

            case Opcode.MkNod:
                if (!reader.Take(out MkNodIn mkNod) || !reader.TakeName(out name)) { break; }
                Trace(request, name);
                error = fileSystem.MkNod(request, name, mkNod, out entry);
                ReplyEntry(exchange, unique, error, entry);
                return;

            case Opcode.MkDir:
                if (!reader.Take(out MkDirIn mkDir) || !reader.TakeName(out name)) { break; }
                Trace(request, name);
                error = fileSystem.MkDir(request, name, mkDir, out entry);
                ReplyEntry(exchange, unique, error, entry);
                return;

            case Opcode.Unlink:
                if (!reader.TakeName(out name)) { break; }
                Trace(request, name);
                ReplyError(exchange, unique, fileSystem.Unlink(request, name));
                return;

            case Opcode.RmDir:
                if (!reader.TakeName(out name)) { break; }
                Trace(request, name);
                ReplyError(exchange, unique, fileSystem.RmDir(request, name));
                return;

            case Opcode.Rename:
                if (!reader.Take(out RenameIn rename) || !reader.TakeName(out name) || !reader.TakeName(out second)) { break; }
                Trace(request, name);
                ReplyError(exchange, unique, fileSystem.Rename(request, name, rename.NewDirectory, second, RenameFlags.None));
                return;

            case Opcode.Rename2:
                if (!reader.Take(out Rename2In rename2) || !reader.TakeName(out name) || !reader.TakeName(out second)) { break; }
                Trace(request, name);
                ReplyError(exchange, unique, fileSystem.Rename(request, name, rename2.NewDirectory, second, rename2.Flags));
                return;

            case Opcode.Link:
                if (!reader.Take(out LinkIn link) || !reader.TakeName(out name)) { break; }
                Trace(request, name);
                error = fileSystem.Link(request, link.OldNodeId, name, out entry);
                ReplyEntry(exchange, unique, error, entry);
                return;

            case Opcode.Open:
                if (!reader.Take(out OpenIn open)) { break; }
                Trace(request, default);
                error = fileSystem.Open(request, open, out OpenOut opened);
                if (!error.IsError) { Volatile.Write(ref lastOpened, header.NodeId); }
                exchange.Outcome.Way = OpenWayOf(error, opened.Flags);
                if (Undelivered(ReplyWith(exchange, unique, error, opened), error)) { fileSystem.Release(header.NodeId, opened.Fh); }
                return;

            case Opcode.Create:
                if (!reader.Take(out CreateIn create) || !reader.TakeName(out name)) { break; }
                Trace(request, name);
                error = fileSystem.Create(request, name, create, out CreateOut created);
                ReplyCreated(exchange, unique, error, created);
                return;

            case Opcode.TmpFile:
                if (!reader.Take(out create)) { break; }
                Trace(request, default);
                error = fileSystem.TmpFile(request, create, out created);
                ReplyCreated(exchange, unique, error, created);
                return;

            case Opcode.Read:
                if (!reader.Take(out ReadIn read)) { break; }
                Trace(request, default);
                var content = new ContentWriter(exchange.PayloadOf(read.Size), exchange);
                error = fileSystem.Read(request, read, ref content);
                exchange.Outcome.Bytes = content.Used;
                ReplyPayload(exchange, unique, error, content.Used);
                return;

            case Opcode.Write:
                if (!reader.Take(out WriteIn write) || !reader.TakeBytes(write.Size, out ReadOnlySpan<byte> data)) { break; }
                Trace(request, default);
                error = fileSystem.Write(request, write, data, out length);
                exchange.Outcome.Bytes = length;
                ReplyWith(exchange, unique, error, new WriteOut { Size = (uint)length });
                return;

            case Opcode.StatFs:
                Trace(request, default);
                error = fileSystem.StatFs(request, out StatFsOut statFs);
                ReplyWith(exchange, unique, error, statFs);
                return;

            case Opcode.Release:
                if (!reader.Take(out ReleaseIn release)) { break; }
                Trace(request, default);
                End(Opcode.Release, header.NodeId, release.Fh);
                ReplyError(exchange, unique, Errno.None);
                return;

            case Opcode.FSync:
                if (!reader.Take(out FSyncIn fSync)) { break; }
                Trace(request, default);
                ReplyError(exchange, unique, fileSystem.FSync(request, fSync));
                return;

            case Opcode.SetXattr:
                SetXattr(exchange, request, ref reader);
                return;

            case Opcode.GetXattr:
                if (!reader.Take(out GetXattrIn getXattr) || !reader.TakeName(out name)) { break; }
                Trace(request, name);
                error = fileSystem.GetXattr(request, name, exchange.PayloadOf(getXattr.Size), out length);
                ReplyXattr(exchange, unique, error, getXattr.Size, length);
                return;

            case Opcode.ListXattr:
                if (!reader.Take(out getXattr)) { break; }
                Trace(request, default);
                error = fileSystem.ListXattr(request, exchange.PayloadOf(getXattr.Size), out length);
                ReplyXattr(exchange, unique, error, getXattr.Size, length);
                return;

            case Opcode.RemoveXattr:
                if (!reader.TakeName(out name)) { break; }
                Trace(request, name);
                ReplyError(exchange, unique, fileSystem.RemoveXattr(request, name));
                return;

            case Opcode.Flush:
                if (!reader.Take(out FlushIn flush)) { break; }
                Trace(request, default);
                ReplyError(exchange, unique, fileSystem.Flush(request, flush));
                return;

            case Opcode.OpenDir:
                if (!reader.Take(out open)) { break; }
                Trace(request, default);
                error = fileSystem.OpenDir(request, open, out opened);
                if (Undelivered(ReplyWith(exchange, unique, error, opened), error)) { fileSystem.ReleaseDir(header.NodeId, opened.Fh); }
                return;

            case Opcode.ReadDir:
            case Opcode.ReadDirPlus:
                if (!reader.Take(out read)) { break; }
                Trace(request, default);
                var writer = new DirectoryWriter(exchange.PayloadOf(read.Size), header.Opcode == Opcode.ReadDirPlus);
                error = fileSystem.ReadDir(request, read, ref writer);
                exchange.Outcome.Bytes = writer.Used;
                if (Undelivered(ReplyPayload(exchange, unique, error, writer.Used), error) && writer.IsPlus)
                {
                    ReturnEntries(exchange.Payload[..writer.Used]);
                }
                return;

            case Opcode.ReleaseDir:
                if (!reader.Take(out release)) { break; }
                Trace(request, default);
                End(Opcode.ReleaseDir, header.NodeId, release.Fh);
                ReplyError(exchange, unique, Errno.None);
                return;

            case Opcode.FSyncDir:
                if (!reader.Take(out fSync)) { break; }
                Trace(request, default);
                ReplyError(exchange, unique, fileSystem.FSyncDir(request, fSync));
                return;

            case Opcode.Access:
                if (!reader.Take(out AccessIn access)) { break; }
                Trace(request, default);
                ReplyError(exchange, unique, fileSystem.Access(request, access.Mask));
                return;

            case Opcode.Interrupt:
                if (!reader.Take(out InterruptIn interrupt)) { return; }
                error = Interrupt(interrupt.Unique);
                if (error.IsError) { ReplyError(exchange, unique, error); } // EAGAIN: ask again, a worker has just read the request
                return;

            case Opcode.Ioctl:
                if (!reader.Take(out IoctlIn ioctl) || !reader.TakeBytes(ioctl.InSize, out data)) { break; }
                Trace(request, default);
                Span<byte> ioctlSpace = exchange.Payload.Slice(Unsafe.SizeOf<IoctlOut>(), (int)Math.Min(ioctl.OutSize, 16384u));
                error = fileSystem.Ioctl(request, ioctl, data, ioctlSpace, out length, out int result);
                MemoryMarshal.Write(exchange.Payload, new IoctlOut { Result = result });
                ReplyPayload(exchange, unique, error, Unsafe.SizeOf<IoctlOut>() + length);
                return;

            case Opcode.FAllocate:
                if (!reader.Take(out FAllocateIn fAllocate)) { break; }
                Trace(request, default);
                ReplyError(exchange, unique, fileSystem.FAllocate(request, fAllocate));
                return;

            case Opcode.LSeek:
                if (!reader.Take(out LSeekIn lSeek)) { break; }
                Trace(request, default);
                error = fileSystem.LSeek(request, lSeek, out ulong offset);
                ReplyWith(exchange, unique, error, new LSeekOut { Offset = offset });
                return;

            case Opcode.CopyFileRange:
            case Opcode.CopyFileRange64:
                if (!reader.Take(out CopyFileRangeIn copyFileRange)) { break; }
                Trace(request, default);
                if (header.Opcode == Opcode.CopyFileRange) { copyFileRange.Length = Math.Min(copyFileRange.Length, 0x7FFFF000); }
                error = fileSystem.CopyFileRange(request, copyFileRange, out ulong copied);
                exchange.Outcome.Bytes = (long)copied;
                if (header.Opcode == Opcode.CopyFileRange) { ReplyWith(exchange, unique, error, new WriteOut { Size = (uint)copied }); }
                else { ReplyWith(exchange, unique, error, new CopyFileRangeOut { Copied = copied }); }
                return;

            case Opcode.Destroy:
                ReplyError(exchange, unique, Errno.None);
                return;

            default:
                // ENOSYS also tells the kernel not to ask again. POLL is unknown: every file of an overlay is always ready.
                // So are locks: the kernel keeps them itself, per inode, as for kernel overlayfs.
                Trace(request, default);
                ReplyError(exchange, unique, Errno.ENOSYS);
                return;
        }
        ReplyError(exchange, unique, Errno.EINVAL);
    }

    private void SetXattr(Exchange exchange, in Request request, ref RequestReader reader)
    {
        Errno error = Errno.EINVAL;
        if (TakeSetXattr(ref reader, out SetXattrIn input) && reader.TakeName(out ReadOnlySpan<byte> name)
            && reader.TakeBytes(input.Size, out ReadOnlySpan<byte> value))
        {
            Trace(request, name);
            error = fileSystem.SetXattr(request, name, value, input);
        }
        ReplyError(exchange, request.Header.Unique, error);
    }

    private bool TakeSetXattr(ref RequestReader reader, out SetXattrIn input)
    {
        if ((inForce & InitFlags.SetXattrExt) != 0) { return reader.Take(out input); }
        bool taken = reader.Take(out SetXattrInShort first);
        input = new SetXattrIn { Size = first.Size, Flags = first.Flags };
        return taken;
    }

    private Errno ReplyXattr(Exchange exchange, ulong unique, Errno error, uint asked, int length)
    {
        if (asked == 0 && !error.IsError) { return Reply(exchange, unique, new GetXattrOut { Size = (uint)length }); }
        // the filesystem returned a size; the buffer holds no value
        if (!error.IsError && (uint)length > asked) { error = Errno.ERANGE; }
        return ReplyPayload(exchange, unique, error, length);
    }

    /// <summary>Whether a successful reply did not reach the kernel, so that what it lent must be taken back.</summary>
    private static bool Undelivered(Errno written, Errno result) => written.IsError && !result.IsError;

    private void ReplyEntry(Exchange exchange, ulong unique, Errno error, in EntryOut entry)
    {
        if (Undelivered(ReplyWith(exchange, unique, error, entry), error) && entry.NodeId != 0) { fileSystem.Forget(entry.NodeId, 1); }
    }

    private void ReplyCreated(Exchange exchange, ulong unique, Errno error, in CreateOut created)
    {
        exchange.Outcome.Way = OpenWayOf(error, created.Open.Flags);
        if (!Undelivered(ReplyWith(exchange, unique, error, created), error)) { return; }
        fileSystem.Release(created.Entry.NodeId, created.Open.Fh);
        fileSystem.Forget(created.Entry.NodeId, 1);
    }

    internal static OpenWay OpenWayOf(Errno error, OpenReply flags)
    {
        if (error.IsError) { return OpenWay.None; }
        return (flags & (OpenReply.Passthrough | OpenReply.DirectIo)) switch
        {
            OpenReply.Passthrough | OpenReply.DirectIo => OpenWay.Mapped,
            OpenReply.Passthrough => OpenWay.PassedThrough,
            OpenReply.DirectIo => OpenWay.Direct,
            _ => (flags & OpenReply.KeepCache) != 0 ? OpenWay.Kept : OpenWay.Cached,
        };
    }

    /// <summary>Takes back the references of an undelivered READDIRPLUS.</summary>
    private void ReturnEntries(ReadOnlySpan<byte> entries)
    {
        while (entries.Length > 0)
        {
            EntryOut entry = MemoryMarshal.Read<EntryOut>(entries);
            DirEnt directoryEntry = MemoryMarshal.Read<DirEnt>(entries[Unsafe.SizeOf<EntryOut>()..]);
            if (entry.NodeId != 0) { fileSystem.Forget(entry.NodeId, 1); }
            entries = entries[((Unsafe.SizeOf<EntryOut>() + Unsafe.SizeOf<DirEnt>() + (int)directoryEntry.NameLength + 7) & ~7)..];
        }
    }

    /// <returns>The error of writing the reply. After an error, the kernel did not get what the reply lent.</returns>
    private Errno ReplyWith<T>(Exchange exchange, ulong unique, Errno error, in T result) where T : unmanaged =>
        error.IsError ? ReplyError(exchange, unique, error) : Reply(exchange, unique, result);

    private Errno Reply<T>(Exchange exchange, ulong unique, in T result) where T : unmanaged
    {
        MemoryMarshal.Write(exchange.Payload, result);
        return ReplyPayload(exchange, unique, Errno.None, Unsafe.SizeOf<T>());
    }

    private Errno ReplyError(Exchange exchange, ulong unique, Errno error) => ReplyPayload(exchange, unique, error, 0);

    private Errno ReplyPayload(Exchange exchange, ulong unique, Errno error, int length)
    {
        int total = Unsafe.SizeOf<OutHeader>() + (error.IsError ? 0 : length);
        TraceReply(unique, error, total);
        exchange.Outcome.Error = error;
        Errno written = exchange.Send(new OutHeader { Length = (uint)total, Error = -(int)error, Unique = unique });
        if (written.IsError && written is not (Errno.ENOENT or Errno.ENODEV or Errno.ECONNABORTED or Errno.ENOTCONN))
        {
            options.Log($"veneer: writing the reply to request {unique} failed: {written}");
            // The caller must not wait for ever for a reply that the kernel refused.
            // best effort: the first failure is the one to report
            if (total != Unsafe.SizeOf<OutHeader>()) { _ = ReplyPayload(exchange, unique, Errno.EIO, 0); }
        }
        return written;
    }
}
