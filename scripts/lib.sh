# shellcheck shell=bash
# Sourced by the other scripts: where things are, and how to talk to the person at the terminal.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export ROOT

# Outside the clone, so that a fresh clone finds RocksDB and libp2p compiled.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/imira/target}

# One profile for everything (root Cargo.toml), so there is one place where programs are.
BIN=$CARGO_TARGET_DIR/debug
export BIN

say() { printf '%s\n' "$*"; }
step() { printf '\n==> %s\n' "$*"; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

# version_at_least 1.95.0 1.94: true when the first is the second or newer.
version_at_least() {
    [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

# json 'o.peers' < document: prints the value of a JavaScript expression over the JSON on stdin. Node.js is needed anyway; jq is not.
json() {
    node -e '
        const o = JSON.parse(require("fs").readFileSync(0, "utf8"));
        const value = Function("o", "return " + process.argv[1])(o);
        console.log(typeof value === "object" ? JSON.stringify(value) : String(value));
    ' "$1"
}
