#!/usr/bin/env bash
# The tests in Python: a second reader and writer of the index format (docs/index-format.md) against the test vectors, and a second
# peer (docs/protocol.md) against vectors of its own and against real nodes, which must have been built.
# With arguments, runs Python in that environment instead: scripts/python.sh make_vectors.py
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT/tests/python"

# One environment for each list of packages and Python, so that a change of either makes a new one.
key=$( (cat requirements.txt && python3 -VV) | cksum | cut -d ' ' -f 1)
environment=$CARGO_TARGET_DIR/python/$key

# Made aside and then moved, so that a broken download leaves nothing that looks whole, and two runs do not meet.
make_environment() {
    local fresh
    mkdir -p "$CARGO_TARGET_DIR/python"
    fresh=$(mktemp -d "$CARGO_TARGET_DIR/python/new-XXXXXX")
    # shellcheck disable=SC2064 # the name as it is now
    trap "rm -rf '$fresh'" EXIT
    python3 -m venv "$fresh"
    "$fresh/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: -r requirements.txt
    # Fails where another run was faster: then that one is used.
    mv -T "$fresh" "$environment" 2>/dev/null || [ -x "$environment/bin/python" ]
}

if [ ! -x "$environment/bin/python" ]; then
    step "Installing the Python packages"
    make_environment
fi
[ "$#" -eq 0 ] || exec "$environment/bin/python" -B "$@"
step "Python tests"
# -B: no compiled files among the sources.
"$environment/bin/python" -B -m unittest discover --top-level-directory . --pattern 'test_*.py'
