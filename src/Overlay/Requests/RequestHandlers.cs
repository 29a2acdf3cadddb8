using Veneer.Overlay.Durability;
using Veneer.Overlay.Tree;
using Veneer.Overlay.Upper;

namespace Veneer.Overlay.Requests;

/// <summary>The classes that serve the kernel's requests, one for each kind, and what they share.</summary>
internal sealed class RequestHandlers
{
    /// <param name="tree">The tree of the overlay.</param>
    /// <param name="upper">Upper, as it is written.</param>
    /// <param name="session">The connection to the kernel.</param>
    /// <param name="files">The open files.</param>
    /// <param name="errors">Errors of writing to upper.</param>
    /// <param name="ahead">Looks up what comes next.</param>
    /// <param name="options">The options of the mount.</param>
    /// <param name="log">Receives messages for which there is no caller.</param>
    public RequestHandlers(ObjectTree tree, UpperLayer upper, KernelSession session, OpenFiles files, WritebackErrors errors,
        LookAhead ahead, OverlayOptions options, Action<string> log)
    {
        var impure = new ImpureMark(tree, upper, session);
        var remove = new Remove(tree, upper, session);
        CopyUp = new CopyUp(tree, upper, session, new Publication(tree, upper, session, remove, impure));
        var maker = new InodeMaker(tree, upper.IsWritable);
        var create = new Create(tree, upper, maker, remove);
        var link = new Link(tree, upper, remove, impure);
        var rename = new Rename(tree, upper, remove, impure);
        var change = new ObjectChange(tree);

        var policy = new OpenPolicy(tree, session, files, options, upper.IsWritable);
        var finder = new NameFinder(tree, maker, new SameFile(tree, upper, log));
        Names = new NameRequests(tree, upper, session, maker, finder, CopyUp, create, remove, link, rename, errors);
        Renames = new RenameRequests(tree, upper, finder, CopyUp, remove, rename);
        Opens = new OpenRequests(tree, upper, session, policy, files, errors, CopyUp, create, Names);
        Files = new FileRequests(tree, upper, session, policy, files, errors);
        Attributes = new AttributeRequests(tree, upper, session, CopyUp, change, Files, errors);
        Xattrs = new XattrRequests(tree, upper, session, CopyUp, change);
        Directories = new DirectoryRequests(tree, session, maker, finder, impure, ahead, errors);
        Flags = new FlagRequests(tree, session, CopyUp, change);
    }

    /// <summary>Brings objects to upper.</summary>
    public CopyUp CopyUp { get; }

    /// <summary>Serves requests that look up, make and remove names.</summary>
    public NameRequests Names { get; }

    /// <summary>Serves RENAME.</summary>
    public RenameRequests Renames { get; }

    /// <summary>Serves requests that open, create and close files.</summary>
    public OpenRequests Opens { get; }

    /// <summary>Serves requests that read and write open files.</summary>
    public FileRequests Files { get; }

    /// <summary>Serves requests for attributes.</summary>
    public AttributeRequests Attributes { get; }

    /// <summary>Serves requests for extended attributes.</summary>
    public XattrRequests Xattrs { get; }

    /// <summary>Serves requests that list directories.</summary>
    public DirectoryRequests Directories { get; }

    /// <summary>Serves the ioctls for flags of files, such as those of chattr(1).</summary>
    public FlagRequests Flags { get; }
}
