#!/usr/bin/env bash
# Licences, bans and sources of the dependencies: with cargo-deny where it is installed, else by what the packages declare.
# Known vulnerabilities are `make advisories`, which needs cargo-deny's database from the internet.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

step "Licences, bans and sources"
if have cargo-deny; then
    cargo deny check licenses bans sources
else
    node scripts/licences.mjs
    say "(cargo-deny is not installed, so licence texts were not read; cargo install cargo-deny --locked)"
fi
