"""Writes crates/vit/tests/golden/features.safetensors: what timm's `forward_intermediates` gives of the models of vit.py.

    pip install -r tools/golden/requirements.txt
    python tools/golden/vit.py                  # first: its files are the input
    python tools/golden/features.py             # writes, then verifies
    python tools/golden/features.py --verify    # holds the written file to the same in f64

README.md says what the file holds. Letters: n images, g side of the patch grid, d width.
"""

import argparse

import torch
from explain import load
from safetensors.torch import load_file, save_file
from vit import CASES, OUT

FILE = OUT / "features.safetensors"
# As in crates/train/tests/golden.rs.
TOLERANCE = 1e-4
# Class token, mean pooling with a norm after it, a norm before the blocks, two tokens; bare and with a plug-in.
NAMES = ["qv_token", "avg_pool_multi", "clip_like", "distilled", "bottleneck"]


def features(case, dtype=torch.float32):
    """By name; with the plug-in in place, as `load` leaves the model."""
    model, p = load(case, dtype)
    made = {}
    with torch.no_grad():
        for block in range(len(model.blocks)):
            for norm in [True, False]:
                (pair,) = model.forward_intermediates(
                    p["input"], indices=[block], norm=norm, output_fmt="NLC", return_prefix_tokens=True, intermediates_only=True
                )
                patches, prefix = pair
                name = f"{case.name}.block{block}.{'norm' if norm else 'raw'}"
                made[f"{name}.class"] = prefix[:, 0]
                made[f"{name}.mean"] = patches.mean(1)
                g = round(patches.shape[1] ** 0.5)
                made[f"{name}.grid"] = patches.reshape(len(patches), g, g, -1)
    return {name: t.contiguous() for name, t in made.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--verify", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cases = [case for case in CASES if case.name in NAMES]
    if not args.verify:
        save_file({name: t for case in cases for name, t in features(case).items()}, FILE)
    written = load_file(FILE)
    for case in cases:
        for name, exact in features(case, torch.float64).items():
            off = (written.pop(name).double() - exact).abs().max().item()
            assert off < TOLERANCE / 10, f"{name}: f32 is off by {off}"
    assert not written, sorted(written)
    print(f"{FILE.name}: {len(cases)} cases, {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
