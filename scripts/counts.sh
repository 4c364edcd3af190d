#!/usr/bin/env bash
# Real daemons are killed, frozen, cut off, filled up and deceived (docs/protocol.md, section 12); shows what was counted at the end of each
# case: blocks that were acknowledged, and where their copies are.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

scripts/setup.sh
scripts/build.sh
log=$(mktemp)
trap 'rm -f "$log"' EXIT
step "Real daemons, one case after the other: some minutes"
status=0
tests=()
for name in replication partition lying_holder faults; do
    tests+=(--test "$name")
done
cargo test --workspace --locked "${tests[@]}" -- --nocapture --test-threads 1 >"$log" 2>&1 || status=$?
if [ "$status" -ne 0 ]; then
    cat "$log"
    die "a case failed"
fi
grep -oE 'counts: .*' "$log" || die "no case has counted anything"
grep -E '^test result' "$log"
say "nothing acknowledged was lost, and nothing that was deleted came back"
