#!/usr/bin/env python3
"""Times one epoch of `melo train` in f32 and in bf16, in turn, and prints the ratio of each pair.

    python tools/bench/precision.py --melo target/release/melo --backbone WEIGHTS.safetensors --data labels.csv --pairs 5

Rates are training images a second of the epoch, validation included, as `epochs.csv` says them. Nothing else may run.
"""

import argparse
import csv
import pathlib
import statistics
import subprocess
import tempfile


def rate(args, folder, method, precision):
    out = pathlib.Path(folder) / f"{method}.safetensors"
    command = [args.melo, "train", "--backbone", args.backbone, "--data", args.data, "--out", out, "--overwrite"]
    command += ["--method", method, "--precision", precision, "--epochs", "1"]
    subprocess.run(command, check=True, capture_output=True)
    with open(out.with_suffix(".run") / "epochs.csv", newline="") as table:
        return float(next(csv.DictReader(table))["images_per_s"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--melo", required=True)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--methods", nargs="+", default=["linear", "lora", "full"])
    args = parser.parse_args()
    print("| method | f32, images/s | bf16, images/s | bf16 / f32, median of pairs | lowest and highest |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for method in args.methods:
            pairs = [[rate(args, folder, method, p) for p in ("f32", "bf16")] for _ in range(args.pairs)]
            slow, fast = (statistics.median(column) for column in zip(*pairs))
            ratios = sorted(b / a for a, b in pairs)
            print(
                f"| {method} | {slow:.1f} | {fast:.1f} | {statistics.median(ratios):.2f} |"
                f" {ratios[0]:.2f} to {ratios[-1]:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
