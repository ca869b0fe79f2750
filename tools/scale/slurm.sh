#!/usr/bin/env bash
# slurm.sh [--shared DIR]: `melo study --launcher slurm` on a real Slurm of one node on loopback, with cells killed, cancelled, and the node
# drained and lost.
#   --shared DIR  also two tasks and the backbone of DIR/study.toml, by three methods
#   MELO          the binary (target/release/melo, else target/debug/melo)
# As root, it installs slurm-wlm and munge from Debian where they are missing; they run without systemd, from a temporary folder. One line a
# claim; exit status 1 where one does not hold.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
melo=${MELO:-$root/target/release/melo}
[ -x "$melo" ] || melo=$root/target/debug/melo
[ -x "$melo" ] || { echo "slurm: no binary of melo: build one, or name it by MELO" >&2; exit 2; }
melo=$(realpath "$melo")
[ "$(id -u)" = 0 ] || { echo "slurm: SKIPPED, not root"; exit 0; }
if ! command -v slurmctld > /dev/null || ! command -v munged > /dev/null; then
    command -v apt-get > /dev/null || { echo "slurm: SKIPPED, Slurm is not installed"; exit 0; }
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends slurm-wlm munge > /dev/null
fi

# A path with a space, since users have them.
work=$(mktemp -d "${TMPDIR:-/tmp}/melo slurm-XXXXXX")
cluster=$(mktemp -d "${TMPDIR:-/tmp}/melo-cluster-XXXXXX")
started=()
failed=0

cleanup() {
    scancel --name="$(squeue --noheader --format=%j 2> /dev/null | sort -u | paste -sd,)" 2> /dev/null || true
    for file in slurmd slurmctld munged; do
        [ -f "$cluster/$file.pid" ] && kill "$(cat "$cluster/$file.pid")" 2> /dev/null || true
    done
    for pid in "${started[@]}"; do kill -9 "$pid" 2> /dev/null || true; done
    wait 2> /dev/null || true
    sleep 2
    rm -rf "$work" "$cluster"
}
trap cleanup EXIT

claim() { # STATUS CLAIM DETAIL
    if [ "$1" = 0 ]; then echo "slurm: PASS  $2: $3"; else echo "slurm: FAIL  $2: $3"; failed=1; fi
}

start_cluster() {
    local host
    host=$(hostname -s)
    mkdir "$cluster"/{state,spool}
    (umask 077 && head -c 1024 /dev/urandom > "$cluster/munge.key")
    cat > "$cluster/slurm.conf" << END
ClusterName=melo
SlurmctldHost=$host(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$cluster/munge.socket
SlurmctldPort=${MELO_SCALE_PORT:-26817}
SlurmdPort=$((${MELO_SCALE_PORT:-26817} + 1))
StateSaveLocation=$cluster/state
SlurmdSpoolDir=$cluster/spool
SlurmctldPidFile=$cluster/slurmctld.pid
SlurmdPidFile=$cluster/slurmd.pid
SlurmctldLogFile=$cluster/slurmctld.log
SlurmdLogFile=$cluster/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=30
KillWait=5
MailProg=/bin/true
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=$host Default=YES MaxTime=INFINITE State=UP
END
    export SLURM_CONF=$cluster/slurm.conf
    node=$host
    munged --force --socket="$cluster/munge.socket" --key-file="$cluster/munge.key" --pid-file="$cluster/munged.pid" \
        --log-file="$cluster/munged.log" --seed-file="$cluster/munge.seed"
    slurmctld
    slurmd -N "$host"
    for _ in $(seq 50); do
        sinfo --noheader --format=%t 2> /dev/null | grep -q '^idle$' && return
        sleep 0.2
    done
    echo "slurm: the cluster does not start" >&2
    tail -n 5 "$cluster"/*.log >&2
    exit 1
}

# Two tasks that a small backbone can learn: stripes of two widths, squares in two corners, in noise.
make_study() {
    cp "$root/assets/vit_small_formula.safetensors" "$work/backbone.safetensors"
    PYTHONPATH=$root/tools/scale python3 - "$work" << 'END'
import csv, os, random, sys
from grey_png import grey_png

SIDE = 96

def stripes(x, y, label):
    return 180 if x // (6 + 6 * label) % 2 else 60

def corner(x, y, label):
    return 200 if x // 48 == label and y // 48 == label else 90

draw = random.Random(1)
for task, of in [("stripes", stripes), ("corner", corner)]:
    folder = os.path.join(sys.argv[1], task)
    os.mkdir(folder)
    with open(os.path.join(folder, "labels.csv"), "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "split", "label"])
        for split, images in [("train", 64), ("val", 24), ("test", 32)]:
            for index in range(images):
                name, label = f"{split}_{index}.png", index % 2
                noise = lambda value: min(255, max(0, int(draw.gauss(value, 60))))
                rows = [[noise(of(x, y, label)) for x in range(SIDE)] for y in range(SIDE)]
                with open(os.path.join(folder, name), "wb") as image:
                    image.write(grey_png(rows))
                table.writerow([name, split, "ab"[label]])
END
    cat > "$work/study.toml" << 'END'
[study]
name = "stripes and corners"
seeds = [0, 1]
methods = ["lora", "linear"]
bootstrap = 200
[train]
epochs = 12
batch_size = 8
[slurm]
cpus = 1
jobs = 2
[[backbone]]
name = "formula"
weights = "backbone.safetensors"
[[task]]
name = "stripes"
labels = "stripes/labels.csv"
[[task]]
name = "corner"
labels = "corner/labels.csv"
END
}

slurm() { # STUDY OUT ARGUMENT...
    "$melo" --threads 2 study "$1" --out "$2" --launcher slurm "${@:3}"
}

# Results without what depends on the clock and on memory.
same_results() { # OUT OUT
    python3 - "$1" "$2" << 'END'
import json, sys
CLOCK = {"seconds", "images_per_s", "peak_rss_bytes", "machine", "created", "train_images_per_s"}
def without(value):
    if isinstance(value, dict):
        return {key: without(inner) for key, inner in value.items() if not any(word in key for word in CLOCK)}
    return [without(inner) for inner in value] if isinstance(value, list) else value
first, second = (without(json.load(open(f"{out}/results.json"))) for out in sys.argv[1:])
differing = [key for key in first if first[key] != second.get(key)]
print(f"{first['study']['cells_done']} of {first['study']['cells']} cells, {'equal' if not differing else differing}")
sys.exit(bool(differing) or first["study"]["cells_done"] != first["study"]["cells"])
END
}

until_true() { # SECONDS COMMAND...
    for _ in $(seq $(($1 * 10))); do
        "${@:2}" && return
        sleep 0.1
    done
    return 1
}

claims() { # OUT: files of the cells that are computed now
    find "$1/cells" -name cell.claim 2> /dev/null
}

two_running() { # OUT
    [ "$(claims "$1" | wc -l)" -ge 2 ] && [ "$(squeue --noheader --states=running | wc -l)" -ge 2 ]
}

watch() { # STUDY OUT: in the background, its process in `watcher`
    # Not through a function: signals are for the program itself.
    "$melo" --threads 2 study "$1" --out "$2" --launcher slurm > "$2.log" 2>&1 &
    watcher=$!
    started+=("$watcher")
}

ended() { # PID EXPECTED: waits for a watcher
    local status=0
    wait "$1" || status=$?
    [ "$status" = "$2" ]
}

start_cluster
make_study
study=$work/study.toml
"$melo" --threads 2 study "$study" --out "$work/local" --jobs 2 > "$work/local.log" 2>&1

script=$(slurm "$study" "$work/dry" --dry-run --partition main --time 10 --sbatch=--nice=1)
holds=0
for line in '#SBATCH --array=1-8%2' '#SBATCH --partition=main' '#SBATCH --time=10' '#SBATCH --nice=1' '#SBATCH --cpus-per-task=1'; do
    grep -qxF -- "$line" <<< "$script" || holds=1
done
[ -z "$(squeue --noheader)" ] && [ ! -e "$work/dry/slurm" ] || holds=1
claim $holds "dry run" "$(wc -l <<< "$script") lines, nothing submitted"

status=0
said=$(slurm "$study" "$work/wrong" --partition nowhere 2>&1 > /dev/null | tail -n 1) || status=$?
holds=1
[ "$status" = 1 ] && grep -q 'sbatch refused: .*invalid partition specified: nowhere' <<< "$said" && [ -z "$(squeue --noheader)" ] && holds=0
claim $holds "wrong partition" "$said"

SECONDS=0
holds=0
slurm "$study" "$work/slurm" > "$work/slurm.log" 2>&1 || holds=1
detail=$(same_results "$work/local" "$work/slurm") || holds=1
claim $holds "the same results as here" "$detail, $SECONDS s"

# A cell killed, one cancelled, the watcher interrupted: the jobs go on, and the same command picks them up.
watch "$study" "$work/killed"
until_true 60 two_running "$work/killed" || true
victim=$(grep -o '"pid":[0-9]*' "$(claims "$work/killed" | head -n 1)" | cut -d: -f2)
kill -9 "$victim"
until_true 60 grep -q 'was lost and is submitted again' "$work/killed.log" && holds=0 || holds=1
claim $holds "a cell killed with -9" "$(grep -m 1 'was lost' "$work/killed.log" || tail -n 1 "$work/killed.log")"
until_true 60 two_running "$work/killed" || true
victim=$(squeue --noheader --array --states=running --format=%i | head -n 1)
scancel "$victim"
kill -INT "$watcher"
ended "$watcher" 130 && [ "$(squeue --noheader --array | wc -l)" -ge 1 ] && holds=0 || holds=1
claim $holds "watching stopped" "$(tail -n 1 "$work/killed.log")"
before=$(squeue --noheader --array --states=pending,running --format=%i)
status=0
slurm "$study" "$work/killed" > "$work/killed.log" 2>&1 || status=$?
detail=$(same_results "$work/local" "$work/killed") && [ "$status" = 0 ] && holds=0 || holds=1
again=$(grep -o '[0-9]* cells submitted' "$work/killed.log" | awk '{ cells += $1 } END { print cells + 0 }')
# The cancelled cell, and what was due when watching stopped: no more than are not in the queue.
[ "$again" -ge 1 ] && [ "$again" -le $((8 - $(wc -l <<< "$before"))) ] || holds=1
claim $holds "repaired by the same command" "$detail, $(wc -l <<< "$before") tasks picked up, $again submitted again"

# The node drained half-way, the watcher killed, the node back.
watch "$study" "$work/drained"
until_true 60 two_running "$work/drained" || true
scontrol update nodename="$node" state=drain reason=test
quiet() { [ -z "$(squeue --noheader --states=running,completing)" ]; }
until_true 120 quiet || true
until_true 60 grep -q 'waiting (' "$work/drained.log" && holds=0 || holds=1
claim $holds "a node drained" "$(grep 'waiting (' "$work/drained.log" | tail -n 1)"
kill -9 "$watcher"
wait "$watcher" 2> /dev/null || true
scontrol update nodename="$node" state=resume
status=0
slurm "$study" "$work/drained" > "$work/drained.log" 2>&1 || status=$?
detail=$(same_results "$work/local" "$work/drained") && [ "$status" = 0 ] && holds=0 || holds=1
grep -q 'cells submitted' "$work/drained.log" && holds=1
claim $holds "and back" "$detail, nothing submitted again"

# A node lost: Slurm starts its tasks again by itself, which take over what they left.
watch "$study" "$work/lost"
until_true 60 two_running "$work/lost" || true
scontrol update nodename="$node" state=down reason=test
sleep 3
# It may be back by itself.
scontrol update nodename="$node" state=resume 2> /dev/null || true
ended "$watcher" 0 && holds=0 || holds=1
detail=$(same_results "$work/local" "$work/lost") || holds=1
claim $holds "a node lost" "$detail"

if [ "${1:-}" = --shared ] && [ -f "${2:-}/study.toml" ]; then
    shared=$(realpath "$2")
    python3 - "$shared" > "$work/shared.toml" << 'END'
import re, sys, tomllib
root = sys.argv[1]
study = tomllib.load(open(f"{root}/study.toml", "rb"))
print('[study]\nname = "shared"\nseeds = [0, 1]\nmethods = ["lora", "linear"]\nbootstrap = 500\n[train]\nepochs = 3\n[slurm]\ncpus = 1\njobs = 2')
for kind, entries, key in [("backbone", study["backbone"], "weights"), ("task", study["task"][-2:], "labels")]:
    for entry in entries:
        print(f'[[{kind}]]\nname = "{entry["name"]}"\n{key} = "{root}/{entry[key]}"')
END
    "$melo" --threads 2 study "$work/shared.toml" --out "$work/shared-local" --jobs 2 > "$work/shared-local.log" 2>&1
    SECONDS=0
    holds=0
    slurm "$work/shared.toml" "$work/shared" > "$work/shared.log" 2>&1 || holds=1
    detail=$(same_results "$work/shared-local" "$work/shared") || holds=1
    claim $holds "the shared study, the same results as here" "$detail, $SECONDS s"
fi
exit $failed
