#!/bin/bash
# Two replicas of `melo serve` behind deploy/haproxy.cfg, under load: one is killed with -9 and started again, then the other is asked to
# stop, then a plug-in is replaced in the shared folder. One line a claim; exit status 1 where one does not hold.
#
#     MELO=target/release/melo tools/scale/haproxy.sh          # the binary; else target/release/melo
#
# On loopback alone; HAProxy is installed from Debian where it is missing and this is root. Ports from $MELO_SCALE_PORT (18080) on.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
melo=${MELO:-$root/target/release/melo}
[ -x "$melo" ] || { echo "haproxy: no binary $melo: build one, or name it in MELO" >&2; exit 2; }
if ! command -v haproxy > /dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends haproxy > /dev/null
    else
        echo "haproxy: SKIPPED, HAProxy is not installed"
        exit 0
    fi
fi

work=$(mktemp -d)
port=${MELO_SCALE_PORT:-18080}
declare -A pids=()
failed=0

cleanup() {
    for pid in "${pids[@]}"; do kill -9 "$pid" 2> /dev/null || true; done
    wait 2> /dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

claim() { # NAME STATUS DETAIL
    if [ "$2" = 0 ]; then echo "haproxy: PASS  $1: $3"; else echo "haproxy: FAIL  $1: $3"; failed=1; fi
}

status() { curl -s -o /dev/null -m 5 -w '%{http_code}' "$1" || true; }

until_status() { # URL STATUS SECONDS
    for _ in $(seq $(($3 * 20))); do
        [ "$(status "$1")" = "$2" ] && return
        sleep 0.05
    done
    echo "haproxy: $1 never gave $2" >&2
    tail -n 3 "$work"/*.log >&2
    return 1
}

replica() { # N
    "$melo" --threads 1 serve --listen "127.0.0.1:$((port + $1))" --backbone "$work/backbone.safetensors" \
        --plugins "$work/plugins" --state "$work/melo-$1" --replica "melo-$1" --lame-duck-s 5 --log json \
        --audit-key "$work/audit.key" --audit-checkpoint "$work/melo-$1.checkpoint" --audit-checkpoint-s 1 \
        >> "$work/melo-$1.log" 2>&1 &
    pids[$1]=$!
}

load() { # SECONDS OUT
    "$melo" --threads 1 bench load --url "http://127.0.0.1:$port" --backbone "$work/backbone.safetensors" --plugins "$work/given" \
        --clients 8 --seconds "$1" --warmup 0 --image-size 64 --images 4 --json > "$2" 2> "$2.err"
}

figure() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$1" "$2"; }

judged() { # NAME OUT EXIT: that load had no failure and no wrong answer
    local text
    text="$(figure "$2" requests) requests, $(figure "$2" failures) failed, $(figure "$2" wrong) wrong, $(figure "$2" busy) told to wait" ||
        text=$(cat "$2.err")
    claim "$1" "$3" "$text"
    [ "$3" = 0 ] || tail -n 1 "$2.err" >&2
}

"$melo" bench fixtures "$work" --arch vit_tiny_patch8_32 --plugins 3 > /dev/null
"$melo" plugin keygen "$work/audit.key" > /dev/null 2>&1
cp -r "$work/plugins" "$work/given"
chmod -R a-w "$work/plugins"
before=$(cd "$work/plugins" && ls -lA --time-style=full-iso && sha256sum -- *)
replica 1
replica 2
MELO_LISTEN="127.0.0.1:$port" MELO_1="127.0.0.1:$((port + 1))" MELO_2="127.0.0.1:$((port + 2))" \
    haproxy -db -f "$root/deploy/haproxy.cfg" > "$work/haproxy.log" 2>&1 &
pids[haproxy]=$!
for n in 1 2; do until_status "http://127.0.0.1:$((port + n))/v2/health/ready" 200 60; done
until_status "http://127.0.0.1:$port/v2/health/live" 200 10

# Killed with -9 under load, and started again.
load 12 "$work/kill.json" &
loading=$!
sleep 4
kill -9 "${pids[1]}"
wait "${pids[1]}" 2> /dev/null || true
sleep 2
replica 1
until_status "http://127.0.0.1:$((port + 1))/v2/health/ready" 200 60
code=0; wait $loading || code=$?
judged "replica melo-1 killed with -9 under load and started again" "$work/kill.json" $code

# SIGTERM of the other: not ready at once, answering on, then gone.
load 14 "$work/term.json" &
loading=$!
sleep 4
kill -TERM "${pids[2]}"
sleep 0.5
ready=$(status "http://127.0.0.1:$((port + 2))/v2/health/ready")
tasks=$(status "http://127.0.0.1:$((port + 2))/v1/tasks")
code=0; wait "${pids[2]}" || code=$?
unset "pids[2]"
[ "$ready $tasks $code" = "503 200 0" ] && held=0 || held=1
claim "SIGTERM of melo-2" $held "ready $ready and still answering $tasks half a second later, exit status $code"
code=0; wait $loading || code=$?
judged "replica melo-2 stopped by SIGTERM under load" "$work/term.json" $code
answered=$(curl -s "http://127.0.0.1:$((port + 1))/metrics" | grep -c '^melo_queue_share ')
claim "metrics of what is left" $((1 - answered)) "melo_queue_share is there"

# A plug-in replaced in the shared folder is seen by all.
replica 2
until_status "http://127.0.0.1:$((port + 2))/v2/health/ready" 200 60
after=$(cd "$work/plugins" && ls -lA --time-style=full-iso && sha256sum -- *)
[ "$before" = "$after" ] && held=0 || held=1
claim "shared folder" $held "its files, times and rights are as before both replicas"
chmod -R u+w "$work/plugins"
first=$(cd "$work/plugins" && ls -- *.safetensors | head -n 1)
"$melo" bench fixtures "$work/newer" --arch vit_tiny_patch8_32 --plugins 1 --rank 8 > /dev/null
cp "$work/newer/plugins/$first" "$work/plugins/.new" && mv "$work/plugins/.new" "$work/plugins/$first"
digest=$(sha256sum "$work/plugins/$first" | cut -c1-64)
started=$SECONDS
for n in 1 2; do until_status "http://127.0.0.1:$((port + n))/v1/tasks/${first%.safetensors}@$digest" 200 20 || true; done
served=$(for n in 1 2; do status "http://127.0.0.1:$((port + n))/v1/tasks/${first%.safetensors}@$digest"; echo; done | sort -u | tr '\n' ' ')
[ "$served" = "200 " ] && held=0 || held=1
claim "a plug-in replaced in the shared folder" $held "served by both within $((SECONDS - started)) s"

for n in 1 2; do kill -TERM "${pids[$n]}"; done
for n in 1 2; do wait "${pids[$n]}" || true; unset "pids[$n]"; done
code=0
"$melo" audit verify "$work/melo-1/audit.sqlite" "$work/melo-2/audit.sqlite" --checkpoint "$work/melo-1.checkpoint" \
    --checkpoint "$work/melo-2.checkpoint" --public-key "$work/audit.pub" > "$work/verify.txt" 2>&1 || code=$?
claim "both audits" $code "$(tail -n 1 "$work/verify.txt")"
code=0
"$melo" audit verify "$work/melo-1/audit.sqlite" "$work/melo-1/audit.sqlite" > "$work/verify.txt" 2>&1 || code=$?
grep -q 'both of replica `melo-1`' "$work/verify.txt" && [ $code = 1 ] && held=0 || held=1
claim "two audits of one replica are refused" $held "$(tail -n 1 "$work/verify.txt" | sed "s|$work/||g")"
exit $failed
