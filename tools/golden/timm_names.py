"""Writes crates/vit/src/timm_names.tsv: what timm's named Vision Transformers are, of which shapes do not tell all; and how many parameters
the plain ones have, for a test.

Each model of `vision_transformer.py`, `deit.py`, `eva.py` and `beit.py` is built without memory (`meta`). A model whose blocks, attention or MLP are not the plain
ones has their classes in the last column, which is empty otherwise, and so has every other model of timm. Names that timm has given up and still builds stand among the others.
"""

from pathlib import Path

import timm
import torch
from timm.models._registry import _deprecated_models

OUT = Path(__file__).parents[2] / "crates/vit/src/timm_names.tsv"
PARAMETERS = Path(__file__).parents[2] / "crates/vit/tests/golden/timm_parameters.tsv"
ACTIVATIONS = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu", "SiLU": "silu"}
PLAIN = {"Block", "Attention", "EvaBlock", "EvaAttention", "Mlp", "GluMlp", "SwiGLU", "LayerNorm"}


def is_there(model, part: str) -> bool:
    return not isinstance(getattr(model, part, None), (torch.nn.Identity, type(None)))


def build(name: str):
    with torch.device("meta"):
        return timm.create_model(name)


def parameters(name: str) -> int:
    """Of the model without its classifiers."""
    model = build(_deprecated_models.get(name, name).partition(".")[0])
    own = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("head"))
    # Where keys have no bias beside queries and values, zeros stand for it.
    attention = [getattr(block, "attn", None) for block in model.blocks]
    return own + sum(attn.proj.in_features for attn in attention if has_bias(attn) and getattr(attn.qkv, "bias", None) is None)


def has_bias(attention) -> bool:
    """Of the queries, whatever it is called."""
    places = [getattr(attention, "qkv", None), getattr(attention, "q_proj", None)]
    biases = [getattr(layer, "bias", None) for layer in places] + [getattr(attention, "q_bias", None)]
    return any(bias is not None for bias in biases)


def rotary(model) -> list[str]:
    """Temperature, grid and pairs of rotary positions, where they are of a kind that is understood."""
    rope = getattr(model, "rope", None)
    if rope is None:
        return []
    grid = {"RotaryEmbeddingDinoV3": "centered"}.get(type(rope).__name__) or rope.ref_feat_shape[0]
    return [f"rope:{rope.temperature:g}:{grid}:{'halves' if rope.rotate_half else 'neighbours'}"]


def unlike(model) -> list[str]:
    """What of rotary and relative positions is not understood."""
    rope, found = getattr(model, "rope", None), []
    if rope is not None:
        if type(rope).__name__ not in ("RotaryEmbeddingDinoV3", "RotaryEmbeddingCat"):
            found.append(type(rope).__name__)
        elif rope.grid_indexing != "ij":
            found.append("rotary positions with the column first")
        elif type(rope).__name__ == "RotaryEmbeddingCat" and rope.ref_feat_shape is None:
            found.append("rotary positions without the side of their grid")
    if getattr(model, "rel_pos_bias", None) is not None:
        found.append("shared relative positions")
    if getattr(getattr(model.blocks[0], "attn", None), "gate", None) is not None:
        found.append("gated attention")
    return found


def row(name: str) -> str:
    model = build(name)
    block = model.blocks[0]
    attention, mlp, norm = (getattr(block, part, None) for part in ("attn", "mlp", "norm1"))
    layers = [block, *(part for part in (attention, mlp, norm) if part is not None)]
    special = sorted({type(layer).__name__ for layer in layers} - PLAIN)
    if getattr(model, "pool_include_prefix", False):
        special.append("pool_include_prefix")
    special += unlike(model)
    if not (is_there(model, "norm") or is_there(model, "fc_norm")):
        special.append("no last norm")
    norms = [getattr(attention, part, None) for part in ("q_norm", "k_norm")]
    special += sorted({type(layer).__name__ for layer in norms} - PLAIN - {"Identity", "NoneType", *special})
    if getattr(model, "attn_pool", None) is not None and type(model.attn_pool).__name__ != "AttentionPoolLatent":
        special.append(type(model.attn_pool).__name__)
    if model.patch_embed.img_size[0] % model.patch_embed.patch_size[0]:
        special.append("an image side that is no multiple of the patch's")
    patch = getattr(model.patch_embed, "proj", None)
    parts = {
        "norm_pre": is_there(model, "norm_pre"),
        "fc_norm": is_there(model, "fc_norm"),
        "ls": hasattr(getattr(block, "ls1", None), "gamma") or getattr(block, "gamma_1", None) is not None,
        "no_embed_class": bool(getattr(model, "no_embed_class", False)),
        "distilled": getattr(model, "dist_token", None) is not None,
        "patch_bias": getattr(patch, "bias", None) is not None,
        "qkv_bias": has_bias(attention),
        "no_class_token": not getattr(model, "has_class_token", getattr(model, "cls_token", None) is not None),
        "qk_norm": is_there(attention, "q_norm"),
        "no_pos_embed": getattr(model, "pos_embed", None) is None,
        "relative": getattr(attention, "relative_position_bias_table", None) is not None,
        "attn_norm": is_there(attention, "norm"),
        "mlp_norm": is_there(mlp, "norm"),
    }
    size = model.patch_embed.img_size
    cfg = model.pretrained_cfg
    fields = [
        name,
        model.embed_dim,
        len(model.blocks),
        mlp.fc2.in_features if hasattr(mlp, "fc2") else 0,
        getattr(attention, "num_heads", 0),
        f"{norm.eps:g}" if norm is not None else 0,
        ACTIVATIONS[type(mlp.act).__name__] if hasattr(mlp, "act") else "",
        model.global_pool,
        getattr(model, "num_reg_tokens", 0) or (model.reg_token.shape[1] if getattr(model, "reg_token", None) is not None else 0),
        " ".join([*(name for name, there in parts.items() if there), *([] if special else rotary(model))]),
        *(f"{sides[0]}" for sides in (model.patch_embed.patch_size, size)),
        cfg["crop_pct"],
        cfg.get("crop_mode") or "center",
        cfg["interpolation"],
        *(" ".join(f"{x}" for x in cfg[name]) for name in ("mean", "std")),
        ", ".join(special),
    ]
    return "\t".join(map(str, fields))


if __name__ == "__main__":
    names = sorted(name for module in ("vision_transformer", "deit", "eva", "beit") for name in timm.list_models(module=module))
    head = f"# timm {timm.__version__}: name, width, depth, mlp_hidden, heads, eps, activation, pooling, registers, parts, patch, image side, crop_pct, crop_mode, interpolation, mean, std, what is not plain"
    rows = {name: row(name) for name in names}
    for old, new in _deprecated_models.items():
        model = new.partition(".")[0]
        if model in rows and old not in rows:
            rows[old] = rows[model].replace(model, old, 1)
    for name in timm.list_models():
        module = timm.model_entrypoint(name).__module__.rpartition(".")[2]
        rows.setdefault(name, "\t".join([name, *"00000", "", "", "0", "", *"000", *[""] * 4, f"a model of timm's {module}"]))
    OUT.write_text("\n".join([head, *(rows[name] for name in sorted(rows))]) + "\n")
    plain = [name for name in sorted(rows) if rows[name].endswith("\t")]
    lines = [f"{name}\t{parameters(name)}" for name in plain]
    PARAMETERS.write_text("\n".join([f"# timm {timm.__version__}: name, parameters without a classifier", *lines]) + "\n")
