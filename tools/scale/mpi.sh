#!/usr/bin/env bash
# mpi.sh [--shared DIR] [--pairs N]: `mpirun … melo train` on Open MPI and MPICH of this machine: the same bytes with any number of ranks, ranks
# that are killed, and how fast two ranks are.
#   --shared DIR  also DeiT-Tiny and a task of DIR (models/deit_tiny_patch16_224.safetensors, data/wbc_bccd4), and the speed on them
#   --pairs N     pairs of trainings whose speed is compared, in turn (3; 0 none)
#   MELO          the binary (target/release/melo, else target/debug/melo)
# As root, it installs openmpi-bin and mpich from Debian where they are missing. One line a claim; exit status 1 where one does not hold.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
melo=${MELO:-$root/target/release/melo}
[ -x "$melo" ] || melo=$root/target/debug/melo
[ -x "$melo" ] || { echo "mpi: no binary of melo: build one, or name it by MELO" >&2; exit 2; }
melo=$(realpath "$melo")
shared='' pairs=3
while [ $# -gt 0 ]; do
    case $1 in
    --shared) shared=$(realpath "$2"); shift 2 ;;
    --pairs) pairs=$2; shift 2 ;;
    *) echo "mpi: what is $1?" >&2; exit 2 ;;
    esac
done
if ! command -v mpirun.openmpi > /dev/null || ! command -v mpirun.mpich > /dev/null; then
    { command -v apt-get > /dev/null && [ "$(id -u)" = 0 ]; } || { echo "mpi: SKIPPED, Open MPI and MPICH are not installed"; exit 0; }
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends openmpi-bin mpich > /dev/null
fi
# A path with a space, since users have them. A day, so that midnight changes no byte.
work=$(mktemp -d "${TMPDIR:-/tmp}/melo mpi-XXXXXX")
export SOURCE_DATE_EPOCH=1700000000
failed=0 launcher=''

cleanup() {
    [ -z "$launcher" ] || kill -9 "$launcher" 2> /dev/null || true
    rm -rf "$work"
}
trap cleanup EXIT

claim() { # STATUS CLAIM DETAIL
    if [ "$1" = 0 ]; then echo "mpi: PASS  $2: $3"; else echo "mpi: FAIL  $2: $3"; failed=1; fi
}

openmpi() { # RANKS COMMAND...
    mpirun.openmpi --allow-run-as-root --oversubscribe -n "$@"
}

mpich() { # RANKS COMMAND...
    mpirun.mpich -n "$@"
}

# A task that a small backbone can learn: stripes of two widths, in noise; neither split is a multiple of the ranks.
make_task() {
    PYTHONPATH=$root/tools/scale python3 - "$work" << 'END'
import csv, os, random, sys
from grey_png import grey_png

SIDE = 96

draw = random.Random(1)
noise = lambda value: min(255, max(0, int(draw.gauss(value, 60))))
with open(os.path.join(sys.argv[1], "labels.csv"), "w", newline="") as file:
    table = csv.writer(file)
    table.writerow(["path", "split", "label"])
    for split, images in [("train", 61), ("val", 23), ("test", 29)]:
        for index in range(images):
            name, label = f"{split}_{index}.png", index % 2
            rows = [[noise(180 if x // (6 + 6 * label) % 2 else 60) for x in range(SIDE)] for _ in range(SIDE)]
            with open(os.path.join(sys.argv[1], name), "wb") as image:
                image.write(grey_png(rows))
            table.writerow([name, split, "ab"[label]])
END
}

backbone=$root/assets/vit_small_formula.safetensors
make_task
data=$work/labels.csv

train() { # NAME METHOD EPOCHS ARGUMENT...: with `start` before melo and `threads` after it
    "${start[@]}" "$melo" "${threads[@]}" train --backbone "$backbone" --data "$data" --out "$work/$1.safetensors" --task stripes \
        --method "$2" --epochs "$3" --patience 0 --batch-size "$batch" --json "${@:4}" > "$work/$1.log" 2>&1
}

same() { # NAME NAME: plug-ins, and fine-tuned backbones where there are any
    cmp -s "$work/$1.safetensors" "$work/$2.safetensors" || return
    [ ! -e "$work/$1.backbone.safetensors" ] || cmp -s "$work/$1.backbone.safetensors" "$work/$2.backbone.safetensors"
}

# Processes of a training, without its launcher.
ranks_of() { # NAME
    local process
    for process in /proc/[0-9]*; do
        [ "$(readlink "$process/exe" 2> /dev/null)" = "$melo" ] && grep -qF "$work/$1.safetensors" "$process/cmdline" && echo "${process#/proc/}"
    done || true
}

# Starts a training of many epochs, kills a rank with -9 after the first, and leaves its state.
killed() { # MPI RANKS NAME METHOD
    start=("$1" "$2") threads=(--threads 1)
    train "$3" "$4" "$epochs" &
    launcher=$!
    for _ in $(seq 1200); do
        [ -e "$work/$3.run/epochs.csv" ] && [ "$(wc -l < "$work/$3.run/epochs.csv")" -ge 2 ] && break
        sleep 0.05
    done
    local ranks status=0
    ranks=$(ranks_of "$3")
    kill -9 "$(tail -n 1 <<< "$ranks")"
    wait "$launcher" || status=$?
    launcher=''
    sleep 0.5
    [ "$status" != 0 ] && [ -n "$ranks" ] && [ -z "$(ranks_of "$3")" ] && [ ! -e "$work/$3.safetensors" ]
}

equal_plugins() { # MPI
    local name ranks
    for method in lora full linear adapter; do
        threads=(--threads 2) start=(env)
        # All weights: in 16 lanes, as with 16 threads.
        [ "$method" != full ] || threads=(--threads 16)
        [ -e "$work/alone-$method.safetensors" ] || train "alone-$method" "$method" 3
        threads=(--threads 1)
        for ranks in 1 2 4; do
            name=$1-$method-$ranks start=("$1" "$ranks")
            if train "$name" "$method" 3 && same "alone-$method" "$name"; then
                claim 0 "$1, $method, $ranks ranks" "plug-in byte-equal to one process"
            else
                claim 1 "$1, $method, $ranks ranks" "$(tail -n 1 "$work/$name.log")"
            fi
        done
    done
}

resumed_plugins() { # MPI METHOD: killed on 4 ranks, ended by 3
    local name=$1-$2-killed status=0
    threads=(--threads 2) start=(env)
    [ "$2" != full ] || threads=(--threads 16)
    [ -e "$work/long-$2.safetensors" ] || train "long-$2" "$2" "$epochs"
    killed "$1" 4 "$name" "$2" || status=1
    claim "$status" "$1, $2, kill -9 of a rank of 4" "the job ends, epochs done stay: $(($(wc -l < "$work/$name.run/epochs.csv") - 1)) of $epochs"
    start=("$1" 3) threads=(--threads 1) status=0
    train "$name" "$2" "$epochs" --resume && same "long-$2" "$name" || status=1
    claim "$status" "$1, $2, --resume on 3 ranks" "plug-in byte-equal to one process that was never killed"
}

one_line() { # CLAIM PATTERN NAME: one line of melo's has these words; nothing is written
    local lines
    lines=$(grep -c "^melo: .*$2" "$work/$3.log" || true)
    if [ "$lines" = 1 ] && [ ! -e "$work/$3.safetensors" ]; then
        claim 0 "$1" "$(grep "^melo: .*$2" "$work/$3.log" | cut -c -200)"
    else
        claim 1 "$1" "$lines lines: $(grep -m 1 '^melo: ' "$work/$3.log" || tail -n 1 "$work/$3.log")"
    fi
}

failures() { # MPI
    local other=libmpich.so.12
    [ "$1" = openmpi ] || other=libmpi.so.40
    threads=(--threads 1) start=("$1" 3)
    MELO_MPI=/nowhere/libmpi.so train "$1-none" lora 3 || true
    one_line "$1, no library" "/nowhere/libmpi.so" "$1-none"
    MELO_MPI=$other train "$1-other" lora 3 || true
    one_line "$1, another's library" "it is not the launcher's" "$1-other"
    train "$1-usage" lora 3 --image-size 97 || true
    one_line "$1, wrong usage" "image size 97" "$1-usage"
    cp -r "$work" "$work.broken"
    echo broken > "$work.broken/train_3.png"
    data="$work.broken/labels.csv" train "$1-broken" lora 3 || true
    one_line "$1, a broken image" "1 of 84 images.*train_3.png" "$1-broken"
    rm -r "$work.broken"
    # Rank 1 has another seed than rank 0.
    local seeded=("$melo" --threads 1 train --backbone "$backbone" --data "$data" --out "$work/$1-differs.safetensors" --seed)
    "$1" 1 "${seeded[@]}" 0 : -n 1 "${seeded[@]}" 1 > "$work/$1-differs.log" 2>&1 || true
    one_line "$1, ranks of other settings" 'differs from rank 0 in setting `seed`: 1, rank 0 has 0' "$1-differs"
}

seconds_after_first() { # NAME: of all epochs but the first
    python3 -c 'import csv, sys; print(sum(float(row["seconds"]) for row in list(csv.DictReader(open(sys.argv[1])))[1:]))' "$work/$1.run/epochs.csv"
}

# Two ranks of a thread against two threads, in turn, by the seconds of epochs after the first.
speed() { # NAME
    local ratios=() pair batch=32
    for pair in $(seq "$pairs"); do
        start=(taskset -c 0,1) threads=(--threads 2)
        train "speed-threads" lora 4 --overwrite
        start=(openmpi 2 --bind-to none taskset -c 0,1) threads=(--threads 1)
        train "speed-ranks" lora 4 --overwrite
        ratios+=("$(python3 -c "print(f'{$(seconds_after_first speed-threads) / $(seconds_after_first speed-ranks):.3f}')")")
    done
    local median
    median=$(printf '%s\n' "${ratios[@]}" | sort -n | sed -n "$(((pairs + 1) / 2))p")
    claim "$(python3 -c "print(int($median < 0.95))")" "$1, 2 ranks of a thread against 2 threads" "efficiency $median (pairs ${ratios[*]})"
}

# 2 and 4 ranks of half a core each against one, in turn.
slices() {
    local pair ranks alone batch=32
    for pair in $(seq "$pairs"); do
        for ranks in 1 2 4; do
            start=(openmpi "$ranks" --bind-to none "$root/tools/scale/slice.sh" 50) threads=(--threads 1)
            train sliced lora 3 --overwrite
            if [ "$ranks" = 1 ]; then
                alone=$(seconds_after_first sliced)
            else
                echo "mpi:       $ranks ranks of half a core each: efficiency $(python3 -c "print(f'{$alone / $ranks / $(seconds_after_first sliced):.3f}')")"
            fi
        done
    done
}

epochs=12 batch=10
for mpi in openmpi mpich; do
    equal_plugins "$mpi"
    resumed_plugins "$mpi" lora
    resumed_plugins "$mpi" full
    failures "$mpi"
done
if [ -n "$shared" ]; then
    backbone=$shared/models/deit_tiny_patch16_224.safetensors data=$shared/data/wbc_bccd4/labels.csv
    start=(env) threads=(--threads 2)
    train "alone-shared" lora 1
    threads=(--threads 1)
    for ranks in 2 4; do
        start=(openmpi "$ranks") status=0
        train "shared-$ranks" lora 1 && same alone-shared "shared-$ranks" || status=1
        claim "$status" "openmpi, DeiT-Tiny, $ranks ranks" "plug-in byte-equal to one process"
    done
fi
if [ "$pairs" != 0 ]; then
    speed "$(basename "$backbone" .safetensors)"
    [ "$(id -u)" != 0 ] || slices
fi
exit "$failed"
