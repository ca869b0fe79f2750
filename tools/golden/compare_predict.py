"""Compares `melo predict` with timm on a folder of images: order of the top five and probabilities.

    pip install -r tools/golden/requirements.txt
    python tools/golden/compare_predict.py weights.safetensors images/ --melo target/release/melo

Architecture and preprocessing come from the JSON beside the weights. Exit status 1 when an order differs or a
probability is off by more than 1e-4.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.data import create_transform, resolve_data_config
from timm.models.vision_transformer import checkpoint_filter_fn

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff"}
TOLERANCE = 1e-4
TIE = 1e-6


def description(weights):
    beside = [weights.with_suffix(".json"), weights.parent / "config.json"]
    for path in beside:
        if path.exists():
            return json.loads(path.read_text())
    sys.exit(f"no architecture: neither {beside[0]} nor {beside[1]} exists")


def timm_probabilities(weights, images):
    about = description(weights)
    cfg = about["pretrained_cfg"]
    model = timm.create_model(about["architecture"], num_classes=about["num_classes"], **about.get("model_args", {}))
    model.load_state_dict(checkpoint_filter_fn(load_file(weights), model))
    model.eval()
    transform = create_transform(**resolve_data_config(pretrained_cfg=cfg))
    with torch.inference_mode():
        for image in images:
            pixels = transform(Image.open(image).convert("RGB"))
            yield model(pixels[None])[0].double().softmax(0)


def melo_answers(melo, weights, images):
    """Answers of `melo predict`, by image."""
    command = [melo, "predict", "--backbone", weights, "--json", *images]
    run = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    if run.returncode != 0:
        sys.exit(f"{melo} predict failed with status {run.returncode}")
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    return {answer["image"]: answer for answer in answers}


def same_order(p, top):
    """Whether `top`, distinct class indices, ranks as `p` does, up to ties."""
    best = p.topk(min(5, len(p))).values
    top = top[: len(best)]
    return len(set(top)) == len(best) and all((p[top] - best).abs() <= TIE)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path, metavar="WEIGHTS.safetensors")
    parser.add_argument("images", type=Path, metavar="IMAGES_DIR")
    parser.add_argument("--melo", default="melo", help="the binary (default: melo on the PATH)")
    args = parser.parse_args()
    images = sorted(path for path in args.images.iterdir() if path.suffix.lower() in SUFFIXES)
    if not images:
        sys.exit(f"no images in {args.images}")

    answers = melo_answers(args.melo, args.weights, images)
    equal, worst, worst_image, other_order = 0, -1.0, None, []
    for image, p in zip(images, timm_probabilities(args.weights, images)):
        if str(image) not in answers:
            sys.exit(f"{args.melo} predict gave no answer for {image}")
        answer = answers[str(image)]
        if same_order(p, answer["top"]):
            equal += 1
        else:
            other_order.append(image.name)
        found = torch.tensor([answer["probabilities"][str(i)] for i in range(len(p))], dtype=torch.float64)
        difference = (found - p).abs().nan_to_num(nan=torch.inf).max().item()
        if difference > worst:
            worst, worst_image = difference, image.name

    print(
        f"n {len(images)}, top-5 equal {equal}, max abs probability difference {worst:.2e} ({worst_image})"
        + (f", other top-5: {' '.join(other_order)}" if other_order else "")
    )
    return 0 if equal == len(images) and worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
