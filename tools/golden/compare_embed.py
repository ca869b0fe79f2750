"""Compares files of `melo embed` with timm on a folder of images, and reads every format as its users do.

    pip install -r tools/golden/requirements.txt pandas pyarrow
    python tools/golden/compare_embed.py vit_tiny_patch16_224 images/ --melo target/release/melo [--parquet]

The model has random weights, which are written beside its description first. Exit status 1 when a value is off by more than 1e-4 of
the largest.
"""

import argparse
import csv
import hashlib
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config

TOLERANCE = 1e-4


def expected(model, pixels, what, block, norm):
    if what == "pooled":
        return model.forward_head(model.forward_features(pixels), pre_logits=True)
    (pair,) = model.forward_intermediates(
        pixels, indices=[block], norm=norm, output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
    )
    patches, prefix = pair
    g = round(patches.shape[1] ** 0.5)
    return {"class": prefix[:, 0], "mean": patches.mean(1), "grid": patches.reshape(len(patches), g, g, -1)}[what]


def read(out):
    """Values, rows of the table and what the file says of itself."""
    if out.suffix == ".npy":
        rows = list(csv.DictReader(out.with_suffix(".rows.csv").open()))
        return np.load(out), rows, json.loads(out.with_suffix(".about.json").read_text())
    if out.suffix == ".safetensors":
        with safe_open(out, "numpy") as file:
            text = file.get_tensor("rows").tobytes().decode()
            about = json.loads(file.metadata()["melo.embed"])
            return file.get_tensor("features"), list(csv.DictReader(io.StringIO(text))), about
    import pandas as pd
    import pyarrow.parquet as pq

    table = pd.read_parquet(out)
    about = json.loads(pq.read_schema(out).metadata[b"melo.embed"])
    values = np.stack(table["features"]).reshape(len(table), *about["shape"])
    return values, table.drop(columns="features").astype(str).to_dict("records"), about


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("architecture")
    parser.add_argument("images", type=Path)
    parser.add_argument("--melo", default="target/release/melo")
    parser.add_argument("--parquet", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(0)
    model = timm.create_model(args.architecture, pretrained=False, num_classes=0).eval()
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.05) if p.ndim > 1 else p.data.add_(0.1 * torch.randn_like(p))
    cfg = {k: v for k, v in model.pretrained_cfg.items() if k in {"input_size", "interpolation", "crop_pct", "mean", "std"}}
    paths = sorted(path for path in args.images.iterdir() if path.suffix.lower() in {".png", ".jpg", ".jpeg"})
    transform = create_transform(**resolve_data_config(pretrained_cfg=cfg))
    pixels = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])
    last = len(model.blocks) - 1
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        weights = Path(folder) / "vit.safetensors"
        save_file({name: t.contiguous() for name, t in model.state_dict().items()}, weights)
        about = {"architecture": args.architecture, "num_classes": 0, "pretrained_cfg": cfg}
        weights.with_suffix(".json").write_text(json.dumps(about))
        for ending in ["npy", "safetensors"] + ["parquet"] * args.parquet:
            for what in ["class", "mean", "grid", "pooled"]:
                for block, norm in [(last, True)] if what == "pooled" else [(last, True), (1, True), (1, False)]:
                    out = Path(folder) / f"features.{ending}"
                    command = [args.melo, "embed", "--backbone", weights, "--out", out, "--what", what, "--block", block]
                    command += [] if norm else ["--no-norm"]
                    subprocess.run([str(word) for word in [*command, *paths]], check=True, stdout=subprocess.DEVNULL)
                    values, rows, said = read(out)
                    wanted = expected(model, pixels, what, block, norm).numpy()
                    assert values.shape == wanted.shape, (values.shape, wanted.shape)
                    assert [row["path"] for row in rows] == [str(path) for path in paths]
                    assert [row["digest"] for row in rows] == [hashlib.sha256(p.read_bytes()).hexdigest() for p in paths]
                    assert (said["what"], said["block"], said["norm"]) == (what, block, norm)
                    off = float(np.abs(values - wanted).max() / np.abs(wanted).max())
                    worst = max(worst, off)
                    print(f"{ending} {what} of block {block}, norm {norm}: {values.shape}, off by {off:.1e} of the largest")
    sys.exit(worst > TOLERANCE)


if __name__ == "__main__":
    main()
