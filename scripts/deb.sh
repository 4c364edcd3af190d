#!/usr/bin/env bash
# Makes the Debian package of imira-node in target/debian (DEB_DIR=folder: there), from the program that `make build` made.
# DEB_VERSION=version: another one than Cargo.toml's.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

readonly NAME=imira-node

have dpkg-deb || die "dpkg-deb is missing: Debian packages are made on Debian and its relatives"
[ -x "$BIN/$NAME" ] || die "$BIN/$NAME is not built; run \`make build\` first (\`make deb\` does)"
version=${DEB_VERSION:-$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)}
architecture=$(dpkg --print-architecture)
out=${DEB_DIR:-$CARGO_TARGET_DIR/debian}
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root

# place mode source destination: a file of the package.
place() {
    install -D -m "$1" "$2" "$root/$3"
}

# The libraries that the program is linked with, as versions of packages.
depends() {
    mkdir -p "$work/shlibs/debian"
    printf 'Source: %s\n\nPackage: %s\nArchitecture: any\n' "$NAME" "$NAME" >"$work/shlibs/debian/control"
    (cd "$work/shlibs" && dpkg-shlibdeps -O "$root/usr/bin/$NAME" 2>/dev/null) | sed -n 's/^shlibs:Depends=//p'
}

umask 022
place 755 "$BIN/$NAME" usr/bin/$NAME
# The program is built with line tables for backtraces in development; the names of functions stay.
strip --strip-debug "$root/usr/bin/$NAME"
program=$root/usr/bin/$NAME

place 644 packaging/imira-node.service usr/lib/systemd/system/imira-node.service
place 644 packaging/copyright usr/share/doc/$NAME/copyright
place 644 README.md usr/share/doc/$NAME/README.md
gzip -9n <CHANGELOG.md >"$work/changelog.gz"
place 644 "$work/changelog.gz" usr/share/doc/$NAME/changelog.gz
mkdir -p "$work/man"
"$program" man --out "$work/man"
gzip -9n "$work"/man/*.1
for page in "$work"/man/*.1.gz; do
    place 644 "$page" "usr/share/man/man1/$(basename "$page")"
done
"$program" completions bash >"$work/bash" && place 644 "$work/bash" usr/share/bash-completion/completions/$NAME
"$program" completions zsh >"$work/zsh" && place 644 "$work/zsh" usr/share/zsh/vendor-completions/_$NAME
"$program" completions fish >"$work/fish" && place 644 "$work/fish" usr/share/fish/vendor_completions.d/$NAME.fish
"$program" config >"$work/config.toml" && place 640 "$work/config.toml" etc/$NAME/config.toml
install -d -m 750 "$root/etc/$NAME" "$root/etc/$NAME/platforms"

libraries=$(depends)
[ -n "$libraries" ] || die "dpkg-shlibdeps (of dpkg-dev) did not say which libraries $NAME needs"
mkdir "$root/DEBIAN"
sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" -e "s/@DEPENDS@/$libraries/" \
    -e "s/@SIZE@/$(du -sk --exclude=DEBIAN "$root" | cut -f 1)/" packaging/control.in >"$root/DEBIAN/control"
printf '/etc/%s/config.toml\n' "$NAME" >"$root/DEBIAN/conffiles"
install -m 755 packaging/postinst packaging/prerm packaging/postrm "$root/DEBIAN/"
(cd "$root" && find . -type f -not -path './DEBIAN/*' -printf '%P\0' | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"

package=$out/${NAME}_${version}_$architecture.deb
dpkg-deb --root-owner-group -Zxz -z1 --build "$root" "$package" >/dev/null
say "$package"
