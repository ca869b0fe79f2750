"""Answers for a dataset of Ray Data by a pool of actors, one process a core, each of which loads the model once.

    python ray_data.py --backbone vit.safetensors --plugin wbc.safetensors --actors 2 films/*.png

A JSON object an image, with the probabilities of each task. Actors read the files themselves: paths must be readable by every node. Where
another step of the dataset needs cores too (`read_binary_files`, whose `bytes` are predicted as well), leave it one, or it waits for ever.
"""

# pyright: reportMissingImports=false, reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import argparse
import json
import os
from typing import Any

import numpy as np
import ray.data

import melo_vit as melo


class Answers:
    """A batch of files to the probabilities ``[n, classes]`` of each task."""

    def __init__(self, backbone: str, plugins: list[str]) -> None:
        self.predictor = melo.Predictor(melo.Backbone.load(backbone, threads=1), plugins)

    def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
        said = self.predictor.predict(batch["path"].tolist(), keep_pixels=False)
        return {"path": batch["path"], **{task: said.probabilities(task) for task in self.predictor.tasks}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True, help="weights: a file or folder, or a model on the hub")
    parser.add_argument("--plugin", required=True, action="append", help="a plug-in; may be given several times")
    parser.add_argument("--actors", type=int, default=os.cpu_count(), help="processes, of one core each")
    parser.add_argument("--batch", type=int, default=16, help="images at a time")
    parser.add_argument("images", nargs="+")
    args = parser.parse_args()

    source = os.path.abspath(args.backbone) if os.path.exists(args.backbone) else args.backbone
    plugins = [os.path.abspath(plugin) for plugin in args.plugin]
    images = ray.data.from_items([{"path": os.path.abspath(image)} for image in args.images])
    pool = ray.data.ActorPoolStrategy(size=args.actors)
    said = images.map_batches(Answers, fn_constructor_args=(source, plugins), compute=pool, num_cpus=1, batch_size=args.batch)
    for row in said.iter_rows():
        print(json.dumps({name: value if isinstance(value, str) else np.asarray(value).tolist() for name, value in row.items()}))


if __name__ == "__main__":
    main()
