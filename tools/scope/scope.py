"""Do plug-ins know which images are for them? Trains one a task and shows it others' images, corrupted ones, and phantoms.

    pip install -r tools/golden/pixels-requirements.txt
    python tools/scope/scope.py TASK... --melo target/release/melo --backbone deit_tiny_patch16_224.safetensors --data DATA --out OUT \\
        --phantoms melo-quickstart [-- --method linear]

A TASK is a folder of DATA with a `labels.csv` that has splits; `--phantoms` the folder of a `melo quickstart`, `--others` further folders of images or
manifests. What stands behind `--` goes to `melo train`. Prints tables in Markdown, as docs/scope.md has them.
"""

import argparse
import csv
import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

#: Test images of a task that are corrupted, and phantoms of a kind.
CORRUPTED, PHANTOMS = 32, 40


def noise(image):
    pixels = np.asarray(image).astype(float)
    return Image.fromarray(np.clip(pixels + np.random.RandomState(0).normal(0, 40, pixels.shape), 0, 255).astype("uint8"))


def occluded(image):
    image, (width, height) = image.copy(), image.size
    image.paste((0, 0, 0), (width // 4, height // 4, 3 * width // 4, 3 * height // 4))
    return image


def compressed(image):
    held = io.BytesIO()
    image.save(held, "JPEG", quality=5)
    return Image.open(held)


CORRUPTIONS = {
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(4)),
    "noise": noise,
    "JPEG, quality 5": compressed,
    "inverted": ImageOps.invert,
    "middle covered": occluded,
    "a third as bright": lambda image: ImageEnhance.Brightness(image).enhance(0.3),
    "1.8 times as bright": lambda image: ImageEnhance.Brightness(image).enhance(1.8),
    "a third of the contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.3),
    "turned by 90°": lambda image: image.rotate(90, expand=True),
}


def corrupt(task, out):
    """A folder of images a corruption."""
    for number, change in enumerate(CORRUPTIONS.values()):
        folder = out / f"{number}"
        folder.mkdir(parents=True, exist_ok=True)
        for path in test_images(task, CORRUPTED):
            change(Image.open(path).convert("RGB")).save(folder / f"{path.stem}.png", compress_level=1)


def test_images(task, most):
    """Spread over the test split."""
    with open(task / "labels.csv", newline="") as table:
        test = [row["path"] for row in csv.DictReader(table) if row["split"] == "test"]
    return [task / test[place] for place in np.linspace(0, len(test) - 1, min(most, len(test))).astype(int)]


def parsed(doc, further):
    """Arguments, those that `further` adds to a parser among them, and what goes to `melo train`; the folder `--out` is there."""
    own = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--melo", type=Path, required=True)
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--precision", default="f32")
    parser.add_argument("tasks", nargs="+")
    further(parser)
    args = parser.parse_args(own)
    args.out.mkdir(parents=True, exist_ok=True)
    return args, sys.argv[len(own) + 2 :]


def shown(parser):
    parser.add_argument("--phantoms", type=Path)
    parser.add_argument("--others", type=Path, nargs="*", default=[])


def main():
    args, to_train = parsed(__doc__, shown)
    precision = ["--precision", args.precision]

    def melo(*words):
        return subprocess.run([args.melo, *words], check=True, stdout=subprocess.PIPE, text=True).stdout

    plugin = lambda task: args.out / f"{task}.safetensors"
    for task in args.tasks:
        if not plugin(task).exists():
            labels = args.data / task / "labels.csv"
            melo("train", "--backbone", args.backbone, "--data", labels, "--out", plugin(task), "--overwrite", *precision, *to_train)
        if not (args.out / "corrupted" / task).exists():
            corrupt(args.data / task, args.out / "corrupted" / task)

    def measured(task, others):
        words = ["eval", "--json", "--backbone", args.backbone, "--plugin", plugin(task), "--data", args.data / task / "labels.csv"]
        return json.loads(melo(*words, *precision, "--scope", *others))

    phantoms = args.out / "phantoms"
    phantoms.mkdir(exist_ok=True)
    for kind in sorted(args.phantoms.glob("*/labels.csv")) if args.phantoms else []:
        for path in test_images(kind.parent, PHANTOMS):
            shutil.copy(path, phantoms / f"{kind.parent.name}_{path.name}")
    has_phantoms = any(phantoms.iterdir())

    print("| task | own test images flagged | others: AUROC | FPR95 | flagged | the nearest: AUROC, FPR95 | phantoms: AUROC | FPR95 |")
    print("|---|---|---|---|---|---|---|---|")
    flagged = {}
    for task in args.tasks:
        found = measured(task, [args.data / other / "labels.csv" for other in args.tasks if other != task] + args.others)
        low, high = found["flagged_interval"]
        *each, pooled = found["others"]
        worst = min(each, key=lambda other: (other["auroc"], -other["fpr95"]))
        name = Path(worst["images_of"])
        name = name.parent.name if name.name in ("labels.csv", "images") else name.name
        made = [args.out / "corrupted" / task / f"{n}" for n in range(len(CORRUPTIONS))] + [phantoms] * has_phantoms
        made = measured(task, made)["others"]
        flagged[task] = [corrupted["flagged"] for corrupted in made]
        of_phantoms = f"{made[len(CORRUPTIONS)]['auroc']:.4f} | {made[len(CORRUPTIONS)]['fpr95']:.3f}" if has_phantoms else "|"
        print(
            f"| {task} | {found['flagged']:.3f} [{low:.3f}, {high:.3f}] of {found['images']} | {pooled['auroc']:.4f} | {pooled['fpr95']:.3f} "
            f"| {pooled['flagged']:.3f} | {name}: {worst['auroc']:.4f}, {worst['fpr95']:.3f} | {of_phantoms} |",
            flush=True,
        )
    print(f"\n| flagged of {CORRUPTED} test images | " + " | ".join(args.tasks) + " |")
    print("|---" * (len(args.tasks) + 1) + "|")
    for number, name in enumerate(CORRUPTIONS):
        print(f"| {name} | " + " | ".join(f"{flagged[task][number]:.2f}" for task in args.tasks) + " |")


if __name__ == "__main__":
    main()
