"""Times `melo data pack` against Pillow and torchvision's Resize on the same PNG files, in turn.

    pip install -r tools/peers/pack-requirements.txt
    cargo build --release
    python tools/peers/pack.py [--melo target/release/melo] [--images 2000] [--processes 2] [--pairs 3]

Makes grey 1024 x 1024 PNG files (seeded: a smooth body with ribs, and noise of a detector; about 0.4 bytes a pixel, as NIH
ChestX-ray14), then, pair by pair: the peer reads every file with Pillow, resizes it with `torchvision.transforms.Resize` and
writes an array a file (`.npy`), in as many processes as melo has threads; melo packs the same files. Both use the bilinear
filter, antialiased. The peer runs twice: as pipelines for ViTs have it, with `convert("RGB")`, and with grey left grey,
which melo's packs also store. Prints images/s of each and the ratio of each pair, and the same of processor time, which other
work on the machine disturbs less.
"""

import argparse
import json
import multiprocessing
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, SEED = 1024, 1


def draw(task):
    path, index = task
    random = np.random.default_rng([SEED, index])
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE - 0.5
    cx, cy, width = random.normal(0, 0.05, 2).tolist() + [random.uniform(0.3, 0.45)]
    body = 190 * np.exp(-(((x - cx) / width) ** 4) - ((y - cy) / 0.6) ** 4)
    lungs = 90 * np.exp(-(((np.abs(x - cx) - 0.18) / 0.12) ** 2) - ((y - cy) / 0.3) ** 2)
    ribs = 12 * np.sin(40 * (y + 0.6 * (x - cx) ** 2) + random.uniform(0, 6))
    image = body - lungs + ribs * (body > 60) + random.normal(0, 1.0, (SIDE, SIDE)) + 20
    Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(path)


def start(size, mode, out):
    global RESIZE, MODE, OUT
    import torch
    from torchvision.transforms import InterpolationMode, Resize

    torch.set_num_threads(1)
    RESIZE, MODE, OUT = Resize((size, size), InterpolationMode.BILINEAR), mode, Path(out)


def convert(path):
    """Processor time of one image."""
    began = time.process_time()
    with Image.open(path) as image:
        np.save(OUT / (Path(path).stem + ".npy"), np.asarray(RESIZE(image.convert(MODE))))
    return time.process_time() - began


def peer(paths, size, mode, processes, folder):
    """Images/s, and processor time of an image, without the start of the processes and their imports."""
    out = folder / "peer"
    out.mkdir()
    with multiprocessing.Pool(processes, start, (size, mode, str(out))) as pool:
        pool.map(convert, paths[: 2 * processes], chunksize=1)
        began = time.perf_counter()
        busy = sum(pool.map(convert, paths, chunksize=8))
        rate = len(paths) / (time.perf_counter() - began)
    shutil.rmtree(out)
    return rate, busy / len(paths)


def melo(binary, manifest, size, processes, folder):
    """Images/s, and processor time of an image, with the start of the process and the reading of the manifest."""
    out = folder / "melo.pack"
    command = [binary, "--threads", str(processes), "data", "pack", manifest, "--out", out, "--size", str(size)]
    began, before = time.perf_counter(), children()
    answer = subprocess.run([*command, "--interpolation", "bilinear", "--json"], check=True, capture_output=True)
    images = json.loads(answer.stdout)["images"]
    rate = images / (time.perf_counter() - began)
    shutil.rmtree(out)
    return rate, (children() - before) / images


def children():
    """Processor time of all child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--melo", default="target/release/melo")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "images").mkdir()
        paths = [str(folder / "images" / f"{index:05}.png") for index in range(arguments.images)]
        with multiprocessing.Pool(arguments.processes) as pool:
            pool.map(draw, zip(paths, range(len(paths))), chunksize=8)
        mean = np.mean([Path(path).stat().st_size for path in paths])
        manifest = folder / "labels.csv"
        lines = [f"images/{index:05}.png,{index % 2}" for index in range(len(paths))]
        manifest.write_text("\n".join(["path,label", *lines]) + "\n")
        print(f"{len(paths)} images, {mean / SIDE**2:.2f} bytes a pixel; {arguments.processes} processes or threads")
        for pair in range(arguments.pairs):
            rates = {mode: peer(paths, arguments.size, mode, arguments.processes, folder) for mode in ("RGB", "L")}
            ours, busy = melo(arguments.melo, manifest, arguments.size, arguments.processes, folder)
            said = "".join(
                f", peer {mode} {rate:.1f} images/s ({ours / rate:.2f}x), {1e3 * peers:.2f} ms ({peers / busy:.2f}x)"
                for mode, (rate, peers) in rates.items()
            )
            print(f"pair {pair + 1}: melo {ours:.1f} images/s, {1e3 * busy:.2f} ms of processor time{said}", flush=True)


if __name__ == "__main__":
    main()
