"""Pixels of melo, by the example `render` beside the binary, and how they are compared."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from common import EQUAL, REFUSED, WARNED, WRONG, Melo, Row


class Case:
    """One file, and what the other tool makes of it: pixels `[h, w, 3]`, or None where it may only be refused or asked about."""

    def __init__(self, kind, path, expected, peer="Pillow", flags=(), name=None, within=0, warns=False):
        self.kind, self.path, self.peer, self.flags, self.within, self.warns = kind, path, peer, flags, within, warns
        self.expected = None if expected is None else rgb(expected)
        self.name = name or Path(str(path).split("#")[0]).name


def rgb(pixels) -> np.ndarray:
    pixels = np.asarray(pixels)
    return np.repeat(pixels[..., None], 3, 2) if pixels.ndim == 2 else pixels


def scaled(values, black, white) -> np.ndarray:
    """The straight line from black to white, rounded half away from zero."""
    level = 255.0 * (np.asarray(values, float) - black) / (white - black)
    return np.floor(np.clip(np.nan_to_num(level), 0, 255) + 0.5).astype(np.uint8)


def min_max(values) -> np.ndarray:
    values = np.asarray(values, float)
    return scaled(values, np.nanmin(values), np.nanmax(values))


def rows(cases: Iterable[Case], folder: Path, melo: Melo) -> Iterator[Row]:
    render = melo.binary.parent / "examples" / "render"
    if not render.exists():
        raise SystemExit(f"{render} is not there: cargo build --release -p melo-imaging --example render")
    out = folder / "rendered"
    out.mkdir(exist_ok=True)
    for case in cases:
        command = [render, *case.flags, out, case.path]
        run = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
        _, said, *notes = run.stdout.rstrip("\n").split("\t")
        if said != "ok":
            yield Row(case.kind, case.name, case.peer, WRONG if case.expected is not None else REFUSED, said)
            continue
        with Image.open(out / f"{Path(case.path).name}.png") as image:
            found = np.asarray(image.convert("RGB"))
        note = "; ".join(notes)
        if case.expected is None:
            yield Row(case.kind, case.name, case.peer, WRONG, "answered")
        elif found.shape != case.expected.shape:
            yield Row(case.kind, case.name, case.peer, WRONG, f"{found.shape[:2]}, expected {case.expected.shape[:2]}")
        elif (most := int(np.abs(found.astype(int) - case.expected).max())) > case.within:
            yield Row(case.kind, case.name, case.peer, WRONG, f"differs by up to {most}")
        elif case.warns and not note:
            yield Row(case.kind, case.name, case.peer, WRONG, "answered without a word")
        else:
            yield Row(case.kind, case.name, case.peer, WARNED if case.warns else EQUAL, note)
