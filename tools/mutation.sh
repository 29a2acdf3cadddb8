#!/usr/bin/env bash
# Changes the code of rooms of the overlay, one place after the other, and looks whether a test that mounts nothing fails:
# tools/mutation.sh ROOM...
set -euo pipefail
cd "$(dirname "$0")/.."

out=$PWD/artifacts/mutation
rooms=()
for room in "$@"; do
    if [ ! -d "src/Overlay/$room" ]; then
        echo "src/Overlay has no room $room. It has: $(cd src/Overlay && ls -d -- */ | tr -d / | tr '\n' ' ')" >&2
        exit 1
    fi
    rooms+=(--mutate "**/$room/*.cs")
done

# What takes long and tests no room's meaning is left out: see Veneer.Overlay.Tests.csproj.
export VENEER_MUTATION=true
dotnet tool restore --verbosity quiet
cd test/Overlay.Tests
dotnet stryker --config-file stryker-config.json --output "$out" --skip-version-check "${rooms[@]}"
