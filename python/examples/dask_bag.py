"""Answers for many images by a bag of Dask, one thread a process: a JSON object an image and task.

    python dask_bag.py --backbone vit.safetensors --plugin wbc.safetensors --jobs 2 films/*.png

A process reads the backbone's weights once and keeps them. On a cluster, with a `distributed.Client`, `compute()` takes no scheduler, and
paths must be readable by every worker.
"""

# pyright: reportMissingImports=false, reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable
from functools import partial
from typing import Any

from dask import bag

import melo_vit as melo


def answers(images: Iterable[str], predictor: melo.Predictor) -> list[dict[str, Any]]:
    return predictor.predict(images, keep_pixels=False).records()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True, help="weights: a file or folder, or a model on the hub")
    parser.add_argument("--plugin", required=True, action="append", help="a plug-in; may be given several times")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--batch", type=int, default=16, help="images at a time")
    parser.add_argument("images", nargs="+")
    args = parser.parse_args()

    source = os.path.abspath(args.backbone) if os.path.exists(args.backbone) else args.backbone
    predictor = melo.Predictor(melo.Backbone.load(source, threads=1), args.plugin)
    images = bag.from_sequence([os.path.abspath(image) for image in args.images], partition_size=args.batch)
    said: Any = images.map_partitions(partial(answers, predictor=predictor))
    for record in said.compute(scheduler="processes", num_workers=args.jobs):
        print(json.dumps(record))


if __name__ == "__main__":
    main()
