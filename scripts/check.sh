#!/usr/bin/env bash
# The inner loop: format, lints, types, unit tests. A few minutes when nothing but our own code has changed.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

scripts/setup.sh
scripts/lint.sh
scripts/web.sh check test

step "Unit tests"
scripts/cargo-test.sh --lib --bins
