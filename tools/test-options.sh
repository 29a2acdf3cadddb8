#!/usr/bin/env bash
# Runs the tests that mount once more with each option that changes how requests are served or what is written, and ends
# with the line "N passed, N failed". Those of words, of tools and of what is seen from the host mount by themselves.
set -uo pipefail
cd "$(dirname "$0")/.."

OPTIONS=${OPTIONS:-io_uring=off passthrough=off passthrough=lower revocable threads=1 redirect_dir=on metacopy=on \
    fsync=strict volatile,sync_on_unmount}
JOBS=${JOBS:-1} # how many at once; each has its own namespaces
without=()
for class in Crash CliBadInput CliHelp CliDiff CliCheckpoint CliLayers CliStats Changes LayerTar Holders Pin InUse Memory; do
    without+=(-class- "*.${class}Tests")
done

own=(unshare --mount --propagation private --pid --fork --kill-child --mount-proc env VENEER_TEST_NAMESPACE=private)
"${own[@]}" true 2>/dev/null || own=()

# try OPTION: runs the tests with it; the sums go into a file beside the log.
try() {
    local option=$1 log=artifacts/test-$1.log summary good=0 bad=1 # a run that did not get to its summary has failed
    VENEER_TEST_OPTIONS=$option timeout --kill-after=30 2400 "${own[@]}" \
        artifacts/bin/Veneer.Mount.Tests/debug/Veneer.Mount.Tests "${without[@]}" -noColor </dev/null >"$log" 2>&1
    summary=$(grep -E '^ +Veneer.Mount.Tests +Total:' "$log")
    if [[ $summary =~ Total:\ ([0-9]+),\ Errors:\ ([0-9]+),\ Failed:\ ([0-9]+),\ Skipped:\ ([0-9]+) ]]; then
        bad=$((BASH_REMATCH[2] + BASH_REMATCH[3]))
        good=$((BASH_REMATCH[1] - BASH_REMATCH[3] - BASH_REMATCH[4]))
    fi
    echo "$option: $good passed, $bad failed, see $log"
    echo "$good $bad" >"artifacts/test-$option.sum"
}

passed=0 failed=0
for option in $OPTIONS; do
    while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do wait -n; done
    rm -f "artifacts/test-$option.sum"
    try "$option" &
done
wait
for option in $OPTIONS; do
    read -r good bad <"artifacts/test-$option.sum" || good=0 bad=1
    passed=$((passed + good)) failed=$((failed + bad))
done
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
