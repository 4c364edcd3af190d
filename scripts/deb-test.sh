#!/usr/bin/env bash
# Installs, starts, upgrades, removes and purges the Debian package on a copy-on-write image of this machine without a network: nothing
# outside of it changes. Only root can make one; without, the package is made and looked into.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

readonly DATA=/var/lib/imira-node ETC=/etc/imira-node CONTROL=http://127.0.0.1:7301
readonly OLD=0.0.1~test1 NEW=0.0.1~test2
# What systemd-analyze calls an exposure of 2.5 of 10; a unit without any sandbox has 9.6.
readonly MOST_EXPOSED=25

outside() {
    step "The Debian package"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    local old new
    old=$(DEB_VERSION=$OLD DEB_DIR=$work "$ROOT/scripts/deb.sh")
    new=$(DEB_VERSION=$NEW DEB_DIR=$work "$ROOT/scripts/deb.sh")
    look_into "$new"
    if [ "$(id -u)" -ne 0 ]; then
        say "(only root can install a package, if only on an image: that was not tried)"
        return
    fi
    ffmpeg -v error -f lavfi -i testsrc=duration=3:size=320x180:rate=25 -f lavfi -i sine=duration=3 -shortest -c:v libx264 \
        -preset ultrafast "$work/clip.mp4"
    cp "$BIN/imira-platform" "$work/"
    # A mount namespace, so that the mounts go with it; a network namespace with nothing but a loopback.
    unshare --mount --net --pid --fork --kill-child "$0" --on-an-image "$work" "$(basename "$old")" "$(basename "$new")"
    say "installed, started, upgraded with its data, removed and purged"
}

look_into() {
    local contents depends
    contents=$(dpkg-deb --contents "$1")
    depends=$(dpkg-deb --field "$1" Depends)
    for file in ./usr/bin/imira-node ./usr/lib/systemd/system/imira-node.service ./etc/imira-node/config.toml \
        ./usr/share/man/man1/imira-node.1.gz ./usr/share/man/man1/imira-node-run.1.gz \
        ./usr/share/bash-completion/completions/imira-node ./usr/share/doc/imira-node/copyright; do
        grep -q " $file\$" <<<"$contents" || die "$file is not in the package"
    done
    for package in ffmpeg libc6 libstdc++6; do
        grep -q "$package" <<<"$depends" || die "the package does not depend on $package: $depends"
    done
}

# The rest runs within the namespaces.
on_an_image() {
    local work=$1 image=$1/image
    ip link set lo up
    mkdir "$work/layers" "$image"
    # An overlay cannot lie upon another one.
    mount -t tmpfs -o size=2g tmpfs "$work/layers"
    mkdir "$work/layers/upper" "$work/layers/work"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$work/layers/upper,workdir=$work/layers/work" "$image"
    mount -t proc proc "$image/proc"
    mount --rbind /dev "$image/dev"
    mount -t tmpfs tmpfs "$image/run"
    mount -t tmpfs tmpfs "$image/tmp"
    mkdir "$image/tmp/given"
    mount --bind "$work" "$image/tmp/given"
    exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin:/tmp/given LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
        chroot "$image" /bin/bash -euo pipefail -c "
            ROOT=$(printf %q "$ROOT")
            $(declare -f say step die inside check start stop as_node installed upgraded gone)
            readonly DATA=$DATA ETC=$ETC CONTROL=$CONTROL MOST_EXPOSED=$MOST_EXPOSED
            inside /tmp/given/$2 /tmp/given/$3"
}

inside() {
    installed "$1"
    start
    local key
    key=$(imira-node put /tmp/given/clip.mp4 --platform-key /tmp/platform/platform.key.pem)
    stop
    upgraded "$2" "$key"
    gone
}

# check what command...: the command must succeed.
check() {
    local what=$1
    shift
    "$@" >/tmp/output 2>&1 || die "$what: $* failed: $(cat /tmp/output)"
}

installed() {
    check "the installation" dpkg --install "$1"
    grep -q 'waits for its network' /tmp/output || die "the installation does not say what to do next: $(cat /tmp/output)"
    check "a user of its own" id imira-node
    check "who owns what" test "$(stat -c '%U:%G %a' $DATA $ETC $ETC/config.toml $DATA/identity.key | tr '\n' ' ')" = \
        "imira-node:imira-node 700 root:imira-node 750 root:imira-node 640 imira-node:imira-node 600 "
    check "the unit" systemd-analyze verify imira-node.service
    check "the unit's sandbox" systemd-analyze security --offline=true --threshold=$MOST_EXPOSED imira-node.service
    check "the manual page" zgrep -q "^.TH imira-node" /usr/share/man/man1/imira-node.1.gz
    check "completions" bash -n /usr/share/bash-completion/completions/imira-node

    # What its operator does.
    imira-node network new --out /tmp/our.network >/dev/null
    install -g imira-node -m 0640 /tmp/our.network $ETC/network.toml
    imira-platform init --data /tmp/platform --network "ours=$(imira-node network show /tmp/our.network)" --node $CONTROL >/dev/null
    install -g imira-node -m 0640 /tmp/platform/platform.pub.pem $ETC/platforms/
    sed -i 's/^replication = .*/replication = 1/' $ETC/config.toml
}

# As the unit does it; systemd does not run here.
start() {
    local command
    command=$(sed -n 's/^ExecStart=//p' /usr/lib/systemd/system/imira-node.service)
    # shellcheck disable=SC2086 # a list of words
    as_node $command 2>>/tmp/log &
    node=$!
    for _ in $(seq 300); do
        curl -sf $CONTROL/readyz >/tmp/ready && return
        kill -0 $node || die "the node has ended: $(cat /tmp/log)"
        sleep 0.1
    done
    die "the node is not ready: $(cat /tmp/ready /tmp/log)"
}

as_node() {
    exec setpriv --reuid imira-node --regid imira-node --clear-groups --no-new-privs --bounding-set=-all "$@"
}

stop() {
    kill -TERM "$node"
    wait "$node" || die "the node does not stop well: $(cat /tmp/log)"
}

upgraded() {
    local identity
    identity=$(sha256sum $DATA/identity.key)
    printf '\n# My own words.\n' >>$ETC/config.toml
    check "the upgrade" dpkg --install "$1"
    check "the identity after it" test "$identity" = "$(sha256sum $DATA/identity.key)"
    check "the operator's configuration after it" grep -q 'My own words' $ETC/config.toml
    start
    check "the video after it" imira-node get content "$2" master.m3u8 --platform-key /tmp/platform/platform.key.pem
    grep -q EXTM3U /tmp/output || die "what comes is no playlist: $(cat /tmp/output)"
    check "a reload" kill -HUP "$node"
    stop
}

gone() {
    check "the removal" dpkg --remove imira-node
    check "the data after it" test -e $DATA/identity.key -a -d $DATA/blocks -a -e $ETC/config.toml -a ! -e /usr/bin/imira-node
    check "the purge" dpkg --purge imira-node
    check "nothing left" test ! -e $DATA -a ! -e $ETC
    ! getent passwd imira-node || die "the user is still there"
}

if [ "${1-}" = --on-an-image ]; then
    on_an_image "${@:2}"
else
    outside
fi
