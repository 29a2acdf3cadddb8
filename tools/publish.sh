#!/usr/bin/env bash
# Publishes out/veneer with NativeAOT: for net10.0 where its compiler can be restored, else for net9.0.
set -euo pipefail
cd "$(dirname "$0")/.."

# The numbers of system calls and flags are those of x86-64.
if [ "$(uname -m)" != x86_64 ]; then
    echo "Veneer runs on x86-64 only so far; this is $(uname -m)." >&2
    exit 1
fi
rid=linux-x64

project=src/Cli/Veneer.Cli.csproj
native=(--runtime "$rid" -p:VeneerNative=true)

# The answer is kept, for as long as the SDK is the same.
answer=artifacts/native-framework-$(dotnet --version)
if [ ! -s "$answer" ]; then
    mkdir -p artifacts
    if log=$(dotnet restore "$project" "${native[@]}" -p:VeneerTargetFramework=net10.0 2>&1); then
        echo net10.0 >"$answer"
    elif grep -qE 'NU110[0-9].*(NativeAOT|ILCompiler)' <<<"$log"; then
        echo net9.0 >"$answer"
    else
        echo "$log" >&2
        exit 1
    fi
fi

framework=$(<"$answer")
if [ "$framework" != net10.0 ]; then
    echo "The NativeAOT packages of net10.0 cannot be restored here: building for $framework."
fi

staging=artifacts/publish-native
dotnet publish "$project" --configuration Release "${native[@]}" -p:VeneerTargetFramework="$framework" \
    --output "$staging" --verbosity quiet

# One rename, so that a mount that runs the old binary keeps it.
mkdir -p out
cp "$staging/veneer" out/.veneer.new
mv out/.veneer.new out/veneer
