"""Writes crates/vit/tests/golden/<case>.safetensors: tiny ViTs built by timm, and what PyTorch makes of them.

    pip install -r tools/golden/requirements.txt
    python tools/golden/vit.py             # writes every case
    python tools/golden/vit.py --verify    # holds the written files to formulas in f64, without timm

Deterministic on one machine; another processor may change last bits. README.md says what each file holds.

Letters: n images, t tokens, d width, r rank, c classes. Weights are [out, in].
"""

import argparse
import json
import math
import zlib
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from timm.layers import LayerNorm, resample_abs_pos_embed
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import nn

OUT = Path(__file__).parents[2] / "crates/vit/tests/golden"
STEPS = 10
BETAS, ADAM_EPS = (0.9, 0.999), 1e-8
GELUS = {"erf": "gelu", "tanh": "gelu_tanh", "quick": "quick_gelu"}  # ours: timm's


@dataclass(frozen=True)
class Case:
    name: str
    depth: int = 1
    d: int = 8
    heads: int = 2
    mlp_hidden: int = 20
    patch: int = 2
    image_size: int = 8  # the size that `pos_embed` is made for
    run_size: int = 8  # the size of `input`
    n: int = 5
    eps: float = 1e-6
    gelu: str = "erf"
    pool: str = "token"
    pre_norm: bool = False
    distilled: bool = False
    own_classes: int = 0
    rank: int = 2
    alpha: float = 3.0
    targets: tuple = ("q", "v")
    blocks: tuple = (0,)
    rslora: bool = False
    rank_pattern: dict = field(default_factory=dict)  # block: rank
    bottleneck: int = 0  # width
    bottleneck_blocks: tuple = ()
    task: str = "single"
    classes: int = 3
    label_smoothing: float = 0.0
    train_backbone: bool = False
    small_tokens: bool = True
    positions: str = ""  # of another kind: dinov3, eva02, beit
    lr: float = 0.01
    weight_decay: float = 0.05
    no_class_token: bool = False
    qk_norm: bool = False

    def metadata(self):
        keys = (
            "depth d heads mlp_hidden patch image_size eps gelu pool pre_norm distilled "
            "rank alpha targets blocks task label_smoothing lr weight_decay"
        )
        values = {"case": self.name} | {k: getattr(self, k) for k in keys.split()}
        # Settings that came later are said only where they are used: files without them stay as they are.
        later = "rslora rank_pattern bottleneck bottleneck_blocks no_class_token qk_norm positions"
        later = {k: getattr(self, k) for k in later.split()}
        return {"golden": json.dumps(values | {k: v for k, v in later.items() if v})}

    def rank_of(self, block):
        return self.rank_pattern.get(block, self.rank)

    def scale_of(self, block):
        return self.alpha / (math.sqrt(self.rank_of(block)) if self.rslora else self.rank_of(block))

    def embedding_std(self):
        """Small tokens make a wrong eps of the first LayerNorm show."""
        return 10 * math.sqrt(self.eps) if self.small_tokens else 1.0


CASES = [
    Case(
        "qv_token", depth=2, d=24, heads=3, mlp_hidden=48, patch=4, image_size=16, run_size=16, n=3,
        rank=4, alpha=6.0, blocks=(0, 1), label_smoothing=0.1,
    ),
    Case(
        "all_targets", depth=2, d=16, mlp_hidden=24,
        rank=3, alpha=2.0, targets=("q", "k", "v", "o", "fc1", "fc2"), blocks=(0, 1),
    ),
    Case(
        "avg_pool_multi", depth=2, eps=1e-12, pool="avg",
        alpha=5.0, targets=("v", "fc1"), blocks=(1,), task="multi", classes=4,
    ),
    Case("clip_like", eps=1e-5, gelu="quick", pre_norm=True, own_classes=7),
    Case("distilled", gelu="tanh", distilled=True, own_classes=7),
    Case("resized_pos", mlp_hidden=28, patch=4, image_size=16, run_size=24, n=1, small_tokens=False),
    Case(
        "rslora_pattern", depth=2,
        rank=2, alpha=3.0, targets=("q", "v", "fc2"), blocks=(0, 1), rslora=True, rank_pattern={1: 5},
    ),
    Case(
        "bottleneck", depth=2, gelu="quick",
        rank=0, alpha=0.0, targets=(), blocks=(), bottleneck=6, bottleneck_blocks=(0, 1), label_smoothing=0.1,
    ),
    Case(
        "map_pool", depth=2, gelu="tanh", pool="map", no_class_token=True,
        alpha=3.0, targets=("q", "v", "fc1"), blocks=(0, 1), label_smoothing=0.1, n=3, small_tokens=False,
    ),
    Case("qk_norm", depth=2, rank=3, alpha=2.0, targets=("q", "k", "v", "o"), blocks=(0, 1), qk_norm=True),
    Case(
        "dinov3", depth=2, d=16, eps=1e-5, pool="token", rank=3, alpha=2.0, targets=("q", "k", "v", "o"), blocks=(0, 1),
        run_size=10, n=3, small_tokens=False, positions="dinov3",
    ),
    Case(
        "eva02", d=16, pool="avg", alpha=5.0, targets=("q", "k", "v", "fc2"), n=3,
        small_tokens=False, positions="eva02",
    ),
    Case(
        "beit", depth=2, alpha=3.0, targets=("q", "k", "v", "fc1"), blocks=(0, 1), n=3,
        small_tokens=False, positions="beit",
    ),
    Case(
        "full", d=16, mlp_hidden=24, own_classes=3,
        rank=0, alpha=0.0, targets=(), blocks=(), label_smoothing=0.1, train_backbone=True, small_tokens=False,
    ),
]  # fmt: skip


class LowRankLinear(nn.Module):
    """`y = W x + b + scale · B (A x)`, each update added to its own rows of `y`."""

    def __init__(self, linear, scale):
        super().__init__()
        self.linear = linear
        self.scale = scale
        self.updates = []  # (first row, lora_a [r, in], lora_b [rows, r])

    def forward(self, x):
        y = self.linear(x)
        for first, a, b in self.updates:
            y = y + self.scale * F.pad(x @ a.T @ b.T, (first, y.shape[-1] - first - len(b)))
        return y


class BottleneckMlp(nn.Module):
    """`f + Up gelu(Down f + c) + e` with `f` what the MLP gives: the block adds it to the residual stream."""

    def __init__(self, mlp, down, up):
        super().__init__()
        self.mlp = mlp
        self.down, self.up = down, up  # (weight, bias) each

    def forward(self, x):
        f = self.mlp(x)
        return f + F.linear(F.gelu(F.linear(f, *self.down)), *self.up)


# Target of an update: the linear layer of the block, and the first of the update's rows in units of its width.
PLACES = {
    "q": ("attn.qkv", 0),
    "k": ("attn.qkv", 1),
    "v": ("attn.qkv", 2),
    "o": ("attn.proj", 0),
    "fc1": ("mlp.fc1", 0),
    "fc2": ("mlp.fc2", 0),
}


def build_with_positions(case, image_size):
    """A model whose positions are of another kind. Biases are added by themselves, so that low-rank layers are asked for the rest."""
    make = dict(
        img_size=image_size, patch_size=case.patch, num_classes=0, global_pool=case.pool, embed_dim=case.d, depth=case.depth,
        num_heads=case.heads, mlp_ratio=case.mlp_hidden / case.d, norm_layer=partial(LayerNorm, eps=case.eps),
    )  # fmt: skip
    if case.positions == "beit":
        model = Beit(**make, use_abs_pos_emb=False, use_rel_pos_bias=True, init_values=0.1)
    elif case.positions == "dinov3":
        model = Eva(
            **make, init_values=0.1, rope_type="dinov3", rope_temperature=100, rope_rotate_half=True, use_rot_pos_emb=True,
            use_abs_pos_emb=False, num_reg_tokens=2, use_fc_norm=False,
        )  # fmt: skip
    else:
        model = Eva(**make, swiglu_mlp=True, scale_mlp=True, scale_attn_inner=True, use_rot_pos_emb=True, ref_feat_shape=(3, 3))
    for block in model.blocks:
        block.attn.qkv_bias_separate = True
    return model.eval()


def fused(parameters):
    """Parameters of `Eva` and `Beit` under the names of `VisionTransformer`, whose matrices hold all shares; keys' biases are zeros."""
    out = dict(parameters)
    for name, q in parameters.items():
        stem, _, part = name.rpartition(".")
        if part == "q_bias":
            del out[name], out[f"{stem}.v_bias"]
            out[f"{stem}.qkv.bias"] = torch.cat([q, torch.zeros_like(q), parameters[f"{stem}.v_bias"]])
        elif part in ("gamma_1", "gamma_2"):
            out[f"{stem}.ls{part[-1]}.gamma"] = out.pop(name)
        elif ".mlp.fc1_g." in name:
            up = name.replace("fc1_g", "fc1_x")
            out[name.replace("fc1_g", "fc1")] = torch.cat([out.pop(name), out.pop(up)])
    return out


def build(case, image_size):
    if case.positions:
        return build_with_positions(case, image_size)
    make = VisionTransformerDistilled if case.distilled else VisionTransformer
    later = {"class_token": False} if case.no_class_token else {}
    later |= {"qk_norm": True} if case.qk_norm else {}
    model = make(
        **later,
        img_size=image_size,
        patch_size=case.patch,
        num_classes=case.own_classes,
        global_pool=case.pool,
        embed_dim=case.d,
        depth=case.depth,
        num_heads=case.heads,
        mlp_ratio=case.mlp_hidden / case.d,
        pre_norm=case.pre_norm,
        norm_layer=partial(LayerNorm, eps=case.eps),
        act_layer=GELUS[case.gelu],
    )
    return model.eval()


class Draw:
    """Seeded random tensors."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape):
        return torch.randn(shape, generator=self.generator)

    def truncated(self, *shape, std):
        return nn.init.trunc_normal_(torch.empty(shape), std=std, a=-2 * std, b=2 * std, generator=self.generator)

    def matrix(self, out, width, scale=1.0):
        return self.truncated(out, width, std=scale / math.sqrt(width))

    def parameter(self, name, p, embedding_std):
        """Unlike an initialisation: no zero bias, no gamma of one, attention far from uniform."""
        if name == "patch_embed.proj.weight":
            return self.truncated(*p.shape, std=embedding_std / math.sqrt(p[0].numel()))
        if name in ("cls_token", "dist_token", "reg_token", "pos_embed", "patch_embed.proj.bias"):
            return self.truncated(*p.shape, std=embedding_std)
        if "relative_position" in name:
            return self.truncated(*p.shape, std=0.5)
        if p.ndim == 2:
            return self.matrix(*p.shape, scale=2.0 if "fc1" in name or "head" in name else 1.0)
        values = self.truncated(*p.shape, std=0.2)
        return 1 + values if "norm" in name and name.endswith("weight") or "gamma" in name else values


def draw_plugin(case, model, draw):
    plugin = {}
    for block in case.blocks:
        for target in case.targets:
            layer, _ = PLACES[target]
            linear = model.blocks[block].get_submodule(layer)
            out = case.d if layer == "attn.qkv" else linear.out_features
            plugin[f"plugin.blocks.{block}.{target}.lora_a"] = draw.matrix(case.rank_of(block), linear.in_features)
            plugin[f"plugin.blocks.{block}.{target}.lora_b"] = draw.matrix(out, case.rank_of(block), scale=0.5)
    for block in case.bottleneck_blocks:
        name = f"plugin.blocks.{block}.adapter"
        plugin[f"{name}.down.weight"] = draw.matrix(case.bottleneck, case.d, scale=2.0)
        plugin[f"{name}.down.bias"] = draw.truncated(case.bottleneck, std=0.2)
        plugin[f"{name}.up.weight"] = draw.matrix(case.d, case.bottleneck)
        plugin[f"{name}.up.bias"] = draw.truncated(case.d, std=0.2)
    if case.train_backbone:
        plugin["plugin.head.weight"] = model.head.weight.detach().clone()
        plugin["plugin.head.bias"] = model.head.bias.detach().clone()
    else:
        plugin["plugin.head.weight"] = draw.matrix(case.classes, case.d * (1 + case.distilled), scale=2.0)
        plugin["plugin.head.bias"] = draw.truncated(case.classes, std=0.2)
    return plugin


def attach(case, model, plugin):
    for block in case.blocks:
        for target in case.targets:
            layer, part = PLACES[target]
            linear = model.blocks[block].get_submodule(layer)
            if not isinstance(linear, LowRankLinear):
                linear = LowRankLinear(linear, case.scale_of(block))
                model.blocks[block].set_submodule(layer, linear)
            a, b = (plugin[f"plugin.blocks.{block}.{target}.{side}"] for side in ("lora_a", "lora_b"))
            linear.updates.append((part * case.d, a, b))
    for block in case.bottleneck_blocks:
        name = f"plugin.blocks.{block}.adapter"
        down, up = ((plugin[f"{name}.{layer}.weight"], plugin[f"{name}.{layer}.bias"]) for layer in ("down", "up"))
        model.blocks[block].mlp = BottleneckMlp(model.blocks[block].mlp, down, up)


def draw_labels(case, draw):
    if case.task == "multi":
        return (draw.normal(case.n, case.classes) > 0).float()
    return torch.arange(case.n) % case.classes


def loss_of(case, logits, labels):
    if case.task == "multi":
        return F.binary_cross_entropy_with_logits(logits, labels)
    return F.cross_entropy(logits, labels, label_smoothing=case.label_smoothing)


def generate(case):
    draw = Draw(zlib.crc32(case.name.encode()))
    trained = build(case, case.image_size)
    for name, p in trained.named_parameters():
        p.data = draw.parameter(name, p, case.embedding_std())
    # As timm loads a checkpoint into a model of another image size.
    model = build(case, case.run_size)
    model.load_state_dict(trained.state_dict() if case.positions else checkpoint_filter_fn(trained.state_dict(), model))

    x = draw.normal(case.n, 3, case.run_size, case.run_size)
    plugin = draw_plugin(case, model, draw)
    labels = draw_labels(case, draw)
    tensors = {f"backbone.{name}": p.detach() for name, p in fused(dict(trained.named_parameters())).items()}
    tensors |= {"input": x, "labels": labels}
    # The optimizer works in place.
    tensors |= {name: p.clone() for name, p in plugin.items()}
    with torch.no_grad():
        if case.own_classes:
            tensors["own_logits"] = model(x)
        if not case.distilled:
            tensors["features"] = model.forward_head(model.forward_features(x), pre_logits=True)
        if case.run_size != case.image_size and not case.positions:
            down = case.image_size // 2 // case.patch
            tensors["pos_embed_resized"] = model.pos_embed.detach().clone()
            tensors["pos_embed_down"] = resample_abs_pos_embed(trained.pos_embed, [down, down])

    model.requires_grad_(False)
    parameters = dict(plugin)
    if case.train_backbone:
        own = {f"backbone.{name}": p for name, p in model.named_parameters() if not name.startswith("head.")}
        parameters |= own
    for p in parameters.values():
        p.requires_grad_(True)
    attach(case, model, plugin)

    def forward():
        tokens = model.forward_features(x)
        feature = tokens[:, :2].flatten(1) if case.distilled else model.forward_head(tokens, pre_logits=True)
        return F.linear(feature, plugin["plugin.head.weight"], plugin["plugin.head.bias"])

    optimizer = torch.optim.AdamW(
        parameters.values(), lr=case.lr, betas=BETAS, eps=ADAM_EPS, weight_decay=case.weight_decay
    )
    losses = []
    for step in range(STEPS):
        logits = forward()
        loss = loss_of(case, logits, labels)
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            tensors |= {"logits": logits.detach(), "loss": loss.detach().reshape(1)}
            tensors |= {f"grad.{name}": p.grad.clone() for name, p in parameters.items()}
        losses.append(loss.item())
        optimizer.step()
    tensors["losses"] = torch.tensor(losses)
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


# The other way round, for `--verify`: formulas in f64 on the tensors of a file, updates merged into the weights.


def layernorm(p, name, x, eps):
    centred = x - x.mean(-1, keepdim=True)
    return p[f"{name}.weight"] * centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt() + p[f"{name}.bias"]


def gelu(kind, x):
    if kind == "erf":
        return x * (1 + torch.erf(x / math.sqrt(2))) / 2
    if kind == "tanh":
        return x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2
    return x / (1 + torch.exp(-1.702 * x))


def keys_cubic(x, a=-0.5):
    """Keys' kernel; a = -0.5 is what Pillow and PyTorch's antialiased filter use, -0.75 is PyTorch's plain bicubic."""
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def resize_matrix(old, new):
    """[new, old]: antialiased bicubic interpolation along one axis."""
    scale = old / new
    stretch = max(scale, 1.0)
    weights = [[keys_cubic((j + 0.5 - scale * (i + 0.5)) / stretch) for j in range(old)] for i in range(new)]
    weights = torch.tensor(weights, dtype=torch.float64)
    return weights / weights.sum(1, keepdim=True)


def resize_positions(pos_embed, prefix, new):
    """pos_embed: [1, prefix + old², d] to [1, prefix + new², d]."""
    old = math.isqrt(pos_embed.shape[1] - prefix)
    grid = pos_embed[0, prefix:].reshape(old, old, -1)
    m = resize_matrix(old, new)
    grid = torch.einsum("yi,xj,ijd->yxd", m, m, grid)
    return torch.cat([pos_embed[:, :prefix], grid.reshape(1, new * new, -1)], dim=1)


def merged(p, golden):
    """The backbone's parameters with `(alpha / r) · B A` added to their weights, and the bottlenecks beside them."""
    backbone = {name.removeprefix("backbone."): w for name, w in p.items() if name.startswith("backbone.")}
    backbone |= {name.removeprefix("plugin."): w for name, w in p.items() if ".adapter." in name}
    for block in golden["blocks"]:
        rank = golden.get("rank_pattern", {}).get(str(block), golden["rank"])
        scale = golden["alpha"] / (rank**0.5 if golden.get("rslora") else rank)
        for target in golden["targets"]:
            layer, part = PLACES[target]
            a, b = (p[f"plugin.blocks.{block}.{target}.{side}"] for side in ("lora_a", "lora_b"))
            name = f"blocks.{block}.{layer}.weight"
            rows = torch.zeros(len(backbone[name]), len(b), dtype=b.dtype)
            rows[part * golden["d"] :][: len(b)] = torch.eye(len(b))
            backbone[name] = backbone[name] + scale * rows @ b @ a
    return backbone


def turned(golden, x, side):
    """Heads [n, side², width] as complex numbers, turned by where patches stand."""
    width = x.shape[-1]
    centered = golden["positions"] == "dinov3"
    place = torch.arange(side, dtype=x.dtype)
    place = 2 * math.pi * (2 * (place + 0.5) / side - 1) if centered else place * 3 / side
    slowness = (100.0 if centered else 10000.0) ** (torch.arange(width // 4, dtype=x.dtype) * 4 / width)
    rows, columns = torch.meshgrid(place, place, indexing="ij")
    angles = torch.cat([at.reshape(-1, 1) / slowness for at in (rows, columns)], dim=1)
    pairs = (x[..., : width // 2], x[..., width // 2 :]) if centered else (x[..., 0::2], x[..., 1::2])
    z = torch.complex(*(part.contiguous() for part in pairs)) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([z.real, z.imag], -1) if centered else torch.stack([z.real, z.imag], -1).flatten(-2)


def relative_bias(table, side):
    """[h, t, t] of a table [distances, h]: by the differences of rows and columns, then the class token's three."""
    at = [(i // side, i % side) for i in range(side**2)]
    far = 2 * side - 1
    bias = torch.empty(table.shape[1], len(at) + 1, len(at) + 1, dtype=table.dtype)
    bias[:, 0, :], bias[:, :, 0], bias[:, 0, 0] = table[-3][:, None], table[-2][:, None], table[-1]
    for i, (y, x) in enumerate(at):
        for j, (v, u) in enumerate(at):
            bias[:, 1 + i, 1 + j] = table[(y - v + side - 1) * far + x - u + side - 1]
    return bias


def tokens_of(p, golden, x):
    """x [n, 3, s, s] to the normalised tokens [n, t, d], or to the pooled feature [n, d]; p has names of timm."""
    n, d, patch, eps, heads = len(x), golden["d"], golden["patch"], golden["eps"], golden["heads"]
    side = x.shape[-1] // patch
    patches = x.reshape(n, 3, side, patch, side, patch).permute(0, 2, 4, 1, 3, 5).reshape(n, side**2, -1)
    z = patches @ p["patch_embed.proj.weight"].reshape(d, -1).T + p.get("patch_embed.proj.bias", 0)
    prefix = [p[name] for name in ("cls_token", "dist_token", "reg_token") if name in p]
    z = torch.cat([token.expand(n, -1, d) for token in prefix] + [z], dim=1)
    front = sum(token.shape[1] for token in prefix)
    if "pos_embed" in p:
        z = z + resize_positions(p["pos_embed"], front, side)
    if golden["pre_norm"]:
        z = layernorm(p, "norm_pre", z, eps)
    for i in range(golden["depth"]):
        b = {name.removeprefix(f"blocks.{i}."): w for name, w in p.items() if name.startswith(f"blocks.{i}.")}
        qkv = layernorm(b, "norm1", z, eps) @ b["attn.qkv.weight"].T + b["attn.qkv.bias"]
        out = []
        for head in range(heads):
            width = d // heads
            q, k, v = (qkv[..., part * d + head * width :][..., :width] for part in range(3))
            if golden.get("qk_norm"):
                q, k = layernorm(b, "attn.q_norm", q, eps), layernorm(b, "attn.k_norm", k, eps)
            if golden.get("positions") in ("dinov3", "eva02"):
                q, k = (torch.cat([y[:, :front], turned(golden, y[:, front:], side)], dim=1) for y in (q, k))
            scores = q @ k.mT / math.sqrt(width)
            if "attn.relative_position_bias_table" in b:
                scores = scores + relative_bias(b["attn.relative_position_bias_table"], side)[head]
            out.append(torch.softmax(scores, dim=-1) @ v)
        mixed = torch.cat(out, dim=-1)
        if "attn.norm.weight" in b:
            mixed = layernorm(b, "attn.norm", mixed, eps)
        z = z + b.get("ls1.gamma", 1) * (mixed @ b["attn.proj.weight"].T + b["attn.proj.bias"])
        hidden = layernorm(b, "norm2", z, eps) @ b["mlp.fc1.weight"].T + b["mlp.fc1.bias"]
        if "mlp.norm.weight" in b:
            gate, up = hidden.chunk(2, dim=-1)
            hidden = layernorm(b, "mlp.norm", gate * torch.sigmoid(gate) * up, eps)
        else:
            hidden = gelu(golden["gelu"], hidden)
        f = hidden @ b["mlp.fc2.weight"].T + b["mlp.fc2.bias"]
        z = z + b.get("ls2.gamma", 1) * f
        if "adapter.down.weight" in b:
            narrow = gelu("erf", f @ b["adapter.down.weight"].T + b["adapter.down.bias"])
            z = z + narrow @ b["adapter.up.weight"].T + b["adapter.up.bias"]
    if golden["pool"] == "avg":
        return layernorm(p, "fc_norm", z[:, front:].mean(1), eps)
    if golden["pool"] == "map":
        return pooled_by_attention(p, golden, layernorm(p, "norm", z, eps)[:, front:])
    return layernorm(p, "norm", z, eps)


def pooled_by_attention(p, golden, x):
    """x [n, p, d] to [n, d]: one query reads the patches of every head, then an MLP beside a residual branch."""
    d, width = golden["d"], golden["d"] // golden["heads"]
    query = p["attn_pool.latent"][0, 0] @ p["attn_pool.q.weight"].T + p["attn_pool.q.bias"]
    kv = x @ p["attn_pool.kv.weight"].T + p["attn_pool.kv.bias"]
    read = []
    for first in range(0, d, width):
        scores = kv[..., first : first + width] @ query[first : first + width] / math.sqrt(width)
        read.append((torch.softmax(scores, -1)[..., None] * kv[..., d + first : d + first + width]).sum(1))
    y = torch.cat(read, -1) @ p["attn_pool.proj.weight"].T + p["attn_pool.proj.bias"]
    hidden = layernorm(p, "attn_pool.norm", y, golden["eps"]) @ p["attn_pool.mlp.fc1.weight"].T + p["attn_pool.mlp.fc1.bias"]
    return y + gelu(golden["gelu"], hidden) @ p["attn_pool.mlp.fc2.weight"].T + p["attn_pool.mlp.fc2.bias"]


def feature_of(p, golden, x):
    tokens = tokens_of(p, golden, x)
    if golden["pool"] in ("avg", "map"):
        return tokens
    return torch.cat([tokens[:, 0], tokens[:, 1]], dim=1) if golden["distilled"] else tokens[:, 0]


def logits_of(p, golden, x):
    return feature_of(merged(p, golden), golden, x) @ p["plugin.head.weight"].T + p["plugin.head.bias"]


def own_logits_of(p, golden, x):
    feature, d = feature_of({k.removeprefix("backbone."): v for k, v in p.items()}, golden, x), golden["d"]
    own = feature[:, :d] @ p["backbone.head.weight"].T + p["backbone.head.bias"]
    if not golden["distilled"]:
        return own
    return (own + feature[:, d:] @ p["backbone.head_dist.weight"].T + p["backbone.head_dist.bias"]) / 2


def loss_by_formula(golden, logits, labels):
    if golden["task"] == "multi":
        return (torch.log1p(torch.exp(logits)) - labels * logits).mean()
    smoothing, c = golden["label_smoothing"], logits.shape[1]
    wanted = (1 - smoothing) * torch.eye(c, dtype=logits.dtype)[labels] + smoothing / c
    return -(wanted * (logits - torch.logsumexp(logits, 1, keepdim=True))).sum(1).mean()


def losses_by_formula(p, golden, x, labels, trained):
    """Loss before each step of AdamW, and the gradients before the first."""
    p, losses, first = dict(p), [], None
    moments = {name: (0.0, 0.0) for name in trained}
    for step in range(1, STEPS + 1):
        leaves = {name: p[name].detach().requires_grad_(True) for name in trained}
        loss = loss_by_formula(golden, logits_of(p | leaves, golden, x), labels)
        grads = dict(zip(trained, torch.autograd.grad(loss, list(leaves.values()))))
        first = first or grads
        losses.append(loss.item())
        for name, g in grads.items():
            m, v = moments[name]
            m, v = BETAS[0] * m + (1 - BETAS[0]) * g, BETAS[1] * v + (1 - BETAS[1]) * g**2
            moments[name] = m, v
            update = m / (1 - BETAS[0] ** step) / ((v / (1 - BETAS[1] ** step)).sqrt() + ADAM_EPS)
            p[name] = p[name] - golden["lr"] * (golden["weight_decay"] * p[name] + update)
    return torch.tensor(losses, dtype=torch.float64), first


def verify(case):
    path = OUT / f"{case.name}.safetensors"
    with safe_open(path, "pt") as file:
        assert file.metadata() == case.metadata(), path.name
        golden = json.loads(file.metadata()["golden"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    p = {name: t.double() if t.is_floating_point() else t for name, t in tensors.items()}
    x, labels = p["input"], p["labels"]
    worst = {}

    def close(name, found, tolerance):
        assert found.shape == p[name].shape, (name, found.shape, p[name].shape)
        error = (found - p[name]).abs().max().item()
        what = name.split(".")[0]
        worst[what] = max(worst.get(what, 0.0), error / tolerance)
        assert error <= tolerance, f"{path.name}: `{name}` is off by {error:.2e}, allowed {tolerance:.2e}"

    bare = {name.removeprefix("backbone."): w for name, w in p.items()}
    logits = logits_of(p, golden, x)
    close("logits", logits, 1e-5)
    if not case.distilled:
        close("features", feature_of(bare, golden, x), 1e-5)
    if case.own_classes:
        close("own_logits", own_logits_of(p, golden, x), 1e-5)
    if case.run_size != case.image_size and not case.positions:
        close("pos_embed_resized", resize_positions(bare["pos_embed"], 1, case.run_size // case.patch), 1e-5)
        close("pos_embed_down", resize_positions(bare["pos_embed"], 1, case.image_size // 2 // case.patch), 1e-5)
    trained = [name.removeprefix("grad.") for name in p if name.startswith("grad.")]
    losses, grads = losses_by_formula(p, golden, x, labels, trained)
    close("loss", losses[:1], 1e-6)
    close("losses", losses, 1e-5)
    for name, g in grads.items():
        close(f"grad.{name}", g, 1e-4 * g.abs().max().item())

    # A check that cannot fail is none: a wrong constant must move the logits by twice the tests' tolerance of 1e-4.
    # Of positions of other kinds, what tells their GELU from its approximation is the families' to say.
    kinds = {"eva02": (), "beit": ("quick",), "dinov3": ("quick",)}.get(case.positions, GELUS)
    wrong = [{"gelu": kind} for kind in kinds if kind != case.gelu]
    if case.positions in ("dinov3", "eva02"):
        wrong.append({"positions": "dinov3" if case.positions == "eva02" else "none"})
    if case.small_tokens:
        wrong += [{"eps": eps} for eps in (1e-12, 1e-6, 1e-5) if eps != case.eps]
    if case.rank:
        wrong.append({"alpha": case.alpha // case.rank * case.rank})
    if case.rslora:
        wrong.append({"rslora": False})
    for change in wrong:
        off = (logits_of(p, golden | change, x) - logits).abs().max().item()
        assert off > 2e-4, f"{path.name}: {change} moves logits by {off:.1e} only"
    shares = ", ".join(f"{what} {share:.0e}" for what, share in worst.items())
    print(f"{path.name}: {path.stat().st_size} bytes; error / tolerance: {shares}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--verify", action="store_true", help="check the written files instead of writing them")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    if not args.verify:
        for case in CASES:
            save_file(generate(case), OUT / f"{case.name}.safetensors", metadata=case.metadata())
    for case in CASES:
        verify(case)


if __name__ == "__main__":
    main()
