#!/usr/bin/env bash
# Format, clippy, shellcheck where it is installed. Changes nothing.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

step "Format"
cargo fmt --all --check
step "Clippy"
# With what only the fuzz targets use, so that it does not rot.
cargo clippy --workspace --all-targets --locked --features control-api/fuzzing,dht/fuzzing,transcode/fuzzing -- -D warnings
if have shellcheck; then
    step "Shell scripts"
    shellcheck -x scripts/*.sh packaging/postinst packaging/prerm packaging/postrm .ci/run
else
    say "(shellcheck is not installed; the shell scripts were not checked)"
fi
