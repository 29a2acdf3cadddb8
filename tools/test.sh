#!/usr/bin/env bash
# Runs every built test project and ends with the line "N passed, N failed" (", N skipped").
# With CI set, a test that lacks /dev/fuse or root fails instead of being skipped.
set -uo pipefail
cd "$(dirname "$0")/.."

limit=${TEST_LIMIT:-3600} # seconds

mkdir -p artifacts
log=artifacts/test.log

# As root, in namespaces of their own: no mount and no server outlives the tests. Each project makes further ones for itself.
own=(setpriv --pdeathsig KILL unshare --mount --propagation private --pid --fork --kill-child --mount-proc)
"${own[@]}" true 2>/dev/null || own=()

# The tests switch the kernel's offer of io_uring on and off. However they end, it is as it was.
offer=/sys/module/fuse/parameters/enable_uring
offered=$(cat "$offer" 2>/dev/null)
trap '[ -z "$offered" ] || echo "$offered" >"$offer"; kill "$parent" 2>/dev/null' EXIT

# Nobody waits for a run whose parent is gone.
(while [ -e "/proc/$PPID" ] && [ -e "/proc/$$" ]; do sleep 1; done; kill $$) >/dev/null 2>&1 &
parent=$!

# One project at a time: mounts have time-outs, and should not wait for each other.
exec 3> >(exec tee "$log")
copy=$!
setpriv --pdeathsig TERM timeout --kill-after=10 "$limit" "${own[@]}" \
    dotnet test --solution Veneer.slnx --no-build --max-parallel-test-modules 1 </dev/null >&3 2>&1 3>&- &
tests=$!
exec 3>&-
# Their namespaces, and all in them, end with the process that made these.
trap 'kill "$tests" 2>/dev/null; wait "$tests"; exit 143' TERM INT HUP
wait "$tests"
status=$?
wait "$copy" # the log is whole

# The last "NAME: N" of the runner's summary.
count() {
    sed -nE "s/^ +$1: ([0-9]+)$/\1/p" "$log" | tail -n 1
}

passed=$(count succeeded) failed=$(count failed) skipped=$(count skipped) broken=$(count error)
passed=${passed:-0} skipped=${skipped:-0}
# "error" counts the projects that crashed or ran no test: each is a failure.
failed=$((${failed:-0} + ${broken:-0}))

if [ "$status" = 124 ] || [ "$status" = 137 ]; then
    echo "The tests were stopped after $limit seconds."
fi
if [ $((passed + failed)) = 0 ] && [ "$status" = 0 ]; then
    echo "No test ran."
    status=1
fi
# A run that did not end well has failed, though none of its tests says so.
if [ "$status" != 0 ] && [ "$failed" = 0 ]; then
    failed=1
fi

# Once more at the end, where they are looked for: who failed, and the beginning of why. The line of its project follows a test's own.
awk '/^failed / { left = 15 } /^\// { left = 0 } left-- > 0' "$log"

line="$passed passed, $failed failed"
[ "$skipped" = 0 ] || line+=", $skipped skipped"
echo "$line"
[ "$failed" = 0 ]
