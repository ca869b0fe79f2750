"""A backbone with a plug-in as a module of timm, whose logits are held to melo's.

    python torch_logits.py --backbone vit.safetensors --plugin wbc.safetensors films/*.png

Exit status 1 where one differs by more than `--tolerance` of the largest logit.
"""

# pyright: reportMissingImports=false, reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportPrivateImportUsage=false

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

import melo_vit as melo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True, help="weights: a file or folder, or a model on the hub")
    parser.add_argument("--plugin", required=True, help="a plug-in of classes")
    parser.add_argument("--tolerance", type=float, default=1e-4)
    parser.add_argument("images", nargs="+")
    args = parser.parse_args()

    backbone = melo.Backbone.load(args.backbone)
    plugin = melo.Plugin.load(args.plugin, backbone)
    module = backbone.to_torch(plugin)
    transform: Any = create_transform(**resolve_model_data_config(module))
    pixels = torch.stack([transform(Image.open(image).convert("RGB")) for image in args.images])
    with torch.inference_mode():
        theirs = module(pixels).numpy()
    ours = np.stack([said.logits for said in melo.Predictor(backbone, plugin).predict(args.images).of()])
    difference = float(np.abs(ours - theirs).max() / max(np.abs(ours).max(), 1.0))
    print(f"{len(args.images)} images, largest difference {difference:.1e} of the largest logit")
    sys.exit(int(difference > args.tolerance))


if __name__ == "__main__":
    main()
