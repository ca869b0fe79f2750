"""Trains and tests plug-ins on every task of a data folder, and prints a Markdown table.

    python tools/bench/seven_tasks.py --melo target/release/melo --backbone WEIGHTS.safetensors --data DATA --out OUT \
        [--seeds 0 1 2] [--task wbc_bccd4 ...]

DATA holds a folder for every task, each with a labels.csv. For every task and seed it runs `melo train` with its
defaults, once as it is (rank 4 on query and value) and once with `--rank 0` (linear probe), then `melo eval` on the test
split. A finished cell is kept in OUT and not run again. Needs Python 3.9, no packages.
"""

import argparse
import json
import subprocess
from pathlib import Path
from statistics import mean

METHODS = {"lora": [], "linear": ["--rank", "0"]}


def run(command):
    """The last line of a command's standard output, as JSON."""
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def cell(args, task, method, seed):
    """Trains and tests one plug-in, or returns what an earlier call found."""
    record = args.out / f"{task}.{method}.{seed}.json"
    if record.exists():
        return json.loads(record.read_text())
    plugin = record.with_suffix(".safetensors")
    labels = args.data / task / "labels.csv"
    common = ["--backbone", str(args.backbone), "--data", str(labels), "--json"]
    trained = run([args.melo, "train", *common, "--out", str(plugin), "--seed", str(seed), "--resume", *METHODS[method]])
    tested = run([args.melo, "eval", *common, "--plugin", str(plugin), "--split", "test"])
    result = {"train": trained, "test": tested}
    record.write_text(json.dumps(result))
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--melo", required=True)
    parser.add_argument("--backbone", required=True, type=Path)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--task", nargs="+")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    tasks = args.task or sorted(folder.parent.name for folder in args.data.glob("*/labels.csv"))
    print("| task | test n | linear AUC | plug-in AUC | difference | linear ACC | plug-in ACC | val AUC (plug-in) | minutes |")
    print("|---|---|---|---|---|---|---|---|---|")
    wins = 0
    for task in tasks:
        cells = {method: [cell(args, task, method, seed) for seed in args.seeds] for method in METHODS}

        def average(method, part, field):
            return mean(cell[part][field] for cell in cells[method])

        linear, lora = average("linear", "test", "auc_macro"), average("lora", "test", "auc_macro")
        wins += lora > linear
        print(
            f"| {task} | {cells['lora'][0]['test']['n']} | {linear:.4f} | {lora:.4f} | {lora - linear:+.4f} "
            f"| {average('linear', 'test', 'acc'):.3f} | {average('lora', 'test', 'acc'):.3f} "
            f"| {average('lora', 'train', 'val_auc_macro'):.4f} | {average('lora', 'train', 'seconds') / 60:.1f} |",
            flush=True,
        )
    print(f"\nThe plug-in has the higher test macro AUC on {wins} of {len(tasks)} tasks, seeds {args.seeds}.")


if __name__ == "__main__":
    main()
