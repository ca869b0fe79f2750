"""What checkpoints, descriptions and adapters share: tiny random models, pictures, and the verdict on an answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from common import EQUAL, REFUSED, WARNED, WRONG, Answer, Row
from PIL import Image
from torch import nn

SIZE, PATCH, WIDTH, HEADS, CLASSES = 16, 8, 32, 4, 3
PICTURES = {"exact": (SIZE, SIZE), "square": (40, 40), "wide": (48, 30), "tall": (26, 44)}  # name: width, height
TOLERANCE = 2e-3


@dataclass
class Right:
    """What the library makes of an input: probabilities of each picture, or why it fails."""

    probabilities: list[list[float]] | None = None
    failure: str = ""
    remark: str = ""

    @classmethod
    def failed(cls, error: Exception) -> Right:
        return cls(failure=f"{type(error).__name__}: {short(str(error))}")

    def __str__(self) -> str:
        if self.probabilities is None:
            return f"fails ({self.failure})"
        first = "[" + ", ".join(f"{p:.3f}" for p in self.probabilities[0]) + "]"
        return f"{first} {self.remark}".strip()


def randomise(model: nn.Module, seed: int) -> nn.Module:
    """Values with which every part counts: no bias of zero, no gamma of one, attention far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            scales = p.ndim == 1 and name.endswith(("weight", "gamma", "lambda1"))
            p.copy_(noise / p[0].numel() ** 0.5 if p.ndim in (2, 4) and "pos" not in name else 0.3 * noise + scales)
    return model.eval()


def write_pictures(folder: Path) -> list[Path]:
    """Smooth colours, as many sizes as there are ways to resize and crop."""
    paths = []
    for seed, (name, (width, height)) in enumerate(PICTURES.items()):
        coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        paths.append(folder / f"{name}.png")
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(paths[-1])
    return paths


def softmax(logits: torch.Tensor) -> list[float]:
    return logits.detach().double().flatten().softmax(0).tolist()


def short(text: str, most: int = 160) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 1] + "…"


def is_equal(right: Right, answer: Answer) -> bool:
    found = [list(row["probabilities"].values()) for row in answer.rows]
    if answer.code != 0 or len(found) != len(right.probabilities):
        return False
    pairs = zip(right.probabilities, found, strict=True)
    return all(len(a) == len(b) and np.allclose(a, b, rtol=0, atol=TOLERANCE) for a, b in pairs)


def judge(
    kind: str, name: str, right: Right, answer: Answer, names: tuple[str, ...] = (), warns: tuple[str, ...] = ()
) -> Row:
    """Equal to `right`, with a warning that holds all of `warns`; or refused with a message that holds one of `names`.

    What the library itself fails on must be refused, without `names` in whatever words.
    """
    said = short(answer.err)
    if answer.code == 0:
        verdict = WRONG
        if right.probabilities is not None and is_equal(right, answer):
            verdict = WRONG if not all(word in answer.err for word in warns) else WARNED if warns else EQUAL
        if verdict == WRONG:
            found = "; ".join(
                "[" + ", ".join(f"{p:.3f}" for p in row["probabilities"].values()) + "]" for row in answer.rows
            )
            said = f"{short(found)} {said}"
        return Row(kind, name, str(right), verdict, "" if verdict == EQUAL else said)
    is_clear = "panicked" not in answer.err and any(line.startswith("melo: ") for line in answer.err.splitlines())
    named = any(word in answer.err for word in names) or (right.probabilities is None and not names)
    return Row(kind, name, str(right), REFUSED if is_clear and named else WRONG, said)
