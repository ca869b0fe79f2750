"""Which precision to train a plug-in in: the same tasks and seeds trained in f32, bf16 and int8, measured on the test split.

    cargo build --release
    python tools/peers/int8_trained.py --melo target/release/melo --data DATA --backbone vit.safetensors --work runs/trained
        [--tasks wbc_bccd4,fundus_dr3] [--seeds 0,1,2] [--precisions bf16,int8] [--train "--epochs 10"]

Prints one Markdown table of macro AUCs: each plug-in in the precision that it was trained in, and those of f32 in int8 too, recalibrated for
it. A seed is that of initial values, order and augmentation; splits are the manifests'. DATA, --work and what is needed: as int8_accuracy.py
has it, beside this.
"""

import argparse
import shlex
import statistics
from pathlib import Path

from int8_accuracy import Failed, digest, evaluate, melo


def train(args, task, seed, precision):
    plugin = args.work / f"{task}.{seed}.{precision}.safetensors"
    if not plugin.exists():
        data = ["--backbone", args.backbone, "--data", args.data / task / "labels.csv"]
        settings = ["--seed", seed, "--precision", precision, "--resume", *shlex.split(args.train)]
        melo(args, "train", *data, "--out", plugin, *settings)
    return plugin


def recalibrated(args, task, plugin):
    """The same with a temperature for int8: without one of its own it may be refused there."""
    out = plugin.with_suffix(".in_int8")
    if not out.exists():
        data = ["--backbone", args.backbone, "--data", args.data / task / "labels.csv"]
        melo(args, "plugin", "recalibrate", plugin, *data, "--precision", "int8", "--out", out)
    return out


def measured(args, task, seed):
    """AUCs of a seed: in their own precision, then f32's in int8."""
    plugins = [(precision, train(args, task, seed, precision)) for precision in args.precisions]
    asked = [*plugins, ("int8", recalibrated(args, task, plugins[0][1]))]
    return [evaluate(args, task, plugin, precision)[0]["auc_macro"] for precision, plugin in asked]


def show(task, seed, cells):
    print(f"| {task} | {seed} | " + " | ".join(cells) + " |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--melo", default="target/release/melo")
    parser.add_argument("--data", type=Path, required=True, help="folder of the tasks' folders")
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/trained"), help="of one backbone and one --train")
    parser.add_argument("--tasks", default="wbc_bccd4,fundus_dr3")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--precisions", default="bf16,int8", help="beside f32, by commas")
    parser.add_argument("--train", default="", help="more arguments of `melo train`")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    args.binary = digest(args.melo)
    args.precisions = ["f32", *args.precisions.split(",")]
    show("task", "seed", [*args.precisions, "f32, asked in int8"])
    show("---", "---", ["---"] * (len(args.precisions) + 1))
    for task in args.tasks.split(","):
        rows = []
        for seed in args.seeds.split(","):
            try:
                rows.append(measured(args, task, seed))
            except Failed as fault:
                show(task, seed, [str(fault)])
                continue
            show(task, seed, [f"{auc:.4f}" for auc in rows[-1]])
        if len(rows) > 1:
            columns = list(zip(*rows))
            less = [[a - b for a, b in zip(column, columns[0])] for column in columns]
            means = [f"{statistics.mean(c):.4f}, {statistics.mean(d):+.4f}" for c, d in zip(columns, less)]
            show(task, "mean; less f32", means)
            show(task, "deviation of seeds", [f"{statistics.stdev(column):.4f}" for column in columns])


if __name__ == "__main__":
    main()
