#!/usr/bin/env bash
# Everything that CI runs. The Rust tests come last, so that their summary closes the output.
# MEDIA_DIR=folder: runs the demo on each .mp4 in it besides.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

# How much of a longer film the browser plays when it is one of many: enough for a token renewal.
readonly EXTRA_UNTIL_S=40
# A film up to this long is played to its end.
readonly EXTRA_FULL_S=60

scripts/setup.sh --browser --python --fuse --package
scripts/lint.sh
scripts/deny.sh
scripts/web.sh check test
scripts/build.sh
scripts/web.sh browser
scripts/python.sh
scripts/deb-test.sh

step "The demo, checked"
ONCE=1 scripts/demo.sh

for video in ${MEDIA_DIR:+"$MEDIA_DIR"/*.mp4}; do
    step "The demo on $(basename "$video"), checked"
    seconds=$(ffprobe -v error -show_entries format=duration -of csv=p=0 "$video")
    until=
    [ "${seconds%.*}" -le "$EXTRA_FULL_S" ] || until=$EXTRA_UNTIL_S
    ONCE=1 VIDEO=$video UNTIL=$until scripts/demo.sh
done

# The examples in the documentation, which the runner of the other tests leaves out.
step "Documentation tests"
cargo test --workspace --doc --locked --quiet

step "Rust tests"
scripts/cargo-test.sh --no-fail-fast
