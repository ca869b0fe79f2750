"""A predictor as the last transform of a MONAI pipeline.

    python monai_inferer.py --backbone vit.safetensors --plugin wbc.safetensors films/*.png

`LoadImage` gives `[c, w, h]` for PNG, JPEG and DICOM (`layout="cwh"`), and `float32` whose range only its reader knows (`--range`).
"""

# pyright: reportMissingImports=false, reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUntypedBaseClass=false

from __future__ import annotations

import argparse
from collections.abc import Hashable, Mapping
from typing import Any

from monai.transforms.compose import Compose
from monai.transforms.io.dictionary import LoadImaged
from monai.transforms.transform import MapTransform
from monai.transforms.utility.dictionary import EnsureChannelFirstd

import melo_vit as melo


class Answerd(MapTransform):
    """Adds what each plug-in says of each of ``keys`` under ``<key>_<task>``: probabilities ``[classes]``."""

    def __init__(self, keys: str | list[str], predictor: melo.Predictor, value_range: tuple[float, float], layout: str = "cwh") -> None:
        super().__init__(keys)
        self.predictor, self.value_range, self.layout = predictor, value_range, layout

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        answered = dict(data)
        for key in self.keys:
            for said in self.predictor.predict([answered[key]], layout=self.layout, value_range=self.value_range)[0]:
                answered[f"{key}_{said.task}"] = said.probabilities
        return answered


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True, help="weights: a file or folder, or a model on the hub")
    parser.add_argument("--plugin", required=True, action="append", help="a plug-in; may be given several times")
    parser.add_argument("--range", type=float, nargs=2, default=(0.0, 255.0), help="values that become black and white")
    parser.add_argument("images", nargs="+")
    args = parser.parse_args()

    predictor = melo.Predictor(melo.Backbone.load(args.backbone), args.plugin)
    pipeline = Compose([LoadImaged("image"), EnsureChannelFirstd("image"), Answerd("image", predictor, tuple(args.range))])
    for image in args.images:
        answered: Any = pipeline({"image": image})
        print(image, {task: answered[f"image_{task}"].tolist() for task in predictor.tasks})


if __name__ == "__main__":
    main()
