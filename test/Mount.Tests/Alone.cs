[assembly: Xunit.v3.Parallelization(Mode = Xunit.Sdk.ParallelMode.All, MaxThreads = 6)] // three for each of two CPUs: most wait

namespace Veneer.Mount.Tests;

/// <summary>These tests run when no other does: each says why.</summary>
[CollectionDefinition(DisableParallelization = true)]
public sealed class Alone;
