"""Writes crates/vit/tests/golden/bag.json: bags pooled by gated attention, mean and maximum, and PyTorch's gradients.

    pip install -r tools/golden/requirements.txt
    python tools/golden/bag.py

Deterministic: running it again on the same machine changes nothing. The formulas are those at the head of
`crates/vit/src/bag/head.rs` (Ilse, Tomczak and Welling 2018, equations 7 and 9, with positions), the loss is the mean cross-entropy of
the bags under a linear head.
"""

import json
from pathlib import Path

import torch

OUT = Path(__file__).parents[2] / "crates/vit/tests/golden/bag.json"
D, HIDDEN, POSITIONS, CLASSES = 19, 6, 4, 3
LENGTHS = [1, 2, 7, 4]
LABELS = [2, 0, 1, 1]


def positions(n):
    u = torch.arange(n, dtype=torch.float64) / max(n - 1, 1)
    angles = torch.pi * torch.arange(1, POSITIONS // 2 + 1, dtype=torch.float64)[None] * u[:, None]
    return torch.stack([angles.sin(), angles.cos()], dim=2).reshape(n, POSITIONS)


def pool(kind, h, tensors):
    if kind == "mean":
        return h.mean(0), torch.full((len(h),), 1 / len(h), dtype=h.dtype)
    if kind == "max":
        values, who = h.max(0)
        return values, torch.bincount(who, minlength=len(h)).to(h.dtype) / D
    x = h + positions(len(h)).to(h.dtype) @ tensors["bag.positions.weight"].T
    gate = torch.tanh(x @ tensors["bag.v.weight"].T + tensors["bag.v.bias"])
    gate = gate * torch.sigmoid(x @ tensors["bag.u.weight"].T + tensors["bag.u.bias"])
    attention = torch.softmax((gate @ tensors["bag.score.weight"].T)[:, 0], 0)
    return attention @ h, attention


def case(kind, generator):
    draw = lambda *shape: torch.randn(*shape, generator=generator).double().requires_grad_()
    shapes = {
        "bag.v.weight": (HIDDEN, D),
        "bag.v.bias": (HIDDEN,),
        "bag.u.weight": (HIDDEN, D),
        "bag.u.bias": (HIDDEN,),
        "bag.score.weight": (1, HIDDEN),
        "bag.positions.weight": (D, POSITIONS),
    }
    tensors = {name: draw(*shape) for name, shape in shapes.items()} if kind == "gated_attention" else {}
    features = draw(sum(LENGTHS), D)
    trained = dict(tensors, **{"head.weight": draw(CLASSES, D), "head.bias": draw(CLASSES)})
    pooled, attention = zip(*(pool(kind, h, tensors) for h in features.split(LENGTHS)))
    logits = torch.stack(pooled) @ trained["head.weight"].T + trained["head.bias"]
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS))
    loss.backward()
    flat = lambda tensor: [float(f"{x:.9g}") for x in tensor.detach().flatten().tolist()]
    return {
        "pooling": kind,
        "hidden": HIDDEN if tensors else 0,
        "positions": POSITIONS if tensors else 0,
        "width": D,
        "lengths": LENGTHS,
        "labels": LABELS,
        "features": flat(features),
        "tensors": {name: flat(tensor) for name, tensor in trained.items()},
        "logits": flat(logits),
        "attention": [flat(of) for of in attention],
        "loss": float(loss),
        "d_features": flat(features.grad),
        "gradients": {name: flat(tensor.grad) for name, tensor in trained.items()},
    }


if __name__ == "__main__":
    generator = torch.Generator().manual_seed(20261129)
    cases = [case(kind, generator) for kind in ("gated_attention", "mean", "max")]
    OUT.write_text(json.dumps(cases) + "\n")
