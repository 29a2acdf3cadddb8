using static Veneer.Rig.Octal;

namespace Veneer.Oracle;

/// <summary>Makes random lower layers out of a seed. Names are few, so that layers and operations meet.</summary>
internal static class LayerMaker
{
    public static readonly string[] Names = ["a", "b", "c", "d", "e"];

    /// <summary>Users that own things and do things: root, a user, and another of the same group.</summary>
    public static readonly (uint Uid, uint Gid)[] Users = [(0, 0), (1000, 1000), (1001, 1000)];

    private const int Depth = 3;

    /// <summary>Topmost first.</summary>
    public static Tree[] Make(Settings settings, int seed)
    {
        var layers = new List<LayerPlan>();
        for (int i = settings.LayersFor(seed) - 1; i >= 0; i--)
        {
            var plan = new LayerPlan(Dice.For(seed, $"layer {i}"), settings, [.. layers]);
            plan.Fill("", 1);
            layers.Insert(0, plan);
        }
        return [.. layers.Select(l => Tree.Of([(".", Node.Directory().Mode(Oct(777)).At(At(5, 0))), .. l.Nodes]))];
    }

    public static TimeSpec At(long seconds, long nanoseconds) =>
        new() { Seconds = Node.LongAgo.Seconds + seconds, Nanoseconds = nanoseconds };

    /// <summary>One layer, and what it hides of those below it.</summary>
    private sealed class LayerPlan(Dice dice, Settings settings, LayerPlan[] below)
    {
        private readonly Dictionary<string, char> kinds = [];
        private readonly List<string> files = [];

        public List<(string Path, Node Node)> Nodes { get; } = [];

        public void Fill(string directory, int depth)
        {
            foreach (string name in Names)
            {
                if (!dice.Chance(0.62)) { continue; }
                string path = directory + name;
                double choice = dice.Fraction();
                if (choice < 0.42 && depth < Depth)
                {
                    Node node = Node.Directory().Mode(dice.Of(Oct(755), Oct(775), Oct(777), Oct(700), Oct(1777), Oct(2755)));
                    bool opaque = below.Length > 0 && dice.Chance(0.2);
                    if (opaque) { node = node.Attribute(OverlayAttribute("opaque"), "y"); }
                    if (settings.Has(Features.Xattrs) && dice.Chance(0.3)) { node = node.Attribute("user.dl", $"dirval{dice.Below(9)}"); }
                    Add(path, node, opaque ? 'o' : 'd');
                    Fill(path + "/", depth + 1);
                }
                else if (choice < 0.74)
                {
                    Node node = Node.File(new string((char)('A' + dice.Below(50)), dice.Of(0, 1, 100, 4096, 5000, 70_000)))
                        .Mode(dice.Of(Oct(644), Oct(600), Oct(666), Oct(755), Oct(4755), Oct(2755), Oct(444)));
                    if (settings.Has(Features.Xattrs) && dice.Chance(0.4))
                    {
                        node = node.Attribute("user." + dice.Of("x", "y", "z"), $"v{dice.Below(99)}");
                    }
                    Add(path, node, 'f');
                    files.Add(path);
                }
                else if (choice < 0.82)
                {
                    Add(path, Node.Link(dice.Of("a", "b", "c/d", "a/b", "nowhere", "d")), 'f');
                }
                else if (choice < 0.87 && files.Count > 0 && settings.Has(Features.LowerLinks))
                {
                    kinds[path] = 'f';
                    Nodes.Add((path, Node.HardLink(dice.Of([.. files]))));
                }
                else if (choice < 0.90 && settings.Has(Features.Special))
                {
                    Add(path, Node.Fifo(), 'f');
                }
                else if (below.Length > 0 && (settings.Has(Features.LoneWhiteouts) || IsVisibleBelow(path)))
                {
                    kinds[path] = 'w';
                    Nodes.Add((path, Node.Whiteout()));
                }
                else
                {
                    Add(path, Node.File($"low{dice.Below(9)}"), 'f');
                }
            }
        }

        private void Add(string path, Node node, char kind)
        {
            (uint uid, uint gid) = dice.Of(Users);
            kinds[path] = kind;
            Nodes.Add((path, node.OwnedBy(uid, gid).At(At(dice.Below(1000), dice.Below(1_000_000_000)))));
        }

        /// <summary>Whether the layers below this one show something at the path: no overlay makes a whiteout otherwise.</summary>
        private bool IsVisibleBelow(string path)
        {
            IEnumerable<LayerPlan> stack = below;
            string[] words = path.Split('/');
            // A directory of our own that is opaque, on the way, hides all below it.
            for (int i = 1; i < words.Length; i++)
            {
                if (kinds.GetValueOrDefault(string.Join('/', words[..i])) == 'o') { return false; }
            }
            for (int i = 1; i <= words.Length; i++)
            {
                string here = string.Join('/', words[..i]);
                var next = new List<LayerPlan>();
                foreach (LayerPlan layer in stack)
                {
                    char kind = layer.kinds.GetValueOrDefault(here);
                    if (kind == 'w') { break; }
                    if (kind == 'f')
                    {
                        if (next.Count == 0) { return i == words.Length; }
                        break;
                    }
                    if (kind is 'd' or 'o') { next.Add(layer); }
                    if (kind == 'o') { break; }
                }
                if (next.Count == 0) { return false; }
                stack = next;
            }
            return true;
        }

        private string OverlayAttribute(string name) =>
            (settings.Options.Contains("userxattr", StringComparison.Ordinal) ? "user.overlay." : "trusted.overlay.") + name;
    }
}
