"""ViT-B/16 on a CPU: `melo bench` beside PyTorch with timm, torchao, ONNX Runtime, OpenVINO, candle and PEFT, pair by pair.

    pip install -r tools/peers/cpu-requirements.txt
    cargo build --release
    RUSTFLAGS="-C target-cpu=native" cargo build --release --manifest-path tools/peers/candle/Cargo.toml    # if candle is wanted
    python tools/peers/cpu.py [--melo target/release/melo] [--pairs 3] [--threads 2] [--isa avx2] [--work infer-32,infer-1,train-32]
        [--peers openvino-int8,onnx-int8] [--precisions f32,bf16,int8] [--json pairs.jsonl]
    python tools/peers/cpu.py --table pairs.jsonl

Random weights, images of 224 x 224 in memory. For every work, peer and precision of ours, peer and melo run in turn, a process each
time: peer, melo, peer, melo. What is printed is images/s of both and their ratio, of which the median of the pairs counts. `--json`
adds a line a pair to a file; pairs that it already holds of the same binary are not run again. `--table` prints such a file as
Markdown, those pairs that share binary, threads and instruction set with its last.
`--isa avx2` limits PyTorch and oneDNN to AVX2, and melo likewise; ONNX Runtime, OpenVINO and candle, which choose for themselves, are left
out. `--pause 2` waits between processes, for a processor that slows down when hot.

    torch-f32, torch-bf16   timm's model in f32; in bfloat16 (weights too)
    torch-autocast          f32 weights under autocast to bfloat16
    torch-compile           torch.compile of the bf16 model, weights frozen
    torchao-int8            the same, after Int8DynamicActivationInt8WeightConfig
    onnx-f32                ONNX Runtime on what torch.onnx exports
    onnx-int8               the same after dynamic quantisation, a scale an output channel
    openvino-f32, -bf16     OpenVINO by its hint of precision; throughput settings for a batch, latency ones for an image
    openvino-int8           the same after NNCF's post-training quantisation (transformer, mixed preset; random images)
    candle                  candle-transformers' ViT in f32: its CPU backend multiplies neither bf16 nor, but for GGML files, int8
    peft-f32, peft-autocast forward, backward and AdamW of LoRA, rank 4 on the fused qkv, and a head of 3 classes
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from cpu_peers import ARCH

HERE = Path(__file__).parent
CANDLE = HERE / "candle/target/release/candle-peer"
INFER = ["torch-f32", "torch-bf16", "torch-autocast", "torch-compile", "torchao-int8", "onnx-f32", "onnx-int8"]
INFER += ["openvino-f32", "openvino-bf16", "openvino-int8", "candle"]
TRAIN = ["peft-f32", "peft-autocast"]
OWN_CHOICE = ("onnx", "openvino", "candle")
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "MELO_ISA": "avx2"}


def call(command, environment):
    """Standard output, or else the line that says what was wrong: melo's begins with `error`, Python's is the last."""
    done = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return None, next((line for line in said if line.startswith("error")), said[-1])
    return done.stdout, None


def measured(command, environment):
    """The object on the last line."""
    said, fault = call(command, environment)
    return (None, fault) if fault else (json.loads(said.strip().splitlines()[-1]), None)


def peers_of(kind, args):
    peers = TRAIN if kind == "train" else INFER
    if args.peers:
        peers = [peer for peer in peers if peer in args.peers.split(",")]
    if args.isa:
        peers = [peer for peer in peers if not peer.startswith(OWN_CHOICE)]
    if "candle" in peers and not CANDLE.exists():
        print(f"{kind} candle: not built, see --help", flush=True)
        peers = [peer for peer in peers if peer != "candle"]
    return peers


def command_of(peer, batch, args, models):
    if peer == "candle":
        return [CANDLE, batch, args.seconds]
    worker = [sys.executable, HERE / "cpu_peers.py", "--peer", peer, "--batch", batch, "--models", models]
    return [*worker, "--threads", args.threads, "--seconds", args.seconds]


def command_of_melo(kind, batch, precision, args):
    bench = [args.melo, "--threads", args.threads, "bench", kind, "--arch", ARCH, "--batch-size", batch]
    return [*bench, "--precision", precision, "--warmup", 2, "--seconds", args.seconds, "--repeats", 3, "--json"]


def pairs_of(file):
    return [json.loads(line) for line in file.read_text().splitlines()] if file and file.exists() else []


def run(args):
    environment = dict(os.environ, RAYON_NUM_THREADS=str(args.threads), **(AVX2 if args.isa else {}))
    binary = hashlib.sha256(Path(args.melo).read_bytes()).hexdigest()[:16]
    with tempfile.TemporaryDirectory() as models:
        for work in args.work.split(","):
            kind, batch = work.split("-")
            for peer in peers_of(kind, args):
                theirs = command_of(peer, batch, args, models)
                for precision in args.precisions.split(","):
                    same = {"work": work, "peer": peer, "asked": precision, "threads": args.threads, "binary": binary}
                    if fault := run_pairs(same, theirs, environment, args):
                        print(f"{work} {peer} against {precision}: {fault}", flush=True)


def run_pairs(same, theirs, environment, args):
    """What went wrong, if something did."""
    same = same | {"isa_limit": args.isa}
    ours = command_of_melo(*same["work"].split("-"), same["asked"], args)
    pairs = [pair for pair in pairs_of(args.json) if all(pair.get(key) == value for key, value in same.items())]
    if len(pairs) < args.pairs and same["peer"] != "candle":
        _, fault = call([*theirs, "--prepare"], environment)
        if fault:
            return fault
    while len(pairs) < args.pairs:
        answers = []
        for command in (theirs, ours):
            answer, fault = measured(command, environment)
            if fault:
                return fault
            answers.append(answer)
            time.sleep(args.pause)
        there, here = answers
        pairs.append(same | {"ratio": here["median"] / there["images_per_s"], "theirs": there, "melo": here})
        print(
            f"{same['work']} {same['peer']} {there['images_per_s']:.2f} images/s, {there['peak_rss_bytes'] / 1e6:.0f} MB; "
            f"melo {here['precision']} on {here['isa']} {here['median']:.2f} images/s, {here['peak_rss_bytes'] / 1e6:.0f} MB, "
            f"{here['fraction_of_peak']:.2f} of peak; ratio {pairs[-1]['ratio']:.2f}",
            flush=True,
        )
        if args.json:
            with open(args.json, "a", encoding="utf-8") as file:
                file.write(json.dumps(pairs[-1] | {"load_average": os.getloadavg()[0]}) + "\n")
    ratios = [pair["ratio"] for pair in pairs]
    print(
        f"{same['work']} {same['peer']} against {pairs[0]['melo']['precision']}: median ratio {median(ratios):.2f} "
        f"[{min(ratios):.2f}, {max(ratios):.2f}] of {len(ratios)}",
        flush=True,
    )


def middle(pairs, side, figure):
    return median(pair[side][figure] for pair in pairs)


def table(file):
    """Of the pairs that were measured as the last one was: same binary, threads and limit of the instruction set."""
    pairs = pairs_of(file)
    pairs = [pair for pair in pairs if all(pair[key] == pairs[-1][key] for key in ("binary", "threads", "isa_limit"))]
    precisions = list(dict.fromkeys(pair["melo"]["precision"] for pair in pairs))
    print("| work | peer | images/s, MB |" + "".join(f" melo {p}: images/s, ratio |" for p in precisions))
    print("|---|---|---|" + "---|" * len(precisions))
    for work in dict.fromkeys(pair["work"] for pair in pairs):
        of_work = [pair for pair in pairs if pair["work"] == work]
        own = ["–"] * len(precisions)
        for column, precision in enumerate(precisions):
            of = [pair for pair in of_work if pair["melo"]["precision"] == precision]
            if of:
                rate, peak = middle(of, "melo", "median"), middle(of, "melo", "peak_rss_bytes") / 1e6
                own[column] = f"{rate:.2f}, {middle(of, 'melo', 'fraction_of_peak'):.2f} of peak, {peak:.0f} MB"
        print(f"| {work} | melo itself | | {' | '.join(own)} |")
        for peer in dict.fromkeys(pair["peer"] for pair in of_work):
            of_peer = [pair for pair in of_work if pair["peer"] == peer]
            cells = []
            for precision in precisions:
                of = [pair for pair in of_peer if pair["melo"]["precision"] == precision]
                ratios = [pair["ratio"] for pair in of]
                spread = of and f"{median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
                cells.append(f"{middle(of, 'melo', 'median'):.2f}, {spread}" if of else "–")
            rate, peak = middle(of_peer, "theirs", "images_per_s"), middle(of_peer, "theirs", "peak_rss_bytes") / 1e6
            print(f"| {work} | {peer} | {rate:.2f}, {peak:.0f} | {' | '.join(cells)} |")
    counts = sorted({sum(same(a, b) for b in pairs) for a in pairs})
    versions = {name: number for pair in pairs for name, number in pair["theirs"]["versions"].items()}
    print(f"\nPairs a cell: {', '.join(map(str, counts))}. Versions: " + ", ".join(f"{k} {v}" for k, v in versions.items()) + ".")
    for kind in ("machine", "commit"):
        print(f"{kind.capitalize()}: {'; '.join(sorted({pair['melo'][kind] for pair in pairs}))}.")


def same(a, b):
    return all(a[key] == b[key] for key in ("work", "peer")) and a["melo"]["precision"] == b["melo"]["precision"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--melo", default="target/release/melo")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--isa", choices=["avx2"])
    parser.add_argument("--work", default="infer-32,infer-1,train-32")
    parser.add_argument("--precisions", default="auto", help="of melo, by commas")
    parser.add_argument("--peers", help="by commas; all that fit the work")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement at least")
    parser.add_argument("--pause", type=float, default=0, help="seconds between two measurements")
    parser.add_argument("--json", type=Path, help="file that gets a line a pair")
    parser.add_argument("--table", type=Path, help="print this file of --json as a table, and measure nothing")
    args = parser.parse_args()
    table(args.table) if args.table else run(args)


if __name__ == "__main__":
    main()
