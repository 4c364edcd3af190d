#!/usr/bin/env bash
# Installs what building and running needs and is missing, on Debian and Ubuntu; elsewhere says what to install.
# Usage: scripts/setup.sh [--browser] [--python] [--fuse] [--bench] [--package]
#   --browser: Chromium too (the tests and `make demo ONCE=1`)
#   --package: what makes the Debian package and looks at its systemd unit
#   --python, --fuse: Python, and what mounts file systems for users, too (the tests)
#   --bench: what delivery is measured with and against, too (nginx, wrk)
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

readonly NODE_MIN=18
readonly PYTHON_MIN=3.11

main() {
    local missing
    missing=$(missing_packages "$@")
    if [ -n "$missing" ]; then
        # shellcheck disable=SC2086 # a list of words
        install_packages $missing
        missing=$(missing_packages "$@")
        [ -z "$missing" ] || die "still missing after the installation: $(tr '\n' ' ' <<<"$missing")"
    fi
    check_node
    ! wants --python "$@" || check_python
    check_rust
}

# wants --browser "$@": true when the first is among the others.
wants() {
    local option
    for option in "${@:2}"; do
        [ "$option" != "$1" ] || return 0
    done
    return 1
}

# The Debian packages whose programs are not here, one a line. Takes the script's options.
missing_packages() {
    need cc gcc
    need g++ g++
    need make make
    need pkg-config pkg-config
    need clang++ clang
    has_libclang || say libclang-dev
    need ffmpeg ffmpeg
    need ffprobe ffmpeg
    need curl curl
    need node nodejs
    need npm npm
    # CHROMIUM names another one.
    if wants --browser "$@" && [ -z "${CHROMIUM:-}" ]; then
        need chromium chromium
    fi
    if wants --python "$@"; then
        need python3 python3
        # Debian's python3 alone has the module venv, and not what venv needs.
        python3 -c 'import ensurepip, venv' 2>/dev/null || say python3-venv
    fi
    if wants --bench "$@"; then
        need nginx nginx
        need openssl openssl
        need taskset util-linux
        need wrk wrk
    fi
    # Root mounts without help.
    if wants --fuse "$@" && [ "$(id -u)" -ne 0 ]; then
        need fusermount3 fuse3
    fi
    # The test of a partition makes network namespaces, which only root can.
    if wants --fuse "$@" && [ "$(id -u)" -eq 0 ]; then
        need ip iproute2
    fi
    if wants --package "$@"; then
        missing_for_the_package
    fi
    # The tests of a full disk mount an ext4 image, which only root can.
    if wants --fuse "$@" && [ "$(id -u)" -eq 0 ]; then
        need mkfs.ext4 e2fsprogs
    fi
}

# What makes and tests the Debian package, where there are Debian packages.
missing_for_the_package() {
    need strip binutils
    need dpkg-shlibdeps dpkg-dev
    need systemd-analyze systemd
    need unshare util-linux
}

need() {
    have "$1" || say "$2"
}

# bindgen loads libclang at build time; LIBCLANG_PATH is how it is told of an unusual place.
has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return
    local pattern
    for pattern in /usr/lib/llvm-*/lib /usr/lib /usr/lib/* /usr/lib64 /usr/local/lib; do
        compgen -G "$pattern/libclang.so*" >/dev/null && return
        compgen -G "$pattern/libclang-[0-9]*.so*" >/dev/null && return
    done
    return 1
}

install_packages() {
    local packages
    packages=$(printf '%s\n' "$@" | sort -u | tr '\n' ' ')
    if ! have apt-get; then
        die "this system has no apt-get; please install what these Debian packages hold, then try again: $packages"
    fi
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        have sudo || die "please install these packages as root, then try again: $packages"
        as_root=(sudo)
    fi
    step "Installing $packages"
    "${as_root[@]}" apt-get update -q
    # shellcheck disable=SC2086 # a list of words
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $packages
}

check_node() {
    local version
    version=$(node --version | tr -d v)
    version_at_least "$version" "$NODE_MIN" ||
        die "Node.js $NODE_MIN or newer is needed and $version is installed. Debian 12 and Ubuntu 24.04 package a new enough one; elsewhere see https://nodejs.org"
}

check_python() {
    local version
    version=$(python3 -c 'import platform; print(platform.python_version())')
    version_at_least "$version" "$PYTHON_MIN" ||
        die "Python $PYTHON_MIN or newer is needed and $version is installed. Debian 12 and Ubuntu 24.04 package a new enough one."
}

check_rust() {
    local wanted found
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml")
    if ! have cargo; then
        # rustup's own place, when the shell was started before rustup was installed
        [ -x "$HOME/.cargo/bin/cargo" ] && die "cargo is in ~/.cargo/bin but not on the PATH: open a new terminal, or run: . \"\$HOME/.cargo/env\""
        rust_help "Rust $wanted or newer is needed and cargo was not found."
    fi
    found=$(cd "$ROOT" && rustc --version | cut -d ' ' -f 2)
    version_at_least "${found%%-*}" "$wanted" || rust_help "Rust $wanted or newer is needed and $found is installed."
}

rust_help() {
    cat >&2 <<HELP
error: $1
  Get it with rustup, Rust's own installer: https://rustup.rs says how, in one line.
  It installs into your home folder and needs no root. If you have rustup already: rustup update stable
  (Debian 12's own Rust is too old, so this script does not install it.)
HELP
    exit 1
}

main "$@"
