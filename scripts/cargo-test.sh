#!/usr/bin/env bash
# Runs the Rust tests with cargo-nextest where it is installed, else with cargo test. Arguments go to the runner.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

if have cargo-nextest; then
    exec cargo nextest run --workspace --locked "$@"
fi
exec cargo test --workspace --locked "$@"
