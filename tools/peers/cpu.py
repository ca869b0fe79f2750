"""ViT-B/16 on a CPU: `melo bench` beside PyTorch with timm, PEFT and ONNX Runtime, pair by pair.

    pip install -r tools/peers/cpu-requirements.txt
    cargo build --release
    python tools/peers/cpu.py [--melo target/release/melo] [--pairs 3] [--threads 2] [--isa avx2] [--work infer-32,infer-1,train-32]

Random weights, images of 224 x 224 in memory. For every work, each peer and melo run in turn, a process each time; what is printed is
images/s of both and their ratio. `--isa avx2` limits PyTorch and oneDNN to AVX2, and melo likewise.

    torch-f32, torch-bf16   timm's model in f32; in bfloat16 (weights too)
    torch-autocast          f32 weights under autocast to bfloat16
    torch-compile           torch.compile of the bf16 model
    onnx-f32                ONNX Runtime on what torch.onnx exports
    peft-f32, peft-autocast forward, backward and AdamW of LoRA, rank 4 on the fused qkv, and a head of 3 classes
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

INFER = ["torch-f32", "torch-bf16", "torch-autocast", "torch-compile", "onnx-f32"]
TRAIN = ["peft-f32", "peft-autocast"]
ARCH = "vit_base_patch16_224"
RANK, CLASSES = 4, 3


def rate(step, images, seconds):
    """Median images/s of repeated steps after one that warms up."""
    step()
    rates, started = [], time.perf_counter()
    while len(rates) < 3 or time.perf_counter() - started < seconds:
        before = time.perf_counter()
        step()
        rates.append(images / (time.perf_counter() - before))
    return statistics.median(rates)


def infer(peer, batch):
    import timm
    import torch

    model = timm.create_model(ARCH, pretrained=False).eval()
    images = torch.randn(batch, 3, 224, 224)
    if peer == "onnx-f32":
        return onnx(model, images)
    if peer in ("torch-bf16", "torch-compile"):
        model, images = model.bfloat16(), images.bfloat16()
    if peer == "torch-compile":
        model = torch.compile(model)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=peer == "torch-autocast")

    def step():
        with torch.inference_mode(), autocast:
            model(images)

    return step


def onnx(model, images):
    import onnxruntime
    import torch

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "vit.onnx")
        torch.onnx.export(model, images, path, input_names=["images"], dynamo=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options)
    data = images.numpy()
    return lambda: session.run(None, {"images": data})


def train(peer, batch):
    import peft
    import timm
    import torch

    model = timm.create_model(ARCH, pretrained=False, num_classes=CLASSES)
    lora = peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=r".*attn\.qkv", modules_to_save=["head"])
    model = peft.get_peft_model(model, lora).train()
    images, labels = torch.randn(batch, 3, 224, 224), torch.arange(batch) % CLASSES
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)

    def step():
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=peer == "peft-autocast"):
            loss = torch.nn.functional.cross_entropy(model(images).float(), labels)
        loss.backward()
        optimizer.step()

    return step


def peer_rate(peer, batch, threads, seconds):
    import resource

    import torch

    torch.set_num_threads(threads)
    step = train(peer, batch) if peer in TRAIN else infer(peer, batch)
    images_per_s = rate(step, batch, seconds)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"images_per_s": images_per_s, "peak_rss_bytes": peak}))


def run(command, environment):
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or ["no message"])[-1]
    return json.loads(done.stdout.strip().splitlines()[-1]), None


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
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        return peer_rate(args.peer, args.batch, args.threads, args.seconds)

    environment = dict(os.environ)
    if args.isa == "avx2":
        environment |= {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
        environment["MELO_ISA"] = "avx2"
    for work in args.work.split(","):
        kind, batch = work.split("-")
        peers = args.peers.split(",") if args.peers else TRAIN if kind == "train" else INFER
        for precision in args.precisions.split(","):
            ours = [args.melo, "--threads", str(args.threads), "bench", kind, "--arch", ARCH, "--batch-size", batch]
            ours += ["--precision", precision, "--seconds", str(args.seconds), "--repeats", "3", "--json"]
            for peer in peers:
                theirs = [sys.executable, __file__, "--peer", peer, "--batch", batch, "--threads", str(args.threads)]
                theirs += ["--seconds", str(args.seconds)]
                ratios = []
                for _ in range(args.pairs):
                    (there, error), (here, fault) = run(theirs, environment), run(ours, environment)
                    if error or fault:
                        print(f"{work} {peer}: {error or fault}", flush=True)
                        break
                    ratios.append(here["median"] / there["images_per_s"])
                    print(
                        f"{work} {peer} {there['images_per_s']:.2f} images/s, {there['peak_rss_bytes'] / 1e6:.0f} MB; "
                        f"melo {here['precision']} on {here['isa']} {here['median']:.2f} images/s, "
                        f"{here['peak_rss_bytes'] / 1e6:.0f} MB; ratio {ratios[-1]:.2f}",
                        flush=True,
                    )
                if ratios:
                    print(f"{work} {peer}: median ratio {statistics.median(ratios):.2f}", flush=True)


if __name__ == "__main__":
    main()
