#!/usr/bin/env bash
# `make fuzz`: every fuzz target for SECONDS_EACH seconds (60). Needs a nightly toolchain and cargo-fuzz.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

if ! cargo +nightly fuzz --version >/dev/null 2>&1; then
    die "fuzzing needs a nightly toolchain and cargo-fuzz: rustup toolchain install nightly && cargo install cargo-fuzz"
fi
# The blocks of the index format's test vectors, for a start.
seed() {
    # shellcheck disable=SC2016 # the ${} are JavaScript's
    node -e '
        const fs = require("fs");
        for (const name of ["small", "paged"]) {
            const { blocks } = JSON.parse(fs.readFileSync(`chunkstore/block/vectors/${name}.json`));
            for (const [id, hex] of Object.entries(blocks)) fs.writeFileSync(`${process.argv[1]}/${id}`, Buffer.from(hex, "hex"));
        }
    ' "$1"
}

# The fuzzers' own flags would rebuild everything else in the shared folder.
export CARGO_TARGET_DIR=$CARGO_TARGET_DIR-fuzz
for source in fuzz/fuzz_targets/*.rs; do
    target=$(basename "$source" .rs)
    step "Fuzzing $target for ${SECONDS_EACH:-60} s"
    seeds=$CARGO_TARGET_DIR/corpus/$target
    mkdir -p "$seeds"
    seed "$seeds"
    cargo +nightly fuzz run "$target" "$seeds" -- -max_total_time="${SECONDS_EACH:-60}" -rss_limit_mb=2048
done
