"""Bags whose finding sits in few slices: draws them, and measures where a plug-in's attention lies.

    pip install -r tools/golden/pixels-requirements.txt
    python tools/bench/few_slices.py draw FOLDER
    melo train --backbone B --data FOLDER/bags.csv --image-size 64 --pooling attention --unordered --method linear --no-augment \\
        --epochs 40 --lr 0.003 --batch-size 8 --patience 0 --task few --out few.safetensors        # or --pooling mean
    python tools/bench/few_slices.py attention FOLDER --melo target/release/melo --backbone B --plugin few.safetensors

280 bags of 24 noisy slices of 64 pixels with a bright disc each; in every second bag two slices show a cross, too, and the bag is `sick`.
`attention` prints the mean share of the attention on these two over the sick bags of the test split, and in how many the slice that counts
most is one of them.
"""

import argparse
import json
import subprocess
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, SLICES, SHOWN = 64, 24, 2
BAGS = {"train": 120, "val": 60, "test": 100}


def draw(folder):
    rng = np.random.RandomState(3)
    (folder / "slices").mkdir(parents=True)
    rows, truth = ["path,bag,split,label"], []
    y, x = np.mgrid[:SIDE, :SIDE]
    for split, bags in BAGS.items():
        for bag in range(bags):
            name, sick = f"{split}{bag}", bag % 2
            shown = sorted(rng.choice(SLICES, SHOWN, replace=False)) if sick else []
            for at in range(SLICES):
                grey = rng.randint(50, 90, (SIDE, SIDE)).astype(float)
                column, row = rng.randint(14, 50, 2)
                grey[np.hypot(x - column, y - row) < rng.randint(6, 10)] += 90
                if at in shown:
                    column, row = rng.randint(14, 50, 2)
                    across, down = abs(x - column), abs(y - row)
                    grey[(across < 2) & (down < 12) | (down < 2) & (across < 12)] = 230
                Image.fromarray(np.clip(grey, 0, 255).astype(np.uint8)).save(folder / f"slices/{name}_{at:02d}.png")
                rows.append(f"slices/{name}_{at:02d}.png,{name},{split},{'sick' if sick else 'well'}")
            truth.append(f"{name},{' '.join(map(str, shown))}")
    (folder / "bags.csv").write_text("\n".join(rows) + "\n")
    (folder / "shown.csv").write_text("\n".join(truth) + "\n")


def attention(folder, melo, backbone, plugin):
    shares, hits = [], []
    for line in (folder / "shown.csv").read_text().splitlines():
        name, shown = line.split(",")
        if not name.startswith("test") or not shown:
            continue
        shown = [int(at) for at in shown.split()]
        images = [str(folder / f"slices/{name}_{at:02d}.png") for at in range(SLICES)]
        command = [melo, "predict", "--backbone", backbone, "--plugin", plugin, "--json", *images]
        answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        shares.append(sum(answer["attention"][at] for at in shown))
        hits.append(answer["leading"][0] in shown)
    print(f"attention on the finding {np.mean(shares):.3f}, the leading slice shows it in {sum(hits)} of {len(hits)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["draw", "attention"])
    parser.add_argument("folder", type=Path)
    for option in ("melo", "backbone", "plugin"):
        parser.add_argument(f"--{option}")
    args = parser.parse_args()
    if args.what == "draw":
        draw(args.folder)
    else:
        attention(args.folder, args.melo, args.backbone, args.plugin)


if __name__ == "__main__":
    main()
