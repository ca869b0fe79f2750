"""Is a set's own split why more of its test images are flagged than promised? Splits of the same sizes drawn anew by patient, a plug-in each.

    python tools/scope/splits.py TASK... --melo target/release/melo --backbone deit_tiny_patch16_224.safetensors --data DATA --out OUT \\
        --others DATA/photos50/images [--draws 20] [-- --method linear]

A TASK is a folder of DATA with a `labels.csv` that has splits. What stands behind `--` goes to `melo train`. Prints a row a task: the share of test images
called out of scope with the splits of the manifest, and of splits drawn anew their mean, its standard error, and the highest.
"""

import argparse
import csv
import json
import random
import statistics
import subprocess
import sys
from pathlib import Path


def redrawn(labels, out, seed):
    """The manifest with its splits dealt out anew to patients, or to images where none is named, until each split is as large as it was."""
    with open(labels, newline="") as table:
        rows = list(csv.DictReader(table))
    sizes = {split: sum(row["split"] == split for row in rows) for split in ["test", "val"]}
    patients = {}
    for place, row in enumerate(rows):
        patients.setdefault(row.get("patient_id") or place, []).append(row)
    order = list(patients.values())
    random.Random(seed).shuffle(order)
    for of_patient in order:
        split = next((split for split, left in sizes.items() if left > 0), "train")
        if split in sizes:
            sizes[split] -= len(of_patient)
        for row in of_patient:
            row.update(split=split, path=str((labels.parent / row["path"]).resolve()))
    with open(out, "w", newline="") as table:
        writer = csv.DictWriter(table, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return out


def main():
    own = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
    to_train = sys.argv[len(own) + 2 :]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--melo", type=Path, required=True)
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--others", type=Path, required=True, help="any folder of images: the shares of its own are printed along")
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("tasks", nargs="+")
    args = parser.parse_args(own)
    args.out.mkdir(parents=True, exist_ok=True)
    common = ["--backbone", args.backbone, "--precision", args.precision]

    def flagged(labels, name):
        plugin = args.out / f"{name}.safetensors"
        if not plugin.exists():
            subprocess.run([args.melo, "train", *common, "--data", labels, "--out", plugin, "--overwrite", *to_train], check=True, stdout=subprocess.DEVNULL)
        words = [args.melo, "eval", "--json", *common, "--plugin", plugin, "--data", labels, "--scope", args.others]
        return json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout)["flagged"]

    print(f"| task | the manifest's split | {args.draws} splits anew | highest |\n|---|---|---|---|")
    for task in args.tasks:
        labels = args.data / task / "labels.csv"
        of_manifest = flagged(labels, f"{task}-manifest")
        anew = [flagged(redrawn(labels, args.out / f"{task}-{n}.csv", n), f"{task}-{n}") for n in range(args.draws)]
        mean, error = statistics.mean(anew), statistics.stdev(anew) / args.draws**0.5
        print(f"| {task} | {of_manifest:.3f} | {mean:.3f} ± {error:.3f} | {max(anew):.3f} |", flush=True)


if __name__ == "__main__":
    main()
