#!/usr/bin/env bash
# `make fuzz`: every fuzz target for SECONDS_EACH seconds (60). Needs cargo-fuzz, and a nightly toolchain or the stable one made to act
# as such. TARGETS="gate frames" runs those only.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

cargo fuzz --version >/dev/null 2>&1 || die "fuzzing needs cargo-fuzz: cargo install cargo-fuzz --locked"
nightly=(cargo +nightly)
if ! "${nightly[@]}" --version >/dev/null 2>&1; then
    # The compiler's own switch for unstable flags, of which the fuzzers need two.
    export RUSTC_BOOTSTRAP=1
    nightly=(cargo)
fi
# For a start of the target index: the blocks of each of the format's test vectors, pages before what names them, as
# fuzz/src/lib.rs reads them, behind the range from 1 to 1000.
seed() {
    # shellcheck disable=SC2016 # the ${} are JavaScript's
    node -e '
        const fs = require("fs");
        const read = (name) => JSON.parse(fs.readFileSync(`chunkstore/block/vectors/${name}.json`));
        const LEVEL_AT = 18; // of a page
        const u64 = (number) => Buffer.from(number.toString(16).padStart(16, "0"), "hex");
        const u16 = (number) => Buffer.from([number >> 8, number & 255]);
        for (const { content_key, blocks } of [read("small"), read("deep"), ...read("accepted"), ...read("refused")]) {
            const height = ([id, hex]) => (id === content_key ? 99 : parseInt(hex.slice(2 * LEVEL_AT, 2 * LEVEL_AT + 2), 16));
            const ordered = Object.entries(blocks).sort((one, other) => height(one) - height(other));
            const parts = ordered.map(([id, hex]) => Buffer.concat([Buffer.from(id, "hex"), u16(hex.length / 2), Buffer.from(hex, "hex")]));
            fs.writeFileSync(`${process.argv[1]}/${content_key}`, Buffer.concat([u64(1), u64(1000), ...parts]));
        }
    ' "$1"
}

# The fuzzers' own flags would rebuild everything else in the shared folder.
export CARGO_TARGET_DIR=$CARGO_TARGET_DIR-fuzz
read -ra targets <<<"${TARGETS:-}"
[ "${#targets[@]}" -ne 0 ] || targets=(fuzz/fuzz_targets/*.rs)
for source in "${targets[@]}"; do
    target=$(basename "$source" .rs)
    step "Fuzzing $target for ${SECONDS_EACH:-60} s"
    seeds=$CARGO_TARGET_DIR/corpus/$target
    mkdir -p "$seeds"
    [ "$target" != index ] || seed "$seeds"
    [ ! -d "fuzz/seeds/$target" ] || cp "fuzz/seeds/$target"/* "$seeds"
    "${nightly[@]}" fuzz run "$target" "$seeds" -- -max_total_time="${SECONDS_EACH:-60}" -rss_limit_mb=2048 -len_control=0
done
