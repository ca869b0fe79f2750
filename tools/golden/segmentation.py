"""Writes crates/eval/tests/golden/segmentation.json: label maps, and what MONAI makes of them.

    pip install -r tools/golden/segmentation-requirements.txt
    python tools/golden/segmentation.py

Deterministic: running it again changes nothing. Labels are one digit a pixel, 9 where a pixel is ignored; null stands for undefined.
MONAI computes distances and their percentile in f32, hence `hd95` in f64 by scipy from the same borders beside `hd95_monai`.
"""

import json
import warnings
from pathlib import Path

import numpy as np
import torch
from monai.metrics import DiceMetric, MeanIoU, SurfaceDiceMetric, compute_hausdorff_distance
from monai.metrics.utils import get_mask_edges
from scipy import ndimage

OUT = Path(__file__).parents[2] / "crates/eval/tests/golden/segmentation.json"
IGNORE = 9


def known(tensor):
    """NaN, MONAI's word for undefined, to None."""
    return [None if np.isnan(v) else float(v) for v in np.asarray(tensor, dtype=np.float64).ravel()]


def one_hot(labels, valid, classes):
    """Float64, for exact ratios; pixels that are ignored are of no class."""
    return torch.from_numpy(np.stack([(labels == c) & valid for c in range(classes)])[None].astype(np.float64))


def hd95(reference, prediction, spacing):
    """Of two masks, in f64."""
    if not reference.any() or not prediction.any():
        return None
    borders = [mask & ~ndimage.binary_erosion(mask) for mask in (prediction, reference)]
    monai = get_mask_edges(prediction, reference, crop=False)
    assert all((own == np.asarray(other)).all() for own, other in zip(borders, monai))
    directed = [
        np.percentile(ndimage.distance_transform_edt(~other, sampling=spacing)[own], 95)
        for own, other in (borders, borders[::-1])
    ]
    return float(max(directed))


def case(name, reference, prediction, classes, spacing, tolerance):
    valid = reference != IGNORE
    y, y_pred = one_hot(reference, valid, classes), one_hot(prediction, valid, classes)

    def per_class(metric, **kwargs):
        return known(metric(y_pred=y_pred, y=y, **kwargs))

    exact = [hd95(y[0, c].numpy() > 0, y_pred[0, c].numpy() > 0, spacing) for c in range(classes)]
    monai = known(compute_hausdorff_distance(y_pred, y, include_background=True, percentile=95, spacing=spacing))
    for a, b in zip(exact, monai):
        # torch.quantile has its ranks in f32.
        assert (a is None) == (b is None) and (a is None or abs(a - b) <= 1e-4 * max(1, a)), (name, exact, monai)
    surface = SurfaceDiceMetric([tolerance] * classes, include_background=True, reduction="none")
    return {
        "name": name,
        "shape": list(reference.shape),
        "spacing": spacing,
        "classes": classes,
        "tolerance": tolerance,
        "reference": "".join(map(str, reference.ravel())),
        "prediction": "".join(map(str, prediction.ravel())),
        "dice": per_class(DiceMetric(reduction="none")),
        "dice_scored": per_class(DiceMetric(reduction="none", ignore_empty=False)),
        "iou": per_class(MeanIoU(reduction="none")),
        "iou_scored": per_class(MeanIoU(reduction="none", ignore_empty=False)),
        "hd95": exact,
        "hd95_monai": monai,
        "surface_dice": per_class(surface, spacing=spacing),
    }


def blobs(rng, shape, classes, smooth):
    """Classes of smoothed noise, the background the most frequent."""
    noise = ndimage.gaussian_filter(rng.normal(size=shape), smooth, mode="nearest")
    cuts = np.quantile(noise, np.linspace(0.5, 1, classes)[:-1])
    return np.searchsorted(cuts, noise).astype(np.uint8), noise, cuts


def pair(rng, shape, classes, smooth=2.0, shake=0.4):
    reference, noise, cuts = blobs(rng, shape, classes, smooth)
    other = ndimage.gaussian_filter(rng.normal(size=shape), smooth, mode="nearest")
    prediction = np.searchsorted(cuts, noise + shake * other).astype(np.uint8)
    return reference, prediction


def cases():
    rng = np.random.default_rng(20261129)

    yield case("blobs", *pair(rng, (40, 48), 3), 3, [1.0, 1.0], 1.0)
    yield case("blobs, oblong pixels", *pair(rng, (36, 30), 4), 4, [0.7, 2.3], 2.0)
    yield case("noise", rng.integers(0, 3, (21, 17)), rng.integers(0, 3, (21, 17)), 3, [0.1, 0.1], 0.3)

    reference, prediction = np.zeros((2, 24, 40), np.uint8)
    reference[3, 2:38], reference[20, 10] = 1, 1
    prediction[5, 4:40], prediction[:, 0] = 1, 1
    yield case("lines and a point", reference, prediction, 2, [0.1, 0.1], 0.2)

    reference, prediction = np.zeros((2, 20, 20), np.uint8)
    reference[:8], reference[12:, 14:] = 1, 2
    prediction[:9, 2:], prediction[13:, 15:] = 1, 2
    yield case("at the image's edges", reference, prediction, 3, [1.5, 1.0], 1.0)
    yield case("the same", reference, reference, 3, [1.5, 1.0], 0.0)

    # Class 1 is missed, 2 invented, 3 in neither, 4 in both.
    reference, prediction = np.zeros((2, 16, 12), np.uint8)
    reference[2:6, 2:6], reference[10:, 4:9] = 1, 4
    prediction[3:5, 8:11], prediction[9:, 4:10] = 2, 4
    yield case("empty classes", reference, prediction, 5, [1.0, 1.0], 1.0)

    reference, prediction = pair(rng, (32, 32), 3)
    reference[8:20, 12:24], reference[0] = IGNORE, IGNORE
    yield case("pixels ignored", reference, prediction, 3, [1.0, 2.0], 1.0)
    yield case("all ignored", np.full_like(reference, IGNORE), prediction, 3, [1.0, 2.0], 1.0)

    yield case("one row", *(m.reshape(1, -1) for m in pair(rng, (40,), 2)), 2, [3.0, 0.5], 1.0)

    yield case("stack", *pair(rng, (7, 18, 16), 3, 1.5), 3, [5.0, 0.8, 0.6], 1.0)
    reference, prediction = pair(rng, (5, 14, 15), 2, 1.5)
    reference[2, 3:9] = IGNORE
    yield case("stack, pixels ignored", reference, prediction, 2, [2.5, 1.0, 1.25], 2.5)
    # Every pixel of one slice is a border: there is nothing above and below.
    yield case("stack of one slice", *(m[None] for m in pair(rng, (16, 16), 2)), 2, [4.0, 1.0, 1.0], 1.0)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # undefined metrics are the point
    text = json.dumps(list(cases()), separators=(",", ":"), allow_nan=False)
    OUT.write_text(text.replace('},{"name"', '},\n{"name"').replace(',"dice"', ',\n"dice"') + "\n")
