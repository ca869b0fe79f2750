"""Measures the Python module: its import, a predictor against `melo bench infer` in turn, and two threads on one backbone.

    pip install .
    python tools/python/measure.py --backbone vit_base.safetensors --arch vit_base_patch16_224

Prints one JSON object: medians, and the ratio of pairs that ran in turn. Nothing else may run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time

import numpy as np

import melo_vit as melo


def resident() -> int:
    """MiB that this process holds."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmRSS:"))


def import_seconds() -> float:
    code = "import time; begun = time.perf_counter(); import melo_vit; print(time.perf_counter() - begun)"
    runs = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout) for _ in range(7)]
    return statistics.median(runs)


def bench(arch: str, batch: int, seconds: float, precision: str) -> float:
    command = [sys.executable, "-m", "melo_vit", "bench", "infer", "--arch", arch, "--batch-size", str(batch)]
    command += ["--seconds", str(seconds), "--precision", precision, "--rank", "0", "--json"]
    return float(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["images_per_s"])


def predicted(predictor: melo.Predictor, images: np.ndarray, seconds: float) -> float:
    rates = []
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends or not rates:
        begun = time.perf_counter()
        predictor.predict(images, keep_pixels=False)
        rates.append(len(images) / (time.perf_counter() - begun))
    return statistics.median(rates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", required=True, help="weights with a classifier of their own")
    parser.add_argument("--arch", required=True, help="the same architecture by its name")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--precision", default="f32")
    args = parser.parse_args()
    backbone = melo.Backbone.load(args.backbone, precision=args.precision)
    predictor = melo.Predictor(backbone, melo.Plugin.own_classifier(backbone))
    side = backbone.image_size
    images = np.random.default_rng(0).integers(0, 256, (args.batch_size, side, side, 3), dtype=np.uint8)
    predictor.predict(images, keep_pixels=False)
    before = resident()
    threads = [threading.Thread(target=predictor.predict, args=(images,)) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    after = resident()
    pairs = []
    for _ in range(args.pairs):
        ours = predicted(predictor, images, args.seconds)
        pairs.append((ours, bench(args.arch, args.batch_size, args.seconds, args.precision)))
    ratios = sorted(ours / theirs for ours, theirs in pairs)
    said = {
        "device": backbone.device_name,
        "import_s": import_seconds(),
        "predictor_images_per_s": statistics.median(ours for ours, _ in pairs),
        "bench_images_per_s": statistics.median(theirs for _, theirs in pairs),
        "ratio": statistics.median(ratios),
        "ratio_lowest": ratios[0],
        "ratio_highest": ratios[-1],
        "resident_mib": before,
        "resident_mib_after_two_threads": after,
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
