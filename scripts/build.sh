#!/usr/bin/env bash
# Builds the programs and the web pages.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

if ! compgen -G "$CARGO_TARGET_DIR/debug/deps/librocksdb-*.rlib" >/dev/null; then
    step "Building for the first time: RocksDB, libp2p and the rest take about 15 minutes on two cores, once"
    say "    They are kept in $CARGO_TARGET_DIR for the next build and the next clone."
else
    step "Building"
fi
# The whole workspace, so that the features of the dependencies are the same as for the tests and nothing is compiled twice.
cargo build --workspace --locked
scripts/web.sh build
