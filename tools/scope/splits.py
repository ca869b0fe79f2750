"""Is a set's own split why more of its test images are flagged than promised? Splits of the same sizes drawn anew by patient, a plug-in each.

    python tools/scope/splits.py TASK... --melo target/release/melo --backbone deit_tiny_patch16_224.safetensors --data DATA --out OUT \\
        [--draws 20] [-- --method linear]

A TASK is a folder of DATA with a `labels.csv` that has splits. What stands behind `--` goes to `melo train`. Prints a row a task: the share of test images
called out of scope with the splits of the manifest, and of splits drawn anew their mean, its standard error, and the highest.
"""

import csv
import json
import random
import statistics
import subprocess

from scope import parsed


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
    args, to_train = parsed(__doc__, lambda parser: parser.add_argument("--draws", type=int, default=20))

    def flagged(labels, name):
        """The share that a training records of its test split."""
        plugin = args.out / f"{name}.safetensors"
        if not plugin.exists():
            words = ["train", "--backbone", args.backbone, "--precision", args.precision, "--data", labels, "--out", plugin, "--overwrite"]
            subprocess.run([args.melo, *words, *to_train], check=True, stdout=subprocess.DEVNULL)
        said = subprocess.run([args.melo, "plugin", "info", "--json", plugin], check=True, stdout=subprocess.PIPE, text=True).stdout
        return json.loads(said)["card"]["metrics"]["test_scope_flagged"]

    print(f"| task | the manifest's split | {args.draws} splits anew | highest |\n|---|---|---|---|")
    for task in args.tasks:
        labels = args.data / task / "labels.csv"
        of_manifest = flagged(labels, f"{task}-manifest")
        anew = [flagged(redrawn(labels, args.out / f"{task}-{n}.csv", n), f"{task}-{n}") for n in range(args.draws)]
        mean, error = statistics.mean(anew), statistics.stdev(anew) / args.draws**0.5
        print(f"| {task} | {of_manifest:.3f} | {mean:.3f} ± {error:.3f} | {max(anew):.3f} |", flush=True)


if __name__ == "__main__":
    main()
