"""Writes crates/vit/tests/golden/volume.json: volumes through tiny ViTs under a plug-in with an embedding of its own, and PyTorch's gradients.

    pip install -r tools/golden/requirements.txt
    python tools/golden/volume.py

Deterministic: running it again on the same machine changes nothing. The embedding is a `conv3d` of stride its kernel, with a position for
every layer; the positions of the backbone, resized as timm does, are those of each layer; blocks, class token and norms are timm's, written
out. All in f64, the loss is the mean cross-entropy under a linear head.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F

OUT = Path(__file__).parents[2] / "crates/vit/tests/golden/volume.json"
DEPTH, D, HEADS, HIDDEN, P, IMAGE, EPS = 2, 8, 2, 12, 2, 8, 1e-6
N, SIZE, VOXELS, K, CLASSES, RANK, ALPHA = 3, 4, 6, 3, 3, 2, 3.0
LABELS = [2, 0, 1]
TARGETS, BLOCKS = {"q": 0, "v": 2}, [1]


def shapes(pre_norm):
    named = {"cls_token": [1, 1, D], "pos_embed": [1, 1 + (IMAGE // P) ** 2, D]}
    named |= {"patch_embed.proj.weight": [D, 3, P, P], "patch_embed.proj.bias": [D]}
    for norm in ["norm_pre"] * pre_norm + ["norm"]:
        named |= {f"{norm}.weight": [D], f"{norm}.bias": [D]}
    for i in range(DEPTH):
        b = f"blocks.{i}"
        named |= {f"{b}.norm1.weight": [D], f"{b}.norm1.bias": [D], f"{b}.norm2.weight": [D], f"{b}.norm2.bias": [D]}
        named |= {f"{b}.attn.qkv.weight": [3 * D, D], f"{b}.attn.qkv.bias": [3 * D]}
        named |= {f"{b}.attn.proj.weight": [D, D], f"{b}.attn.proj.bias": [D]}
        named |= {f"{b}.mlp.fc1.weight": [HIDDEN, D], f"{b}.mlp.fc1.bias": [HIDDEN]}
        named |= {f"{b}.mlp.fc2.weight": [D, HIDDEN], f"{b}.mlp.fc2.bias": [D]}
    return named


def trained_shapes():
    named = {f"blocks.{i}.{t}.lora_{m}": s for i in BLOCKS for t in TARGETS for m, s in (("a", [RANK, D]), ("b", [D, RANK]))}
    named |= {"head.weight": [CLASSES, D], "head.bias": [CLASSES]}
    return named | {
        "volume_embed.proj.weight": [D, 1, K, P, P],
        "volume_embed.proj.bias": [D],
        "volume_embed.depth_pos": [VOXELS // K, D],
    }


def forward(voxels, w, t, pre_norm):
    norm = lambda x, name: F.layer_norm(x, (D,), w[f"{name}.weight"], w[f"{name}.bias"], EPS)
    grid = SIZE // P
    patches = F.conv3d(voxels[:, None], t["volume_embed.proj.weight"], t["volume_embed.proj.bias"], stride=(K, P, P))
    patches = patches.permute(0, 2, 3, 4, 1).reshape(len(voxels), VOXELS // K, grid * grid, D)
    table = w["pos_embed"][:, 1:].reshape(1, IMAGE // P, IMAGE // P, D).permute(0, 3, 1, 2).float()
    table = F.interpolate(table, size=(grid, grid), mode="bicubic", antialias=True).double()
    patches = patches + t["volume_embed.depth_pos"][None, :, None] + table.permute(0, 2, 3, 1).reshape(1, 1, grid * grid, D)
    cls = (w["cls_token"] + w["pos_embed"][:, :1]).expand(len(voxels), 1, D)
    x = torch.cat([cls, patches.flatten(1, 2)], 1)
    if pre_norm:
        x = norm(x, "norm_pre")
    for i in range(DEPTH):
        b, y = f"blocks.{i}", norm(x, f"blocks.{i}.norm1")
        qkv = list((y @ w[f"{b}.attn.qkv.weight"].T + w[f"{b}.attn.qkv.bias"]).chunk(3, -1))
        for target, part in TARGETS.items() if i in BLOCKS else ():
            a, up = t[f"{b}.{target}.lora_a"], t[f"{b}.{target}.lora_b"]
            qkv[part] = qkv[part] + ALPHA / RANK * (y @ a.T @ up.T)
        q, k, v = (z.reshape(len(x), -1, HEADS, D // HEADS).transpose(1, 2) for z in qkv)
        o = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + o @ w[f"{b}.attn.proj.weight"].T + w[f"{b}.attn.proj.bias"]
        y = F.gelu(norm(x, f"{b}.norm2") @ w[f"{b}.mlp.fc1.weight"].T + w[f"{b}.mlp.fc1.bias"])
        x = x + y @ w[f"{b}.mlp.fc2.weight"].T + w[f"{b}.mlp.fc2.bias"]
    return norm(x[:, :1], "norm")[:, 0] @ t["head.weight"].T + t["head.bias"]


def case(pre_norm, generator):
    def draw(name, shape):
        values = 0.5 * torch.randn(*shape, generator=generator)
        return (1 + values if "norm" in name and name.endswith("weight") else values).double()

    weights = {name: draw(name, shape) for name, shape in shapes(pre_norm).items()}
    trained = {name: draw(name, shape).requires_grad_() for name, shape in trained_shapes().items()}
    voxels = torch.randn(N, VOXELS, SIZE, SIZE, generator=generator).double()
    logits = forward(voxels, weights, trained, pre_norm)
    loss = F.cross_entropy(logits, torch.tensor(LABELS))
    loss.backward()
    flat = lambda tensor: [float(f"{x:.9g}") for x in tensor.detach().flatten().tolist()]
    return {
        "pre_norm": pre_norm,
        "weights": {name: flat(tensor) for name, tensor in weights.items()},
        "trained": {name: flat(tensor) for name, tensor in trained.items()},
        "voxels": flat(voxels),
        "labels": LABELS,
        "logits": flat(logits),
        "loss": float(loss),
        "gradients": {name: flat(tensor.grad) for name, tensor in trained.items()},
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(20261129)
    OUT.write_text(json.dumps([case(pre_norm, generator) for pre_norm in (False, True)]) + "\n")
