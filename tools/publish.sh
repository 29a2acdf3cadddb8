#!/usr/bin/env bash
# Publishes out/veneer with NativeAOT, or, called with --checked, out-checked/veneer, which checks the order of its locks.
set -euo pipefail
cd "$(dirname "$0")/.."

# The numbers of system calls and flags are those of x86-64.
if [ "$(uname -m)" != x86_64 ]; then
    echo "Veneer runs on x86-64 only so far; this is $(uname -m)." >&2
    exit 1
fi
rid=linux-x64

out=out checks=()
if [ "${1:-}" = --checked ]; then
    out=out-checked checks=(-p:LockOrder=true)
fi
staging=artifacts/publish/$out
dotnet publish src/Cli/Veneer.Cli.csproj --configuration Release --runtime "$rid" -p:VeneerNative=true "${checks[@]}" \
    --output "$staging" --verbosity quiet

# One rename, so that a mount that runs the old binary keeps it.
mkdir -p "$out"
cp "$staging/veneer" "$out/.veneer.new"
mv "$out/.veneer.new" "$out/veneer"
