"""What a lower precision does to answers: plug-ins trained in f32, measured on the test split in f32, bf16 and int8.

    cargo build --release
    python tools/peers/int8_accuracy.py --melo target/release/melo --data DATA --backbone vit.safetensors --work runs/int8
        [--tasks oct_dme2,wbc_bccd4] [--precisions bf16,int8] [--train "--image-size 224"] [--photos DATA/photos50]

Trains a plug-in a task by the defaults of `melo train` and prints one Markdown table. DATA holds a folder with a labels.csv for every
task. Plug-ins stay in the work folder, where a second call finds them; a training that was stopped goes on, and answers of the same
binary are not computed again. Needs Python alone.

Probabilities are those of `melo eval --predictions`, calibrated; logits are theirs, times the card's temperature, and for one class an
image less their mean. A decision is the class of an image, or each finding of it at the card's threshold. --photos asks the backbone's
own classifier about the images of a labels.csv of `path,class_index`.
"""

import argparse
import csv
import hashlib
import json
import math
import shlex
import subprocess
from pathlib import Path

TASKS = ["cxr_nih_multilabel", "derm_ham7", "mammo_mias_density3", "fundus_dr3", "oct_dme2", "wbc_bccd4", "brain_mri4"]
SMALLEST = 1e-12


class Failed(Exception):
    pass


def melo(args, *arguments):
    done = subprocess.run([args.melo, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise Failed(next((line for line in said if line.startswith("error")), said[-1]))
    return done.stdout


def digest(file):
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:12]


def once(file, make):
    """What the file holds; made and written first where there is none."""
    if not file.exists():
        part = file.with_suffix(".part")
        part.write_text(make(), encoding="utf-8")
        part.rename(file)
    return file.read_text(encoding="utf-8")


def train(args, task):
    plugin = args.work / f"{task}.safetensors"
    if not plugin.exists():
        data = ["--backbone", args.backbone, "--data", args.data / task / "labels.csv"]
        melo(args, "train", *data, "--out", plugin, "--precision", "f32", "--resume", *shlex.split(args.train))
    return plugin


def evaluate(args, task, plugin, precision):
    """The report, and of each image a list of the probabilities of all classes."""
    stem = f"{task}.{precision}.{digest(plugin)}.{args.binary}"
    table = args.work / f"{stem}.csv"
    data = ["--backbone", args.backbone, "--plugin", plugin, "--data", args.data / task / "labels.csv"]
    command = ["eval", *data, "--precision", precision, "--predictions", table, "--json"]
    report = json.loads(once(args.work / f"{stem}.json", lambda: melo(args, *command)))
    with open(table, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return report, [[float(row[f"p_{name}"]) for name in report["classes"]] for row in rows]


def logits(row, card):
    if card["kind"] == "multi_label":
        found = [math.log(max(p, SMALLEST) / max(1 - p, SMALLEST)) for p in row]
    else:
        logs = [math.log(max(p, SMALLEST)) for p in row]
        found = [log - sum(logs) / len(logs) for log in logs]
    return [card["temperature"] * logit for logit in found]


def decisions(row, card):
    if card["kind"] == "multi_label":
        return [p >= threshold for p, threshold in zip(row, card["thresholds"], strict=True)]
    return [row.index(max(row))]


def differences(rows, others, card):
    """Largest difference of a probability, squares of those of logits, decisions that differ, all decisions."""
    pairs = list(zip(rows, others, strict=True))
    worst = max(abs(a - b) for row, other in pairs for a, b in zip(row, other))
    squares = [(a - b) ** 2 for row, other in pairs for a, b in zip(logits(row, card), logits(other, card))]
    changes = [a != b for row, other in pairs for a, b in zip(decisions(row, card), decisions(other, card))]
    return worst, sum(squares) / len(squares), sum(changes), len(changes)


def show(name, images, reference, cells):
    line = [f"| {name} | {images} | {reference:.4f} "]
    for cell in cells:
        if cell is None:
            line.append("| – " * 4)
            continue
        auc, change, worst, square, changed, of = cell
        line.append(f"| {auc:.4f}, {change:+.4f} | {worst:.4f} | {math.sqrt(square):.3f} | {changed} of {of} ")
    print("".join(line) + "|", flush=True)


def clinical(args, precisions):
    head = "".join(f"| {p}: AUC, less f32's | worst probability | logits, rms | decisions changed " for p in precisions)
    print(f"| task | test images | macro AUC, f32 {head}|\n|---|---|---" + "|---" * (4 * len(precisions)) + "|", flush=True)
    references, columns, images, faults = [], [[] for _ in precisions], 0, []
    for task in args.tasks.split(","):
        try:
            plugin = train(args, task)
            card = json.loads(melo(args, "plugin", "info", plugin, "--json"))["card"]
            report, rows = evaluate(args, task, plugin, "f32")
        except Failed as fault:
            faults.append(f"{task}: {fault}")
            continue
        references.append(report["auc_macro"])
        images += report["n"]
        cells = []
        for column, precision in zip(columns, precisions):
            try:
                lower, others = evaluate(args, task, plugin, precision)
            except Failed as fault:
                faults.append(f"{task} in {precision}: {fault}")
                cells.append(None)
                continue
            auc = lower["auc_macro"]
            cells.append((auc, auc - report["auc_macro"], *differences(rows, others, card)))
            column.append(cells[-1])
        show(task, report["n"], report["auc_macro"], cells)
    if references:
        show("mean; worst; all", images, sum(references) / len(references), [total(column) for column in columns])
    for fault in faults:
        print(f"\n{fault}", flush=True)
    print()


def total(column):
    """Means of AUCs, differences and squares, the worst probability, sums of decisions."""
    if not column:
        return None
    auc, change, worst, square, changed, of = zip(*column)
    count = len(column)
    return sum(auc) / count, sum(change) / count, max(worst), sum(square) / count, sum(changed), sum(of)


def predictions(args, precision, files):
    command = ["predict", "--backbone", args.backbone, "--precision", precision, "--json", *files]
    return once(args.work / f"photos.{precision}.{args.binary}.json", lambda: melo(args, *command))


def photos(args, precisions):
    with open(args.photos / "labels.csv", newline="", encoding="utf-8") as file:
        truth = {Path(row["path"]).name: int(row["class_index"]) for row in csv.DictReader(file)}
    files = [args.photos / "images" / name for name in truth]
    print("| photographs | right in the first place | other first place than in f32 | worst probability |\n|---|---|---|---|")
    reference = None
    for precision in ["f32", *precisions]:
        try:
            said = predictions(args, precision, files)
        except Failed as fault:
            print(f"| {precision} | {fault} | | |")
            continue
        answers = {Path(answer["image"]).name: answer for answer in map(json.loads, said.splitlines())}
        reference = reference or answers
        right = sum(answers[name]["top"][0] == index for name, index in truth.items())
        changed = sum(answers[name]["top"][0] != reference[name]["top"][0] for name in truth)
        worst = max(
            abs(p - reference[name]["probabilities"][label])
            for name in truth
            for label, p in answers[name]["probabilities"].items()
        )
        print(f"| {precision} | {right} of {len(truth)} | {changed} | {worst:.4f} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--melo", default="target/release/melo")
    parser.add_argument("--data", type=Path, help="folder of the tasks' folders")
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/int8"), help="of one backbone")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--precisions", default="bf16,int8", help="beside f32, by commas")
    parser.add_argument("--train", default="", help="more arguments of `melo train`")
    parser.add_argument("--photos", type=Path)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    args.binary = digest(args.melo)
    precisions = args.precisions.split(",")
    if args.data:
        clinical(args, precisions)
    if args.photos:
        photos(args, precisions)


if __name__ == "__main__":
    main()
