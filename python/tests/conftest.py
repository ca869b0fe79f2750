"""A folder of generated images, a manifest and plug-ins, as the examples expect it."""

from __future__ import annotations

import csv
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import melo_vit as melo
from melo_vit import _melo

ASSETS = Path(__file__).parents[2] / "assets"
CLASSES = ("empty", "spot")
IMAGES = {"train": 16, "val": 12, "test": 12}


def drawn(number: int, side: int = 64) -> NDArray[np.uint8]:
    """Noise, with a bright spot in every other image."""
    rng = np.random.default_rng(number)
    image = rng.integers(40, 90, (side, side, 3), dtype=np.uint8)
    if number % 2:
        y, x = rng.integers(8, side - 24, 2)
        image[y : y + 16, x : x + 16] = rng.integers(200, 256, (16, 16, 3), dtype=np.uint8)
    return image


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    os.environ["MELO_PACKED_CACHE"] = str(tmp_path_factory.mktemp("packed"))
    folder = tmp_path_factory.mktemp("data")
    shutil.copy(ASSETS / "vit_small_formula.safetensors", folder / "vit.safetensors")
    for name in ("chest_film", "mammogram", "fundus"):
        shutil.copy(ASSETS / "phantoms" / f"{name}.safetensors", folder / f"{name}.safetensors")
    with open(folder / "spots.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "split", "label", "patient_id"])
        number = 0
        for split, images in IMAGES.items():
            for _ in range(images):
                (folder / f"{number}.png").write_bytes(_melo.encode_png(drawn(number)))
                table.writerow([f"{number}.png", split, CLASSES[number % 2], f"p{number // 2}"])
                number += 1
    (folder / "film.png").write_bytes(_melo.encode_png(drawn(1, 96)))
    return folder


@pytest.fixture(scope="session")
def backbone(folder: Path) -> melo.Backbone:
    return melo.Backbone.load(folder / "vit.safetensors")


@pytest.fixture(scope="session")
def plugin(folder: Path, backbone: melo.Backbone) -> melo.Plugin:
    return melo.train(backbone, folder / "spots.csv", task="spots", epochs=2, progress=False)


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(folder)
    yield folder
