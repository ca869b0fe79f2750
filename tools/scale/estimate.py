"""estimate.py MELO [IMAGES [PAIRS]]: holds `melo archive run --estimate` to runs, on one core and on two. Prints ratios, which a busy machine blurs; the
working folder is that of the repository. MELO is a binary with --features archive."""

import json
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

from grey_png import grey_png

MELO = sys.argv[1]
IMAGES = int(sys.argv[2]) if len(sys.argv) > 2 else 240
PAIRS = int(sys.argv[3]) if len(sys.argv) > 3 else 3
WITH = ["--backbone", "assets/vit_small_formula.safetensors", "--plugin", "assets/phantoms/fundus.safetensors"]
WORK = pathlib.Path(tempfile.mkdtemp(prefix="melo-estimate-"))


def png(seed, side=512):
    """A grey PNG that depends on `seed`."""
    draw = random.Random(seed)
    return grey_png([draw.randbytes(side) for _ in range(side)])


def pinned(cores, folder, *more):
    command = ["taskset", "-c", cores, MELO, "archive", "run", str(folder), *WITH, *more, "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def told(process):
    return json.loads(process.communicate()[0])


def rate(cores):
    """Images a second of a run, its start included."""
    started = time.time()
    out = pathlib.Path(tempfile.mkdtemp(dir=WORK)) / "out"
    return told(pinned(cores, films, "--out", str(out)))["inputs"] / (time.time() - started)


films = WORK / "films"
films.mkdir()
for number in range(IMAGES):
    (films / f"{number}.png").write_bytes(png(number))
ratios = {"run / estimate, a core": [], "run / estimate, two cores": []}
for _ in range(PAIRS):
    for what, cores in [("a core", "0"), ("two cores", "0,1")]:
        estimate = told(pinned(cores, films, "--estimate"))["precisions"][0]["images_per_second"]
        ratios[f"run / estimate, {what}"].append(rate(cores) / estimate)
for what, found in ratios.items():
    print(f"{what}: {statistics.median(found):.2f} of {', '.join(f'{ratio:.2f}' for ratio in found)}")
