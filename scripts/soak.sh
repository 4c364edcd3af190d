#!/usr/bin/env bash
# Runs the end-to-end tests and the long ones (ignored otherwise; IMIRA_SOAK=1 lengthens some) again and again for MINUTES, then
# simulated networks for as long again.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

minutes=${MINUTES:-30}
[[ $minutes =~ ^[0-9]+$ ]] || die "MINUTES must be a number, not '$minutes'"
all=(-- --include-ignored)
have cargo-nextest && all=(--run-ignored all)

scripts/setup.sh --browser --fuse
scripts/build.sh
export IMIRA_SOAK=1
rounds=0
SECONDS=0
while [ "$rounds" -eq 0 ] || [ "$SECONDS" -lt $((minutes * 60)) ]; do
    rounds=$((rounds + 1))
    step "Round $rounds, after $((SECONDS / 60)) of $minutes minutes"
    scripts/cargo-test.sh "${all[@]}"
done
step "1,000 simulated networks of 500 nodes, or as many as fit into $minutes minutes more"
"$BIN/imira-sim" search --nodes 500 --seeds 1000 --minutes "$minutes"
say "$rounds rounds in $((SECONDS / 60)) minutes, none failed"
