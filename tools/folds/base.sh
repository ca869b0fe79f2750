#!/usr/bin/env bash
# base.sh SHARED OUT: what should folds begin with, and change?
# Five folds of the last two blocks from nothing (late), and on top of one plug-in of all blocks that was merged into its backbone (on), with
# updates of several projections and ranks; DeiT-Tiny at 112 px, bf16. Prints the macro AUC on the test split of each.
#   MELO   the program [target/release/melo]
set -euo pipefail
shared=$1 out=$2 melo=${MELO:-target/release/melo}
mkdir -p "$out"
backbone=$shared/models/deit_tiny_patch16_224.safetensors
train() { # BACKBONE NAME flags…
    "$melo" train --backbone "$1" --data "$data" --out "$out/$2.safetensors" --precision bf16 --image-size 112 --no-scope --overwrite "${@:3}" > "$out/$2.log" 2>&1
    "$melo" plugin info --json "$out/$2.safetensors" | python3 -c "import json, sys; print('$2', round(json.load(sys.stdin)['card']['metrics']['test_auc_macro'], 3))"
}
for task in wbc_bccd4 oct_dme2 mammo_mias_density3 fundus_dr3; do
    data=$shared/data/$task/labels.csv
    train "$backbone" "$task.one" --epochs 10
    train "$backbone" "$task.late" --epochs 10 --lr 0.004 --folds 5 --last-k 2 --targets q,k,v,o,fc1,fc2
    "$melo" plugin merge "$out/$task.one.safetensors" --backbone "$backbone" --layout timm --out "$out/$task.merged.safetensors" > /dev/null
    for rank in 4 12; do
        train "$out/$task.merged.safetensors" "$task.on-$rank" --epochs 5 --lr 0.004 --folds 5 --last-k 2 --targets q,v --rank "$rank"
    done
    train "$out/$task.merged.safetensors" "$task.on-all" --epochs 5 --lr 0.004 --folds 5 --last-k 2 --targets q,k,v,o,fc1,fc2
done
