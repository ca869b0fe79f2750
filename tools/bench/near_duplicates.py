"""Compares fingerprints of images as detectors of near-duplicates, and prints Markdown tables.

    pip install -r tools/golden/pixels-requirements.txt
    python tools/bench/near_duplicates.py --data DATA [--melo target/release/melo]

DATA holds a folder for every set, each with a labels.csv of `path,split,...` in which no picture crosses a split. *Hits* are
edits of an image (saved again, resized, brightened, cropped, mirrored) within the threshold of the image; *false alarms* are
pairs of images in two splits within it. Each fingerprint is shown at the threshold that finds 95 % of the images with 1 % cut
off every edge, and the chosen one, `local contrast`, also at the threshold of `crates/data/src/near.rs`.

With --melo, edited copies are written as the test split beside the originals as train, and `melo data check` is asked: the
hits of the real thing. It also prints every pair in two splits that the originals alone give, to be looked at.
"""

import argparse
import csv
import io
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

CHOSEN, NEAR = "local contrast, 255 bits", 34


def luminance(image, width, height):
    return np.asarray(image.resize((width, height), Image.BILINEAR)).astype(float) @ [0.299, 0.587, 0.114]


def cosines(side, bands):
    return np.cos(np.pi * np.outer(np.arange(bands), 2 * np.arange(side) + 1) / (2 * side))


def signs(y, bands):
    c = cosines(len(y), bands)
    bits = (c @ y @ c.T).ravel() > 0
    bits[0] = False
    return bits


def local_means(y, radius):
    for _ in range(2):
        sums = np.vstack([np.zeros(len(y)), np.cumsum(y, axis=0)])
        index = np.arange(len(y))
        low, high = np.maximum(index - radius, 0), np.minimum(index + radius + 1, len(y))
        y = ((sums[high] - sums[low]) / (high - low)[:, None]).T
    return y


def difference_hash(side):
    def bits(image):
        y = luminance(image, side + 1, side)
        return (y[:, 1:] > y[:, :-1]).ravel()

    return bits


def local_contrast(image):
    y = luminance(image, 64, 64)
    y = y - local_means(y, 6)
    return signs(y / (np.sqrt(np.maximum(local_means(y * y, 6), 0)) + 8), 16)


FINGERPRINTS = {
    "dHash, 64 bits": difference_hash(8),
    "dHash, 256 bits": difference_hash(16),
    "pHash, 63 bits": lambda image: signs(luminance(image, 32, 32), 8),
    "pHash, 255 bits": lambda image: signs(luminance(image, 64, 64), 16),
    CHOSEN: local_contrast,
}


def saved(image, quality=90):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(io.BytesIO(buffer.getvalue())).convert("RGB")


def cropped(left, top, right, bottom):
    def edit(image):
        w, h = image.size
        return saved(image.crop((round(w * left), round(h * top), w - round(w * right), h - round(h * bottom))))

    return edit


EDITS = {
    "JPEG, quality 50": lambda image: saved(image, 50),
    "half the size": lambda image: saved(image.resize((max(1, image.width // 2), max(1, image.height // 2)))),
    "10 % brighter": lambda image: saved(image.point(lambda v: min(255, round(1.1 * v)))),
    "gamma 0.8": lambda image: saved(image.point(lambda v: round(255 * (v / 255) ** 0.8))),
    "1 % off every edge": cropped(0.01, 0.01, 0.01, 0.01),
    "2 % off two edges": cropped(0.02, 0.02, 0, 0),
    "2 % off every edge": cropped(0.02, 0.02, 0.02, 0.02),
    "mirrored": lambda image: saved(ImageOps.mirror(image)),
}
REFERENCE = "1 % off every edge"


def distances(a, b):
    a, b = a.astype(np.float32), b.astype(np.float32)
    return np.rint(a.sum(1)[:, None] + b.sum(1)[None] - 2 * a @ b.T).astype(int)


def mirrored(bits):
    """Bits of the mirror image, where turning odd frequencies gives them; else None."""
    side = int(np.sqrt(bits.shape[1]))
    mask = np.zeros((side, side), bool)
    mask[:, 1::2] = True
    return bits ^ mask.ravel()


class DataSet:
    def __init__(self, folder):
        with open(folder / "labels.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        self.folder, self.name = folder, folder.name
        self.paths, splits = [row["path"] for row in rows], np.array([row["split"] for row in rows])
        self.images = [Image.open(folder / path).convert("RGB") for path in self.paths]
        self.across = np.triu(splits[:, None] != splits[None], 1)
        self.bits = {name: np.array([f(i) for i in self.images]) for name, f in FINGERPRINTS.items()}
        self.edited = {}
        for edit, change in EDITS.items():
            images = [change(image) for image in self.images]
            self.edited[edit] = {name: np.array([f(i) for i in images]) for name, f in FINGERPRINTS.items()}

    def hits(self, name, edit):
        bits, edited = self.bits[name], self.edited[edit][name]
        if edit == "mirrored":
            if name.startswith("dHash"):
                return np.full(len(bits), 999)
            bits = mirrored(bits)
        return (bits != edited).sum(1)

    def alarms(self, name):
        near = distances(self.bits[name], self.bits[name])
        if not name.startswith("dHash"):
            near = np.minimum(near, distances(self.bits[name], mirrored(self.bits[name])))
        return near[self.across]


def compare(sets):
    print(f"{sum(len(s.paths) for s in sets)} images, {sum(int(s.across.sum()) for s in sets)} pairs in two splits\n")
    print("| fingerprint | threshold | " + " | ".join(EDITS) + " | false alarms: " + ", ".join(s.name for s in sets) + " |")
    print("|---" * (len(EDITS) + 3) + "|")
    alarms = {name: [s.alarms(name) for s in sets] for name in FINGERPRINTS}
    hits = {(n, e): np.concatenate([s.hits(n, e) for s in sets]) for n in FINGERPRINTS for e in EDITS}
    at = [(name, int(np.percentile(hits[name, REFERENCE], 95, method="higher"))) for name in FINGERPRINTS]
    for name, threshold in [*at, (CHOSEN, NEAR)]:
        rates = [f"{100 * np.mean(hits[name, edit] <= threshold):.1f}" for edit in EDITS]
        false = [str(int((a <= threshold).sum())) for a in alarms[name]]
        print(f"| {name} | {threshold} | " + " | ".join(rates) + " | " + ", ".join(false) + " |")


def pairs(melo, manifest):
    done = subprocess.run([melo, "data", "check", manifest, "--json"], stdout=subprocess.PIPE, text=True)
    warnings = json.loads(done.stdout)["warnings"]
    kind = "near_duplicates_across_splits"
    return [pair for warning in warnings if warning["kind"] == kind for pair in warning["pairs"]]


def ask(melo, sets):
    print("\n| `melo data check`: hits, % | " + " | ".join(s.name for s in sets) + " |\n" + "|---" * (len(sets) + 1) + "|")
    for edit, change in EDITS.items():
        rates = []
        for s in sets:
            with tempfile.TemporaryDirectory() as folder:
                lines = ["path,split,label"]
                for index, (path, image) in enumerate(zip(s.paths, s.images)):
                    change(image).save(Path(folder) / f"{index}.png")
                    label = "ab"[index % 2]
                    lines += [f"{(s.folder / path).resolve()},train,{label}", f"{index}.png,test,{label}"]
                manifest = Path(folder) / "m.csv"
                manifest.write_text("\n".join(lines), encoding="utf-8")
                lines_of = ([image["line"] for image in pair["images"]] for pair in pairs(melo, manifest))
                found = sum(a % 2 == 0 and b == a + 1 for a, b in lines_of)
            rates.append(f"{100 * found / len(s.paths):.1f}")
        print(f"| {edit} | " + " | ".join(rates) + " |", flush=True)
    print()
    for s in sets:
        for pair in pairs(melo, s.folder / "labels.csv"):
            names = [f"{image['name']} ({image['split']})" for image in pair["images"]]
            print(f"- {s.name}: {names[0]} ~ {names[1]}, {pair['distance']} bits{', mirrored' if pair['mirrored'] else ''}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--melo")
    args = parser.parse_args()
    sets = [DataSet(path.parent) for path in sorted(args.data.glob("*/labels.csv"))]
    compare(sets)
    if args.melo:
        ask(args.melo, sets)


if __name__ == "__main__":
    main()
