#!/usr/bin/env bash
# `make demo`: three nodes, a platform and one published video on this machine, until Ctrl-C.
#   VIDEO=file  the video (default: a 75-second clip made here)
#   ONCE=1      instead of staying: play it to the end, check everything over HTTP, stop
#   UNTIL=s     with ONCE=1: play only this many seconds
#   PORT=n      first port (default 7000, or the next free thousand)
#   KEEP=1      go on with the data of the last run
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

readonly DATA=$ROOT/.demo
readonly LOG=$DATA/log
readonly HOST=127.0.0.1
readonly NODES=(1 2 3)
readonly DEFAULT_PORT=7000
readonly READY_S=60 # first start on a slow disk; usually 2
readonly STOP_S=5
readonly CLIP_S=75 # two token renewals, whatever the moment they fall on

names=() pids=() # of what was started, in order

main() {
    check_arguments
    if [ "${ONCE:-}" = 1 ]; then scripts/setup.sh --browser; else scripts/setup.sh; fi
    scripts/build.sh
    lock
    trap on_exit EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    prepare
    start_all
    publish
    if [ "${ONCE:-}" = 1 ]; then
        verify_and_stop
    else
        stay
    fi
}

check_arguments() {
    if [ -n "${VIDEO:-}" ] && ! [ -r "$VIDEO" ]; then
        die "cannot read VIDEO=$VIDEO"
    fi
    if [ -n "${VIDEO:-}" ] && ! [ -f "$VIDEO" ]; then
        die "VIDEO=$VIDEO is not a file"
    fi
}

# Held by the daemons as well: as long as one of them lives, the data is in use.
lock() {
    mkdir -p "$DATA"
    exec 9>"$DATA/lock"
    flock -n 9 || die "a demo of this clone is running already (or was killed and left its daemons); stop it first"
}

# --- data and keys -------------------------------------------------------------------------------

prepare() {
    if [ "${KEEP:-}" = 1 ] && [ -e "$DATA/settings" ]; then
        step "Going on with the data in .demo"
        # shellcheck disable=SC1091 # written by save_settings
        source "$DATA/settings"
        choose_ports "$base" fixed
        return
    fi
    find "$DATA" -mindepth 1 -maxdepth 1 ! -name lock -exec rm -rf {} +
    mkdir -p "$LOG"
    local mode=search
    [ -z "${PORT:-}" ] || mode=fixed
    choose_ports "${PORT:-$DEFAULT_PORT}" "$mode"
    make_network
    save_settings
}

# Offsets from the base port: the platform, then for each node its peers' port (UDP and TCP), delivery and control.
offsets=(0)
for n in "${NODES[@]}"; do
    offsets+=($((100 + n)) $((200 + n)) $((300 + n)))
done

choose_ports() {
    base=$(node scripts/ports.mjs "$1" "$2" "${offsets[@]}") || exit 1 # it has said why
    platform=http://$HOST:$base
}
peer_address() { say "$HOST:$((base + 100 + $1))"; }
delivery() { say "$HOST:$((base + 200 + $1))"; }
control() { say "$HOST:$((base + 300 + $1))"; }

make_network() {
    step "Making a network, a platform and three nodes in .demo"
    "$BIN/imira-node" network new --out "$DATA/network" >>"$LOG/init.log" 2>&1
    local network_id platform_nodes=() bootstrap=()
    network_id=$("$BIN/imira-node" network show "$DATA/network" | grep -oE '[0-9a-f]{32}' | head -n 1)
    for n in "${NODES[@]}"; do
        platform_nodes+=(--node "demo=http://$(control "$n")")
    done
    "$BIN/imira-platform" init --data "$DATA/platform" --listen "$HOST:$base" --public-url "$platform" \
        --network "demo=$network_id" "${platform_nodes[@]}" >>"$LOG/init.log" 2>&1
    for n in "${NODES[@]}"; do
        local address
        address=$("$BIN/imira-node" init --data "$DATA/node$n" --network "$DATA/network" \
            --listen "$(peer_address "$n")" --delivery "$(delivery "$n")" --control "$(control "$n")" \
            --platform-key "$DATA/platform/platform.pub.pem" \
            --cors-origin "$platform" --cors-origin "http://localhost:$base" \
            "${bootstrap[@]}" 2>>"$LOG/init.log" | grep -oE '/ip4/[^[:space:]]*' | head -n 1)
        bootstrap+=(--bootstrap "$address")
    done
    "$BIN/imira-platform" user add --data "$DATA/platform" demo >"$DATA/user" 2>>"$LOG/init.log"
    # The key is the last word printed.
    api_key=$(awk 'NF { last = $NF } END { print last }' "$DATA/user")
    rm "$DATA/user"
}

save_settings() {
    (umask 077 && printf 'base=%q\napi_key=%q\n' "$base" "$api_key" >"$DATA/settings")
}

# --- processes -----------------------------------------------------------------------------------

start_all() {
    step "Starting three nodes and the platform"
    for n in "${NODES[@]}"; do
        start "node$n" "$BIN/imira-node" run --data "$DATA/node$n"
    done
    for n in "${NODES[@]}"; do
        wait_until "node $n knows the other two" knows_the_others "$n"
    done
    # It asks its nodes for their state before it listens.
    start platform "$BIN/imira-platform" run --data "$DATA/platform" --web "$ROOT/platform/web/dist"
    wait_until "the platform answers" curl -fsS -o /dev/null "$platform/healthz"
}

# start NAME COMMAND...: runs it with its output in .demo/log/NAME.log, in a process group of its own, so that the
# terminal's Ctrl-C reaches this script alone and whatever the daemon leaves behind (FFmpeg) can be stopped with it.
start() {
    local name=$1
    shift
    set -m
    NO_COLOR=1 "$@" </dev/null >>"$LOG/$name.log" 2>&1 &
    pids+=($!)
    set +m
    names+=("$name")
}

knows_the_others() {
    local peers
    peers=$(curl -fsS "http://$(control "$1")/v1/node" | json o.peers) && [ "$peers" -ge $((${#NODES[@]} - 1)) ]
}

# wait_until WHAT COMMAND...: asks again until the command succeeds; gives up when a daemon has ended or time is over.
wait_until() {
    local what=$1 deadline=$((SECONDS + READY_S))
    shift
    until "$@" 2>/dev/null; do
        check_alive
        [ "$SECONDS" -lt "$deadline" ] || die "waited $READY_S s in vain: $what"
        sleep 0.2
    done
}

check_alive() {
    local i
    for i in "${!pids[@]}"; do
        kill -0 "${pids[i]}" 2>/dev/null || die "${names[i]} has ended"
    done
}

# Stops what was started, last first: TERM, and KILL to what is left after STOP_S. Fails if something had to be killed
# or did not end well.
stop_all() {
    local i clean=0
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        kill -TERM "${pids[i]}" 2>/dev/null || true
    done
    local deadline=$((SECONDS + STOP_S))
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        while kill -0 "${pids[i]}" 2>/dev/null && [ "$SECONDS" -le "$deadline" ]; do sleep 0.1; done
        # The group outlives its leader where a child does.
        if kill -KILL -- "-${pids[i]}" 2>/dev/null; then
            say "${names[i]} or a child of it did not stop within $STOP_S s and was killed"
            clean=1
        fi
        local code=0
        wait "${pids[i]}" 2>/dev/null || code=$?
        [ "$code" -eq 0 ] || { say "${names[i]} ended with status $code" && clean=1; }
    done
    pids=() names=()
    return "$clean"
}

on_exit() {
    local code=$?
    trap '' INT TERM HUP
    if [ "${#pids[@]}" -gt 0 ]; then
        step "Stopping"
        stop_all && say "All stopped."
    fi
    case $code in
    0) ;;
    130 | 143) [ -n "${staying:-}" ] && code=0 ;; # the way to end a demo that stays
    *) show_logs ;;
    esac
    exit "$code"
}

show_logs() {
    local file
    for file in "$LOG"/*.log; do
        [ -s "$file" ] || continue
        printf '\n--- the end of .demo/log/%s\n' "$(basename "$file")"
        tail -n 15 "$file"
    done >&2
}

# --- the video -----------------------------------------------------------------------------------

publish() {
    if [ "${KEEP:-}" = 1 ] && [ -z "${VIDEO:-}" ] && [ -s "$DATA/upload.txt" ]; then
        read_links
        return
    fi
    local video=${VIDEO:-$DATA/clip.mp4} title
    [ -e "$video" ] || make_clip "$video"
    title=$(basename "${video%.*}")
    step "Uploading $video"
    IMIRA_API_KEY=$api_key "$BIN/imira-platform" upload --platform "$platform" --title "$title" "$video" >"$DATA/upload.new"
    mv "$DATA/upload.new" "$DATA/upload.txt"
    source_video=$video
    read_links
}

# Moving picture, running clock and a beep each second, all from FFmpeg itself (no font is needed).
make_clip() {
    step "Making a $CLIP_S-second test clip"
    ffmpeg -v error -nostdin -y \
        -f lavfi -i "testsrc2=size=1280x720:rate=30:duration=$CLIP_S" \
        -f lavfi -i "sine=frequency=330:beep_factor=4:sample_rate=48000:duration=$CLIP_S" \
        -c:v libx264 -preset veryfast -crf 23 -pix_fmt yuv420p -c:a aac -b:a 128k -movflags +faststart "$1"
}

read_links() {
    content_key=$(link 'content key')
    watch=$(link watch)
    hls=$(link hls)
    mp4=$(link mp4)
}

link() {
    sed -n "s/^$1: *//p" "$DATA/upload.txt" | tail -n 1
}

# --- what then -----------------------------------------------------------------------------------

stay() {
    local n
    cat <<TEXT

The video is published: its blocks are on three nodes, each block on two of them.

  watch    $watch
  ffplay   ffplay '$hls'
  vlc      vlc '$hls'
  curl     curl -L -o video.mp4 '$mp4'
  proxied  ${hls/\/play\//\/proxy\/}     (for devices that do not follow redirects)

  nodes    $(for n in "${NODES[@]}"; do printf 'http://%s/v1/node ' "$(control "$n")"; done)
  sign in  with this API key, to upload on $platform :
           $api_key
  logs     .demo/log

Ctrl-C stops everything.
TEXT
    staying=yes
    wait -n "${pids[@]}" || true
    check_alive
}

verify_and_stop() {
    step "Checking what a viewer gets"
    local controls=() n code=0
    for n in "${NODES[@]}"; do
        controls+=(--control "http://$(control "$n")")
    done
    node scripts/verify.mjs --platform "$platform" --key "$content_key" --watch "$watch" --hls "$hls" --mp4 "$mp4" \
        --source "${source_video:-$DATA/clip.mp4}" --log "$LOG" ${UNTIL:+--until "$UNTIL"} "${controls[@]}" || code=1
    check_alive
    step "Stopping"
    stop_all || code=1
    [ "$code" -eq 0 ] || die "not everything held; see above"
    say "Everything held, and all stopped cleanly."
}

main "$@"
