#!/usr/bin/env bash
# The web pages: scripts/web.sh build|check|test|browser...   Each runs `npm ci` first if the lock file has changed since.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT/platform/web"

install() {
    # npm writes this file at the end of an installation.
    if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
        step "Installing the web packages"
        npm ci --no-audit --no-fund
    fi
}

install
for task in "$@"; do
    step "Web: $task"
    case $task in
    build) npm run --silent build ;;
    check) npm run --silent check ;;
    test) npm test --silent ;;
    browser) npm run --silent test:browser ;;
    *) die "no such task: $task" ;;
    esac
done
