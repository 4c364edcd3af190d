#!/usr/bin/env bash
# Builds and runs the benchmarks: one table, and bench.json in the target folder.
# SUITE=name: that suite only. QUICK=1: fewer blocks where storing them takes minutes.
# The stores are made in the target folder, so that is the disk that is measured; BENCH_DIR=folder names another one.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

quick=()
[ -z "${QUICK:-}" ] || [ "$QUICK" = 0 ] || quick=(--quick)

scripts/setup.sh --bench
step "Building the benchmarks"
cargo build --workspace --bins --locked
# A run that was broken off leaves its store behind; another folder is the user's, and stays.
rm -rf "$CARGO_TARGET_DIR/bench"
step "Measuring; for figures that mean something, let nothing else run"
exec "$BIN/imira-bench" --suite "${SUITE:-}" "${quick[@]}" --json "$CARGO_TARGET_DIR/bench.json" \
    --folder "${BENCH_DIR:-$CARGO_TARGET_DIR/bench}"
