#!/usr/bin/env bash
# What has to hold on a card, to be run where there is one. NEVER RUN SO FAR: there was none.
#
#     tools/gpu/check.sh [FOLDER]        # FOLDER with vit.safetensors and labels.csv trains, else generated images do
#
# Kernels against f64, the laws of the engine, the same bytes twice, a training beside the processor's, memory that does not do, and
# compute-sanitizer where CUDA's toolkit is installed.
set -euo pipefail
cd "$(dirname "$0")/../.."
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
export MELO_TEST_CUDA=1

echo "== kernels and laws, on the card"
cargo test -p melo-cuda --locked
cargo test -p melo-model --locked --test laws engines:: gradients::

echo "== a training beside the processor's, twice"
cargo build --release --locked --features cuda
melo=$PWD/target/release/melo
folder=${1:-$(mktemp -d)}
if [ ! -e "$folder/labels.csv" ]; then
    "$melo" quickstart "$folder" > /dev/null
    cp "$folder/backbone.safetensors" "$folder/vit.safetensors"
    cp -r "$folder/fundus/." "$folder"
fi
for run in cpu cuda cuda-again; do
    "$melo" --device "${run%-again}" train --backbone "$folder/vit.safetensors" --data "$folder/labels.csv" --out "$folder/$run.safetensors" --seed 0
done
cmp "$folder/cuda.safetensors" "$folder/cuda-again.safetensors"
for device in cpu cuda; do
    for plugin in cpu cuda; do
        "$melo" --device $device eval --backbone "$folder/vit.safetensors" --plugin "$folder/$plugin.safetensors" --data "$folder/labels.csv"
    done
done

echo "== memory that does not do"
if "$melo" --device cuda bench infer --arch vit_giant_patch14_reg4_dinov2 --batch-size 100000 2> "$folder/memory.txt"; then
    echo "it did"
else
    grep -i memory "$folder/memory.txt"
fi

if command -v compute-sanitizer > /dev/null; then
    echo "== compute-sanitizer"
    binary=$(cargo test -p melo-cuda --locked --test oracle --no-run --message-format=json | sed -n 's/.*"executable":"\([^"]*oracle[^"]*\)".*/\1/p' | tail -n 1)
    for tool in memcheck racecheck synccheck; do
        compute-sanitizer --tool $tool --error-exitcode 1 "$binary"
    done
fi
