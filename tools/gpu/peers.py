"""melo beside PyTorch on one card: inference and steps of low-rank updates, in turn. NEVER RUN SO FAR: there was no card.

    pip install torch timm peft
    cargo build --release --features cuda
    python3 tools/gpu/peers.py --rounds 5

Inference of ViT-B and ViT-L at 1, 32 and 256 images: `melo --device cuda bench infer`, PyTorch in bfloat16, eager and compiled. Steps of 64
images: `melo --device cuda bench train`, PEFT (r = 4 on qkv) under autocast, eager and compiled. Prints medians over rounds, and the share of
the card's peak, which is measured by a product of 8192³ in bfloat16.
"""

import argparse
import json
import statistics
import subprocess
import time

import timm
import torch
from peft import LoraConfig, get_peft_model

ARCHITECTURES = ["vit_base_patch16_224", "vit_large_patch16_224"]
BATCHES = [1, 32, 256]
STEP = 64


def seconds(work, repeats=10):
    """A call's time, the fastest of some."""
    work()
    torch.cuda.synchronize()
    found = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        torch.cuda.synchronize()
        found.append(time.perf_counter() - started)
    return min(found)


def peak():
    """Floating-point operations a second."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * 8192**3 / seconds(lambda: a @ b)


def flops(model):
    """Of one image's forward pass: two a weight and token, and attention."""
    tokens = model.patch_embed.num_patches + 1
    weights = sum(parameter.numel() for name, parameter in model.named_parameters() if name.endswith("weight") and parameter.dim() > 1)
    return 2 * tokens * weights + 4 * tokens**2 * model.embed_dim * len(model.blocks)


def melo(binary, verb, architecture, batch):
    command = [binary, "--device", "cuda", "bench", verb, "--arch", architecture, "--batch-size", str(batch), "--precision", "bf16", "--json"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return json.loads(lines[-1])["images_per_s"]


def infer(architecture, batch, compiled):
    model = timm.create_model(architecture).cuda().eval().bfloat16()
    images = torch.randn(batch, 3, 224, 224, device="cuda", dtype=torch.bfloat16)
    run = torch.compile(model) if compiled else model
    with torch.inference_mode():
        return batch / seconds(lambda: run(images))


def step(architecture, compiled):
    model = timm.create_model(architecture, num_classes=3)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=4, target_modules=["qkv"], modules_to_save=["head"])).cuda()
    optimizer = torch.optim.AdamW((parameter for parameter in model.parameters() if parameter.requires_grad), lr=1e-4)
    images, labels = torch.randn(STEP, 3, 224, 224, device="cuda"), torch.randint(3, (STEP,), device="cuda")
    run = torch.compile(model) if compiled else model

    def one():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = torch.nn.functional.cross_entropy(run(images), labels)
        loss.backward()
        optimizer.step()

    torch.cuda.reset_peak_memory_stats()
    return STEP / seconds(one), torch.cuda.max_memory_allocated() / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--melo", default="target/release/melo")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    most = peak()
    print(f"{torch.cuda.get_device_name()}: {most / 1e12:.0f} TFLOP/s of a product in bfloat16")
    for architecture in ARCHITECTURES:
        work = flops(timm.create_model(architecture))
        for batch in BATCHES:
            who = {
                "melo": lambda: melo(args.melo, "infer", architecture, batch),
                "PyTorch": lambda: infer(architecture, batch, False),
                "torch.compile": lambda: infer(architecture, batch, True),
            }
            found = {name: [] for name in who}
            for _ in range(args.rounds):
                for name, run in who.items():
                    found[name].append(run())
            for name, rates in found.items():
                rate = statistics.median(rates)
                print(f"infer {architecture} {batch}: {name} {rate:.0f} images/s, {rate * work / most:.2f} of the peak", flush=True)
        for name, compiled in [("PEFT", False), ("PEFT, compiled", True)]:
            rate, mebibytes = step(architecture, compiled)
            print(f"step {architecture} {STEP}: {name} {rate:.0f} images/s, {mebibytes:.0f} MiB", flush=True)
        rate = statistics.median(melo(args.melo, "train", architecture, STEP) for _ in range(args.rounds))
        print(f"step {architecture} {STEP}: melo {rate:.0f} images/s", flush=True)


if __name__ == "__main__":
    main()
