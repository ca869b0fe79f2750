"""How far self-tests of plug-ins trained in f32 are from themselves in bf16 and int8: what the tolerance of crates/vit/src/proof.rs is from.

    cargo build --release
    python tools/peers/self_test_spread.py --melo target/release/melo --data DATA --backbone vit.safetensors --plugins runs/int8

--plugins is a folder of TASK.safetensors, as int8_accuracy.py leaves it; DATA holds a folder with a labels.csv for every task. Prints one
Markdown table: the largest difference of a logit on the two images of the test, in parts of the largest logit, with the adapter and without.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

PRECISIONS = ["bf16", "int8"]


def melo(args, *arguments):
    return subprocess.run([args.melo, *map(str, arguments)], capture_output=True, text=True, check=True).stdout


def logits(test, part):
    return [logit for image in test[part] for logit in image]


def spread(args, plugin, precision, out):
    data = ["--backbone", args.backbone, "--data", args.data / plugin.stem / "labels.csv"]
    melo(args, "plugin", "recalibrate", plugin, *data, "--precision", precision, "--out", out, "--json")
    card = json.loads(melo(args, "plugin", "info", out, "--json"))["card"]
    tests = [calibration["self_test"] for calibration in card["calibrations"]]
    there = next(test for test in tests if test["precision"] == precision)
    here = card["self_test"]
    scale = max(abs(logit) for part in ("logits", "bare_logits") for logit in logits(here, part))
    parts = [zip(logits(here, part), logits(there, part)) for part in ("logits", "bare_logits")]
    return [max(abs(a - b) for a, b in pairs) / scale for pairs in parts]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--melo", default="target/release/melo")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", type=Path, required=True)
    parser.add_argument("--plugins", type=Path, required=True)
    args = parser.parse_args()
    heads = [f"{precision}, {part}" for precision in PRECISIONS for part in ("with", "without")]
    print("| task | " + " | ".join(heads) + " |\n|---" + "|---" * len(heads) + "|", flush=True)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for plugin in sorted(args.plugins.glob("*.safetensors")):
            if not (args.data / plugin.stem / "labels.csv").exists():
                continue
            out = Path(folder)
            found = [spread(args, plugin, precision, out / f"{plugin.stem}.{precision}") for precision in PRECISIONS]
            rows.append([value for pair in found for value in pair])
            print(f"| {plugin.stem} | " + " | ".join(f"{value:.4f}" for value in rows[-1]) + " |", flush=True)
    print("| worst | " + " | ".join(f"{max(column):.4f}" for column in zip(*rows)) + " |")


if __name__ == "__main__":
    main()
