using System.Globalization;
using Veneer.Linux;
using Veneer.Overlay.Host;

namespace Veneer.Overlay.Usage;

/// <summary>Examines a process: reads from /proc what all its threads use.</summary>
internal sealed class ProcessReader
{
    private readonly UsingProcess user;
    private readonly string directory; // of the process in /proc, like those below without the path of /proc
    private string memory; // of a thread that still has the memory
    private bool hasRing;

    private ProcessReader(UsingProcess user)
    {
        this.user = user;
        memory = directory = user.Process.Pid.ToString(CultureInfo.InvariantCulture);
    }

    /// <summary>Examines a process.</summary>
    /// <returns>Null when the process has ended.</returns>
    public static UsingProcess? Read(int pid, HostMounts mounts)
    {
        string process = pid.ToString(CultureInfo.InvariantCulture);
        string name = Processes.NameOf(process);
        if (name == "?") { return null; }
        ulong space = Processes.NamespaceOf(process, "mnt");
        List<int> threads = Processes.NumbersIn($"/proc/{process}/task");
        threads.Remove(pid);
        // The first thread may have ended while others live.
        if (space == 0 && threads.Count == 0 && Processes.HasEnded(process)) { return null; }
        var reader = new ProcessReader(new UsingProcess(pid, name, space, mounts));
        reader.Read(threads);
        return reader.user;
    }

    /// <summary>The files behind this process's standard input, output and error.</summary>
    public static IReadOnlyList<UsedFile> OwnOutput(HostMounts mounts)
    {
        var own = new ProcessReader(new UsingProcess(Libc.ProcessId, "", 0, mounts));
        for (int descriptor = 0; descriptor <= 2; descriptor++) { own.AddDescriptor(own.directory, descriptor); }
        return own.user.Files.All;
    }

    /// <summary>Examines the process.</summary>
    /// <param name="others">The ids of its threads, except the first.</param>
    private void Read(List<int> others)
    {
        AddNetwork(Processes.Link($"/proc/{directory}/ns/net"), $"/proc/{directory}/ns/net");
        if (user.Space != 0) { user.Spaces.Add(user.Space); }
        // All threads share the memory, and the first may have released it.
        if (others.Count > 0 && Processes.Link($"/proc/{directory}/exe") is null)
        {
            memory = string.Create(CultureInfo.InvariantCulture, $"{directory}/task/{others[0]}");
        }
        var tables = new List<int>();
        var places = new List<int>();
        ReadThread(user.Process.Pid, directory, tables, places);
        foreach (int thread in others)
        {
            string task = string.Create(CultureInfo.InvariantCulture, $"{directory}/task/{thread}");
            if (Processes.NamespaceOf(task, "mnt") is var space and > 0)
            {
                user.Spaces.Add(space);
                if (user.Space == 0) { user.Space = space; }
            }
            ReadThread(thread, task, tables, places);
        }
        if (user.Connection is not null) { user.Layers.Find(user.Files.All); }
        AddMaps();
    }

    /// <summary>Examines what a thread does not share with the threads examined before.</summary>
    /// <param name="thread">The thread's id.</param>
    /// <param name="task">The thread's directory in /proc.</param>
    /// <param name="tables">The threads whose descriptors have been examined.</param>
    /// <param name="places">The threads whose directories have been examined.</param>
    private void ReadThread(int thread, string task, List<int> tables, List<int> places)
    {
        if (IsOwn(thread, ThreadPart.Directories, places))
        {
            foreach (string link in (ReadOnlySpan<string>)["cwd", "root"]) { user.Files.AddLink(link, -1, $"/proc/{task}/{link}"); }
        }
        if (thread == user.Process.Pid) { user.Files.AddLink("exe", -1, $"/proc/{memory}/exe"); }
        if (IsOwn(thread, ThreadPart.Descriptors, tables))
        {
            foreach (int descriptor in Processes.NumbersIn($"/proc/{task}/fd")) { AddDescriptor(task, descriptor); }
        }

        // Where sharing cannot be determined, each thread is examined.
        static bool IsOwn(int thread, ThreadPart part, List<int> known)
        {
            foreach (int other in known)
            {
                if (!Libc.Compare(other, thread, part, out bool isShared).IsError && isShared) { return false; }
            }
            known.Add(thread);
            return true;
        }
    }

    private void AddDescriptor(string task, int descriptor)
    {
        string path = string.Create(CultureInfo.InvariantCulture, $"/proc/{task}/fd/{descriptor}");
        string description = string.Create(CultureInfo.InvariantCulture, $"/proc/{task}/fdinfo/{descriptor}");
        if (Processes.Link(path) is not { Length: > 0 } target) { return; }
        if (target[0] != '/')
        {
            if (Processes.MountNamespaceOf(target) is var space and > 0)
            {
                user.Keeps.Add(new NamespaceReference(space, $"descriptor {descriptor} of {user.Process.Name} ({directory})", [path]));
            }
            else if (target.StartsWith("socket:[", StringComparison.Ordinal))
            {
                user.Sockets.Add(new UsedSocket(descriptor, (uint)Processes.NamespaceNumber(target), description));
            }
            else if (target == "anon_inode:[io_uring]") { AddRegistered(description); }
            else if (target == "anon_inode:[fanotify]") { user.HasEvents = true; }
            else { AddNetwork(target, path); }
            return;
        }
        if (target == "/dev/null") { return; }
        if (target.StartsWith("/dev/fuse", StringComparison.Ordinal))
        {
            user.Connection ??= Processes.FuseConnectionOf(directory, descriptor);
        }
        if (target.StartsWith(FormerLayer.LinkName, StringComparison.Ordinal)) { user.Layers.FormerRecord = path; }
        user.Files.AddLink("open", descriptor, path);
    }

    private void AddNetwork(string? name, string path)
    {
        if (name is not null && name.StartsWith("net:[", StringComparison.Ordinal))
        {
            user.Networks.TryAdd(Processes.NamespaceNumber(name), path);
        }
    }

    /// <summary>Adds the files that are registered with an io_uring: they need no descriptor.</summary>
    private void AddRegistered(string description)
    {
        hasRing = true;
        if (Processes.RegisteredFiles(description) is not { } paths)
        {
            user.HasHiddenRing = true;
            return;
        }
        foreach (string path in paths) { user.Files.AddPath(new FileUse("registered", -1, path), user.Space); }
    }

    private void AddMaps()
    {
        if (Libc.ReadWhole(PathText.Encode($"/proc/{memory}/maps"), out byte[] maps).IsError) { return; }
        ReadOnlySpan<byte> rest = maps;
        while (rest.Length > 0)
        {
            // 7f00-7f01 r-xp 00000000 fe:00 1234    /path
            ReadOnlySpan<byte> bytes = MountTable.NextLine(ref rest);
            // the ring has no descriptor, and so /proc shows nothing of it
            user.HasHiddenRing |= !hasRing && bytes.EndsWith("anon_inode:[io_uring]"u8);
            int start = bytes.IndexOf((byte)'/');
            if (start < 0) { continue; }
            string path = PathText.Decode(bytes[start..]);
            if (user.Files.Has(new FileUse("map", -1, path))) { continue; }
            string[] fields = PathText.Decode(bytes[..start]).Split(' ', StringSplitOptions.RemoveEmptyEntries);
            if (fields is not [_, _, _, var number, ..] || number.Split(':') is not [var major, var minor]) { continue; }
            if (!uint.TryParse(major, NumberStyles.HexNumber, CultureInfo.InvariantCulture, out uint a)
                || !uint.TryParse(minor, NumberStyles.HexNumber, CultureInfo.InvariantCulture, out uint b))
            {
                continue;
            }
            string device = string.Create(CultureInfo.InvariantCulture, $"{a}:{b}");
            user.Files.AddOnDevice(new FileUse("map", -1, path), path, device, user.Space);
        }
    }
}
