"""Answers for many images by processes of joblib, one thread each: a JSON object an image and task.

    python joblib_map.py --backbone vit.safetensors --plugin wbc.safetensors --jobs 2 films/*.png

The predictor is pickled with each batch; a process reads the backbone's weights once and keeps them.
"""

# pyright: reportMissingImports=false, reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from joblib import Parallel, delayed

import melo_vit as melo


def answers(predictor: melo.Predictor, images: list[str]) -> list[dict[str, Any]]:
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
    images = [os.path.abspath(image) for image in args.images]
    batches = [images[start : start + args.batch] for start in range(0, len(images), args.batch)]
    pool: Any = Parallel(n_jobs=args.jobs, return_as="generator")
    for records in pool(delayed(answers)(predictor, batch) for batch in batches):
        for record in records:
            print(json.dumps(record))


if __name__ == "__main__":
    main()
