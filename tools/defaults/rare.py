"""What other defaults of `melo train` are worth where classes are uneven: trainings of several tasks by several commands, compared in pairs.

    python tools/defaults/rare.py SHARED OUT [--seeds 0,1] [--size 112] NAME=COMMAND NAME=COMMAND ...

    python tools/defaults/rare.py ../shared runs/rare "before=old/melo train" "weighted=old/melo train --class-weights balanced" "now=melo train"

SHARED holds `data/` and `models/deit_tiny_patch16_224.safetensors`. The tasks are those of SHARED whose classes are uneven, and others of which one class is
thinned to one image in seven of training and validation. What OUT holds already is not trained again. Prints a row a task and command, the means over
seeds, then differences to the first command, means over tasks with a 95 % interval of Student's t over tasks. Needs scipy.
"""

import argparse
import csv
import json
import random
import shlex
import statistics
import struct
import subprocess
from pathlib import Path

from scipy import stats

# Folder, manifest, classes (none: all), the class that is thinned (none: as it is).
TASKS = {
    "blood": ("wbc_bccd4", "labels.csv", None, None),
    "fundus": ("fundus_dr3", "labels.csv", None, None),
    "mammo_abnormal": ("mammo_mias_density3", "labels_abnormal.csv", None, None),
    "derm_rare": ("derm_ham7", "labels.csv", ["nv", "bkl", "bcc"], "bcc"),
    "brain_rare": ("brain_mri4", "labels.csv", ["glioma", "meningioma", "pituitary"], "meningioma"),
    "mammo_rare": ("mammo_mias_density3", "labels.csv", None, "dense_glandular"),
    "oct_rare": ("oct_dme2", "labels.csv", None, "dme"),
}
FIGURES = ["macro AUC", "AUC of the rarest", "balanced accuracy", "sensitivity of the rarest", "accuracy"]


def manifest(shared, out, name):
    """Writes the task's manifest, and gives it with its rarest class."""
    folder, labels, classes, thinned = TASKS[name]
    folder = (shared / "data" / folder).resolve()
    rows = [row for row in csv.DictReader(open(folder / labels)) if classes is None or row["label"] in classes]
    for row in rows:
        row["path"] = str(folder / row["path"])
    kept, rng = [], random.Random(0)
    for split in ["train", "val", "test"]:
        of_split = [row for row in rows if row["split"] == split]
        rare = [row for row in of_split if row["label"] == thinned]
        others = [row for row in of_split if row["label"] != thinned]
        # The test split keeps all of the rare class: it is what is measured.
        if split != "test":
            rare = rng.sample(rare, min(len(rare), max(3, round(len(others) / 6))))
        kept += others + rare
    path = out / f"{name}.csv"
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, kept[0].keys())
        writer.writeheader()
        writer.writerows(kept)
    trained = [row["label"] for row in kept if row["split"] == "train"]
    return path, min(sorted(set(trained)), key=trained.count)


def card(path):
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    return next(json.loads(value) for value in header["__metadata__"].values() if value.startswith("{") and '"classes"' in value)


def figures(path, rare):
    metrics = card(path)["metrics"]
    names = ["test_auc_macro", f"test_auc/{rare}", "test_balanced_acc", f"test_sensitivity/{rare}", "test_acc"]
    return [metrics[name] for name in names]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shared", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("commands", nargs="+", metavar="NAME=COMMAND")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--size", type=int, default=112, help="side of the images, pixels (112: a fifth of the time of 224)")
    args = parser.parse_args()
    commands = dict(command.split("=", 1) for command in args.commands)
    args.out.mkdir(parents=True, exist_ok=True)
    backbone = args.shared / "models/deit_tiny_patch16_224.safetensors"
    found = {}
    for seed in args.seeds.split(","):
        for task in TASKS:
            data, rare = manifest(args.shared, args.out, task)
            for name, command in commands.items():
                plugin = args.out / f"{task}.{name}.{seed}.safetensors"
                if not plugin.exists():
                    asked = ["--backbone", backbone, "--data", data, "--image-size", str(args.size), "--precision", "bf16", "--seed", seed]
                    with open(plugin.with_suffix(".log"), "w") as log:
                        subprocess.run([*shlex.split(command), *asked, "--out", plugin, "--overwrite"], check=True, stdout=log, stderr=log)
                found.setdefault((task, name), []).append(figures(plugin, rare))
    means = {key: [statistics.fmean(values) for values in zip(*of_seeds)] for key, of_seeds in found.items()}
    head = "".join(f"{figure:>27}" for figure in FIGURES)
    print(f"{'task':<16}{'command':<12}{head}")
    for (task, name), values in means.items():
        print(f"{task:<16}{name:<12}" + "".join(f"{value:>27.3f}" for value in values))
    first, *others = commands
    for name in commands:
        of_tasks = [means[task, name] for task in TASKS]
        print(f"{'mean':<16}{name:<12}" + "".join(f"{statistics.fmean(values):>27.3f}" for values in zip(*of_tasks)))
    for name in others:
        differences = zip(*([a - b for a, b in zip(means[task, name], means[task, first])] for task in TASKS))
        cells = []
        for values in differences:
            mean, error = statistics.fmean(values), stats.sem(values)
            half = stats.t.ppf(0.975, len(values) - 1) * error
            cells.append(f"{mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}]")
        print(f"{'less ' + first:<16}{name:<12}" + "".join(f"{cell:>27}" for cell in cells))


main()
