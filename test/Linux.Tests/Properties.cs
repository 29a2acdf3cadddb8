// A process that another test starts holds copies of all descriptors until it executes its program: a file that is closed
// meanwhile is still open, its lock still held, its filesystem busy. So one test at a time.
[assembly: Xunit.v3.Parallelization(Mode = Xunit.Sdk.ParallelMode.None)]
