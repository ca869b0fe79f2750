"""Files of weights as training frameworks leave them: what they are wrapped in, what lies beside, what is not said."""

from __future__ import annotations

import argparse
import collections
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import timm
import torch
from common import Melo, Row
from PIL import Image
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config
from timm.models import load_checkpoint
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from tiny import CLASSES, HEADS, PATCH, SIZE, WIDTH, Right, judge, randomise, softmax, write_pictures

State = dict[str, torch.Tensor]
SHAPE = {"img_size": SIZE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": 2, "num_heads": HEADS, "mlp_ratio": 2.0}
CFG = {
    "input_size": [3, SIZE, SIZE],
    "interpolation": "bicubic",
    "crop_pct": 1.0,
    "crop_mode": "center",
    "mean": [0.4, 0.5, 0.6],
    "std": [0.25, 0.2, 0.3],
    "num_classes": CLASSES,
}
JSON = {"architecture": "vit_tiny_patch16_224", "num_classes": CLASSES, "model_args": SHAPE, "pretrained_cfg": CFG}


def vit(**changed: object) -> VisionTransformer:
    return VisionTransformer(**(SHAPE | {"num_classes": CLASSES} | changed))


def state(seed: int, **changed: object) -> State:
    return dict(randomise(vit(**changed), seed).state_dict())


A, B, C = state(1), state(2), state(3)


def under(prefix: str, tensors: State) -> State:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def without(tensors: State, *names: str) -> State:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


def optimizer(tensors: State) -> dict:
    states = {
        i: {"step": torch.tensor(3.0), "exp_avg": tensor, "exp_avg_sq": tensor}
        for i, tensor in enumerate(tensors.values())
    }
    return {"state": states, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": list(states)}]}


@dataclass
class Case:
    name: str
    content: object  # what is saved
    meant: State | None = None  # what is meant where timm refuses it
    says: tuple[str, ...] = ()  # words that the answer has to come with
    names: tuple[str, ...] = ()  # one of these stands in a refusal
    key: str = ""  # --weights-key
    suffix: str = ".pth"


LIGHTNING = {
    "epoch": 3,
    "global_step": 120,
    "pytorch-lightning_version": "2.4.0",
    "loops": {"fit_loop": {"state_dict": {}}},
    "callbacks": {},
    "optimizer_states": [optimizer(A)],
    "lr_schedulers": [{"last_epoch": 3}],
    "hparams_name": "kwargs",
    "hyper_parameters": {"lr": 1e-3},
}
CHECKPOINT = {
    "callbacks": {
        "ModelCheckpoint{'monitor': 'val'}": {
            "best_model_score": torch.tensor(0.9),
            "best_model_path": "a.ckpt",
            "kth": {},
        }
    }
}

WRAPPINGS = [
    Case("alone", A),
    Case("OrderedDict", collections.OrderedDict(A)),
    Case("state_dict", {"state_dict": A, "epoch": 3}),
    Case("model", {"model": A, "epoch": 3}),
    Case("model, optimizer", {"model": A, "optimizer": optimizer(B), "epoch": 3, "scaler": {"scale": 65536.0}}),
    Case("optimizer first", {"optimizer": optimizer(B), "model": A}),
    Case(
        "state_dict, optimizer, args",
        {"state_dict": A, "optimizer": optimizer(B), "args": argparse.Namespace(lr=1e-3), "arch": "vit"},
    ),
    Case("state_dict, state_dict_ema", {"state_dict": A, "state_dict_ema": B}, says=("state_dict_ema", "`state_dict`")),
    Case("state_dict_ema first", {"state_dict_ema": B, "state_dict": A}, says=("state_dict_ema", "`state_dict`")),
    Case("state_dict_ema is None", {"state_dict": A, "state_dict_ema": None}),
    Case("model, model_ema", {"model": A, "model_ema": B}, says=("model_ema", "`model`")),
    Case(
        "model, model_ema, optimizer",
        {"model": A, "optimizer": optimizer(A), "model_ema": B},
        says=("model_ema", "`model`"),
    ),
    Case(
        "model_ema, state_dict_ema",
        {"model_ema": A, "state_dict_ema": B, "state_dict": C},
        says=("state_dict_ema", "model_ema"),
    ),
    Case("state_dict, model", {"state_dict": A, "model": B}, says=("state_dict", "`model`")),
    Case("model, state_dict", {"model": B, "state_dict": A}, says=("state_dict", "`model`")),
    Case("teacher, student", {"student": A, "teacher": B}, B, says=("`teacher`", "`student`")),
    Case(
        "teacher, student, of DINO",
        {
            "student": under("module.backbone.", A),
            "teacher": under("backbone.", B),
            "dino_loss": {"center": torch.zeros(1, 8)},
        },
        B,
        says=("`teacher`", "`student`"),
    ),
    Case(
        "model within teacher",
        {"teacher": {"model": B}, "student": {"model": A}},
        B,
        says=("teacher.model",),
        names=("teacher.model",),
    ),
    Case("ema", {"model": A, "ema": B}, says=("`model`", "`ema`")),
    Case("ema_state_dict", {"state_dict": A, "ema_state_dict": B}, says=("`state_dict`", "`ema_state_dict`")),
    Case("model_state_dict", {"model_state_dict": A, "optimizer_state_dict": optimizer(B)}, A),
    Case("model_state", {"model_state": A}, A),
    Case("net", {"net": A, "acc": 0.9}, A),
    Case("network", {"network": A}, A),
    Case("weights", {"weights": A}, A),
    Case("params, params_ema", {"params": A, "params_ema": B}, names=("params",)),
    Case("best, last", {"best": A, "last": B}, names=("best", "last")),
    Case("state_dict within model", {"model": {"state_dict": A}}, A),
    Case("model within state_dict", {"state_dict": {"model": A}}, A),
    Case("three deep", {"checkpoint": {"ema": {"model": A}}}, A),
    Case("list of states", [A, B], names=("list", "dictionary", "no tensor", "weights")),
    Case("no tensor", {"epoch": 3}, names=("no tensor",)),
    Case("empty state_dict", {"state_dict": {}}, names=("no tensor",)),
    Case("state_dict beside tensors", {"state_dict": A, "loss": torch.zeros(3)}),
    Case(
        "metrics beside the weights", {"state_dict": A, "confusion": torch.zeros(3, 3), "class_weights": torch.ones(3)}
    ),
    Case("Lightning", {"state_dict": under("model.", A), **LIGHTNING}, A, says=(), names=("model.",)),
    Case("Lightning, .ckpt", {"state_dict": under("model.", A), **LIGHTNING, **CHECKPOINT}, A, suffix=".ckpt"),
    Case(
        "Lightning, weights of the loss",
        {"state_dict": under("model.", A) | {"criterion.weight": torch.ones(3)}, **LIGHTNING},
        A,
        says=("criterion.weight",),
    ),
    Case(
        "Lightning, metrics",
        {"state_dict": under("model.", A) | {"val_acc.tp": torch.zeros(3)}, **LIGHTNING},
        A,
        says=("val_acc.tp",),
    ),
    Case(
        "Lightning, model and ema",
        {"state_dict": under("model.", A) | under("ema_model.", B), **LIGHTNING},
        None,
        names=("ema_model.",),
    ),
    Case(
        "Lightning, model and model_ema",
        {"state_dict": under("model.", A) | under("model_ema.", B), **LIGHTNING},
        B,
        says=("model_ema.",),
        names=("model_ema.",),
    ),
    Case(
        "Lightning, student and teacher",
        {"state_dict": under("student.", A) | under("teacher.", B), **LIGHTNING},
        B,
        says=("teacher.", "student."),
    ),
    Case("MONAI", {"model": under("module.", A), "optimizer": optimizer(B), "trainer": {"iteration": 9, "epoch": 2}}),
    Case("MONAI, network", {"network": under("module.", A), "optimizer": optimizer(B), "trainer": {"iteration": 9}}, A),
    Case(
        "EMA of timm, module.",
        {"state_dict": under("module.", A), "state_dict_ema": under("module.", B)},
        says=("state_dict_ema",),
    ),
    Case("fastai", {"model": A, "opt": {"state": [], "hypers": []}}),
    Case("accelerate, module", {"module": A, "ds_version": "0.15", "dp_world_size": 1}, A),
]

FRONTS = [
    "module.",
    "_orig_mod.",
    "module._orig_mod.",
    "_orig_mod.module.",
    "model.",
    "net.",
    "network.",
    "encoder.",
    "backbone.",
    "vit.",
    "model.vit.",
    "model.backbone.",
    "model._orig_mod.",
    "module.model.",
    "model.module.",
    "_model.",
    "image_encoder.",
    "feature_extractor.",
    "base_model.model.",
    "visual.trunk.",
    "student.",
    "0.",
]
PREFIXES = (
    [Case(f"names begin with {front}", under(front, A), A, names=(front,)) for front in FRONTS]
    + [
        Case(f"in state_dict, names begin with {front}", {"state_dict": under(front, A)}, A, names=(front,))
        for front in FRONTS[:8]
    ]
    + [
        Case(f"safetensors, names begin with {front}", under(front, A), A, names=(front,), suffix=".safetensors")
        for front in FRONTS[:12]
    ]
    + [
        Case(
            "half of the names begin with module.",
            {("module." if i % 2 else "") + name: t for i, (name, t) in enumerate(A.items())},
            None,
            names=("module.",),
        ),
        Case(
            "one block begins with module.",
            {("module." if "blocks.1." in name else "") + name: t for name, t in A.items()},
            names=("module.",),
        ),
        Case("two models: image., text.", under("image.", A) | under("text.", B), None, names=("image.",)),
        Case(
            "two models: left., right., safetensors",
            under("left.", A) | under("right.", B),
            None,
            names=("left.",),
            suffix=".safetensors",
        ),
        Case(
            "bare and momentum_",
            A | under("momentum_encoder.", B),
            A,
            says=("momentum_encoder.",),
            names=("momentum_encoder.",),
        ),
        Case(
            "encoder., momentum_encoder.",
            under("encoder.", A) | under("momentum_encoder.", B),
            None,
            names=("momentum_encoder.",),
        ),
        Case(
            "base_encoder., momentum_encoder. of MoCo",
            {"state_dict": under("module.base_encoder.", A) | under("module.momentum_encoder.", B)},
            None,
            names=("base_encoder.",),
        ),
        Case("teacher., student.", under("teacher.", A) | under("student.", B), A, says=("teacher.", "student.")),
        Case(
            "encoder., classifier beside",
            under("encoder.", without(A, "head.weight", "head.bias"))
            | {"fc.weight": A["head.weight"], "fc.bias": A["head.bias"]},
            None,
            names=("fc.", "classifier", "encoder."),
        ),
        Case(
            "model., head beside",
            under("model.", without(A, "head.weight", "head.bias"))
            | {"head.weight": A["head.weight"], "head.bias": A["head.bias"]},
            None,
            names=("head", "model.", "classifier"),
        ),
    ]
)

KEYS = [
    Case("state_dict", {"state_dict": A, "state_dict_ema": B}, A, key="state_dict"),
    Case("student", {"student": A, "teacher": B}, A, key="student"),
    Case("params_ema", {"params": A, "params_ema": B}, B, key="params_ema"),
    Case("model within ema", {"model": A, "ema": {"model": B}}, B, key="ema.model"),
    Case("student.", under("teacher.", A) | under("student.", B), B, key="student."),
    Case("student without a dot", under("teacher.", A) | under("student.", B), B, key="student"),
    Case("right., safetensors", under("left.", A) | under("right.", B), B, key="right.", suffix=".safetensors"),
    Case(
        "prefix within Lightning",
        {"state_dict": under("model.", A) | under("ema_model.", B), **LIGHTNING},
        B,
        key="ema_model",
    ),
    Case("key, and module. within", {"student": under("module.", A), "teacher": under("module.", B)}, A, key="student"),
    Case("no such key", {"student": A, "teacher": B}, key="nobody", names=("nobody",)),
    Case("no such key, one set", A, key="nobody", names=("nobody",)),
    Case("no such key, safetensors", A, key="nobody", names=("nobody",), suffix=".safetensors"),
    Case("optimizer", {"model": A, "optimizer": optimizer(B)}, key="optimizer", names=("optimizer",)),
]


def as_type(dtype: torch.dtype, *names: str) -> State:
    return {name: tensor.to(dtype) if not names or name in names else tensor for name, tensor in A.items()}


def shared() -> State:
    whole = torch.cat([A["norm.weight"], A["norm.bias"]])
    return A | {"norm.weight": whole[:WIDTH], "norm.bias": whole[WIDTH:]}


def tied() -> State:
    return A | {
        "blocks.1.mlp.fc1.weight": A["blocks.0.mlp.fc1.weight"],
        "blocks.1.norm1.weight": A["blocks.0.norm1.weight"],
    }


TENSORS = [
    *(
        Case(f"{dtype}", as_type(dtype), suffix=suffix, names=("F64",))
        for suffix in (".pth", ".safetensors")
        for dtype in (torch.float16, torch.bfloat16, torch.float64)
    ),
    Case("float16 but norms", as_type(torch.float16, *(name for name in A if "norm" not in name))),
    Case("int32 bias", A | {"head.bias": torch.tensor([1, 2, 3], dtype=torch.int32)}, names=("head.bias",)),
    Case(
        "int8 weight", A | {"head.weight": (A["head.weight"] * 20).to(torch.int8)}, names=("head.weight", "CharStorage")
    ),
    Case(
        "float8 weight, safetensors",
        A | {"head.weight": A["head.weight"].to(torch.float8_e4m3fn)},
        names=("head.weight",),
        suffix=".safetensors",
    ),
    Case("turned round", {name: t.t().contiguous().t() if t.ndim == 2 else t for name, t in A.items()}),
    Case(
        "channels last", {name: t.to(memory_format=torch.channels_last) if t.ndim == 4 else t for name, t in A.items()}
    ),
    Case("slices of one storage", shared()),
    Case("every second value", A | {"norm.weight": torch.stack([A["norm.weight"]] * 2, 1).flatten()[::2]}),
    Case("expanded", A | {"norm.weight": torch.tensor([1.5]).expand(WIDTH)}, names=("norm.weight",)),
    Case("tied tensors", tied()),
    Case("parameters", {name: torch.nn.Parameter(t) for name, t in A.items()}),
    Case("on the GPU when saved", A | {"norm.weight": A["norm.weight"].clone().requires_grad_()}),
    Case("not a number", A | {"norm.weight": A["norm.weight"] / 0}, names=("norm.weight",)),
    Case("transposed head", A | {"head.weight": A["head.weight"].t().contiguous()}, names=("head.", "num_classes")),
    Case("head of a vector", A | {"head.weight": A["head.weight"][0]}, names=("head.", "num_classes")),
    Case("old torch.save", A, names=("1.6",), suffix=".old.pth"),
    Case("stray tensor", A | {"stray.weight": torch.zeros(3)}, names=("stray.weight",)),
    Case(
        "stray tensor, safetensors",
        A | {"stray.weight": torch.zeros(3)},
        names=("stray.weight",),
        suffix=".safetensors",
    ),
    Case(
        "block too many",
        A | {name.replace("blocks.1.", "blocks.3."): t for name, t in A.items() if "blocks.1." in name},
        names=("blocks.3.",),
    ),
    Case("block missing", {name: t for name, t in A.items() if "blocks.0." not in name}, names=("blocks.0.",)),
    Case("num_batches_tracked", A | {"bn.num_batches_tracked": torch.tensor(7)}, names=("bn.num_batches_tracked",)),
    Case(
        "no head.bias",
        without(A, "head.bias"),
        {**A, "head.bias": torch.zeros(CLASSES)},
        says=("head", "bias"),
        names=("head.bias",),
    ),
    Case("no head.weight", without(A, "head.weight"), names=("head.weight", "classifier")),
    Case("no head", without(A, "head.weight", "head.bias"), names=("classifier", "head")),
    Case("no norm.bias", without(A, "norm.bias"), names=("norm.bias",)),
    Case("no patch_embed.proj.bias", without(A, "patch_embed.proj.bias"), names=("patch_embed.proj.bias", "patch_bias")),
    Case(
        "no attn.qkv.bias", {name: t for name, t in A.items() if "qkv.bias" not in name}, names=("qkv.bias", "qkv_bias")
    ),
    Case("no attn.qkv.bias in one block", without(A, "blocks.1.attn.qkv.bias"), names=("blocks.1.attn.qkv.bias",)),
    Case(
        "no attn.qkv.bias in the first block", without(A, "blocks.0.attn.qkv.bias"), names=("attn.qkv.bias", "qkv_bias")
    ),
    Case(
        "no attn.proj.bias",
        {name: t for name, t in A.items() if "attn.proj.bias" not in name},
        names=("attn.proj.bias",),
    ),
    Case("no cls_token", without(A, "cls_token"), names=("cls_token",)),
    Case("no pos_embed", without(A, "pos_embed"), names=("pos_embed",)),
    Case("pos_embed without the class token", A | {"pos_embed": A["pos_embed"][:, 1:]}, names=("pos_embed", "no_embed_class")),
    Case(
        "pos_embed of another size",
        A | {"pos_embed": state(4, img_size=32)["pos_embed"]},
        names=("pos_embed", "img_size"),
    ),
]


FLAT = {"architecture": "vit_tiny_patch16_224"} | CFG
FLAT_TEST_VIT = FLAT | {"architecture": "test_vit", "input_size": [3, 160, 160], "fixed_input_size": True}


@dataclass
class Described:
    """A model of timm's, and what is said beside its weights."""

    name: str
    description: dict | str  # JSON as an object or as text
    architecture: str = "vit_tiny_patch16_224"  # which is saved
    arguments: dict = field(default_factory=lambda: SHAPE)
    names: tuple[str, ...] = ("num_heads",)
    is_meant: bool = False  # where timm refuses the description, the model that was saved is meant


def named(architecture: str, size: int = 32, **arguments: object) -> Described:
    """The name, and of the arguments only what is not the architecture's."""
    arguments = {"img_size": size} | arguments
    content = {
        "architecture": architecture,
        "num_classes": CLASSES,
        "pretrained_cfg": CFG | {"input_size": [3, size, size]},
    }
    return Described(
        f"{architecture} {arguments}",
        content | {"model_args": arguments},
        architecture,
        arguments,
        ("num_heads", "architecture", "pos_embed", "cls_token", "patch_embed"),
    )


ARCHITECTURES = [
    *(
        named(name)
        for name in (
            "test_vit",
            "test_vit2",
            "test_vit3",
            "test_vit4",
            "vit_tiny_patch16_224",
            "deit_tiny_patch16_224",
            "deit_tiny_distilled_patch16_224",
            "vit_wee_patch16_reg1_gap_256",
            "vit_pwee_patch16_reg1_gap_256",
            "vit_dpwee_patch16_reg1_gap_256",
            "vit_little_patch16_reg1_gap_256",
        )
    ),
    *(
        named(name, depth=1)
        for name in (
            "test_vit",
            "vit_base_patch16_gap_224",
            "vit_small_patch16_224",
            "vit_base_patch16_224",
            "vit_medium_patch16_gap_240",
            "vit_small_patch16_36x1_224",
            "vit_small_patch16_18x2_224",
            "deit3_small_patch16_224",
            "vit_base_patch16_clip_224",
            "vit_base_patch16_clip_quickgelu_224",
            "vit_relpos_small_patch16_224",
            "vit_base_patch16_siglip_224",
            "vit_base_patch16_siglip_gap_224",
            "vit_base_patch16_rpn_224",
            "vit_srelpos_small_patch16_224",
            "beit_base_patch16_224",
            "beitv2_base_patch16_224",
            "beit3_base_patch16_224",
            "vit_small_patch16_dinov3",
            "vit_small_plus_patch16_dinov3",
            "vit_base_patch16_rope_224",
            "vit_base_mci_224",
            "vit_small_patch8_224",
            "flexivit_small",
            "vit_betwixt_patch16_reg1_gap_256",
        )
    ),
    *(
        named(name, 28, depth=1)
        for name in ("vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2", "eva02_tiny_patch14_224")
    ),
    *(named(name, depth=1, num_heads=2) for name in ("vit_base_patch16_gap_224", "vit_small_patch16_224", "test_vit")),
]


def described(**changed: object) -> dict:
    return {name: value for name, value in (JSON | changed).items() if value is not None}


HEADLESS = {name: value for name, value in SHAPE.items() if name != "num_heads"}
SAID = [
    Described("as it is saved", JSON),
    Described("JSON with a byte order mark", "\ufeff" + json.dumps(JSON), is_meant=True),
    Described("JSON in another order, indented", json.dumps(dict(reversed(JSON.items())), indent=4)),
    Described("no JSON", "", names=("config.json",)),
    Described("JSON cut off", json.dumps(JSON)[:-20], names=("config.json",)),
    Described("a list as JSON", "[]", names=("config.json",)),
    Described("no architecture", described(architecture=None), names=("architecture",), is_meant=True),
    Described("architecture nobody knows", described(architecture="my_vit"), names=("my_vit",), is_meant=True),
    Described("architecture empty", described(architecture=""), names=("architecture",), is_meant=True),
    Described(
        "architecture with a tag", described(architecture="vit_tiny_patch16_224.augreg_in21k_ft_in1k"), is_meant=True
    ),
    Described("architecture of another repository", described(architecture="timm/vit_tiny_patch16_224"), is_meant=True),
    Described("architecture with hf-hub:", described(architecture="hf-hub:timm/vit_tiny_patch16_224"), is_meant=True),
    Described("no num_heads, width of no architecture", described(model_args=HEADLESS)),
    Described("no num_heads, no architecture", described(model_args=HEADLESS, architecture=None), is_meant=True),
    Described(
        "no num_heads, unknown architecture", described(model_args=HEADLESS, architecture="my_vit"), is_meant=True
    ),
    Described("no model_args", described(model_args=None)),
    Described("no pretrained_cfg", described(pretrained_cfg=None), names=("pretrained_cfg",)),
    Described("global_pool empty beside", described(global_pool=""), names=("global_pool",)),
    Described("global_pool avg beside", described(global_pool="avg"), names=("global_pool",)),
    Described(
        "global_pool empty in model_args", described(model_args=SHAPE | {"global_pool": ""}), names=("global_pool",)
    ),
    Described(
        "global_pool avg in model_args, fc_norm off",
        described(model_args=SHAPE | {"global_pool": "avg", "fc_norm": False}),
        arguments=SHAPE | {"global_pool": "avg", "fc_norm": False},
    ),
    Described(
        "global_pool avg in model_args",
        described(model_args=SHAPE | {"global_pool": "avg"}),
        arguments=SHAPE | {"global_pool": "avg"},
    ),
    Described("older JSON, side by side", FLAT),
    Described(
        "older JSON with num_features",
        FLAT | {"num_features": 192, "fixed_input_size": True},
        arguments={"img_size": SIZE},
    ),
    *(
        Described(
            f"older JSON of test_vit {more}",
            FLAT_TEST_VIT | more,
            "test_vit",
            {},
            tuple(more),
            is_meant="global_pool" in more or "nobody" in more,
        )
        for more in (
            {},
            {"labels": ["a", "b", "c"]},
            {"global_pool": "token"},
            {"nobody": 1},
            {"crop_mode": "squash"},
            {"label_offset": 0},
        )
    ),
]


def of_model(model: torch.nn.Module, pictures: list[Path], cfg: dict) -> Right:
    transform = create_transform(**resolve_data_config(pretrained_cfg=cfg))
    with torch.no_grad():
        return Right([softmax(model.eval()(transform(Image.open(path))[None])) for path in pictures])


def loaded(tensors: State) -> torch.nn.Module:
    model = vit()
    model.load_state_dict(tensors)
    return model


def of_file(path: Path, case: Case, pictures: list[Path]) -> Right:
    """What timm loads, all of it; else what is meant, with timm's failure."""
    failure = Right()
    for filter_fn in (None, checkpoint_filter_fn):
        try:
            model = vit()
            load_checkpoint(model, str(path), filter_fn=filter_fn, weights_only=False)
            if not case.key:
                return of_model(model, pictures, CFG)
        except Exception as error:  # whatever it fails with, it fails
            failure = failure if failure.failure else Right.failed(error)
    if case.meant is None:
        return failure
    right = of_model(loaded(case.meant), pictures, CFG)
    right.remark = f"with {case.key}" if case.key else f"is meant; timm fails ({failure.failure})"
    return right


def save(content: object, path: Path) -> None:
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous().clone() for name, tensor in content.items()}, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=".old" not in path.suffixes)


def files(kind: str, tried: list[Case], folder: Path, melo: Melo, pictures: list[Path]) -> Iterator[Row]:
    for number, case in enumerate(tried):
        path = folder / f"{number}{case.suffix}"
        save(case.content, path)
        path.with_suffix(".json").write_text(json.dumps(JSON))
        right = of_file(path, case, pictures)
        key = ["--weights-key", case.key] if case.key else []
        answer = melo("predict", "--backbone", path, *pictures, "--json", *key)
        name = f"{case.name}, {case.suffix}" if case.suffix != ".pth" else case.name
        yield judge(kind, name, right, answer, case.names, case.says)


def of_folder(folder: Path, case: Described, model: torch.nn.Module, pictures: list[Path]) -> Right:
    try:
        built = timm.create_model(f"local-dir:{folder}", pretrained=True)
        return of_model(built, pictures, built.pretrained_cfg)
    except Exception as error:  # whatever it fails with, it fails
        failure = Right.failed(error)
    if not case.is_meant:
        return failure
    said = json.loads(case.description.lstrip("\ufeff")) if isinstance(case.description, str) else case.description
    right = of_model(model, pictures, said.get("pretrained_cfg", said))
    right.remark = f"is meant; timm fails ({failure.failure})"
    return right


def folders(kind: str, tried: list[Described], folder: Path, melo: Melo, pictures: list[Path]) -> Iterator[Row]:
    for number, case in enumerate(tried):
        target = folder / f"{kind} {number}"
        target.mkdir()
        model = randomise(timm.create_model(case.architecture, num_classes=CLASSES, **case.arguments), 7)
        save(model.state_dict(), target / "model.safetensors")
        text = case.description if isinstance(case.description, str) else json.dumps(case.description)
        if text:
            (target / "config.json").write_text(text, encoding="utf-8")
        right = of_folder(target, case, model, pictures)
        answer = melo("predict", "--backbone", target, *pictures, "--json")
        yield judge(kind, case.name, right, answer, case.names)


def cases(folder: Path, melo: Melo) -> Iterator[Row]:
    logging.getLogger("timm").setLevel(logging.ERROR)
    pictures = write_pictures(folder)
    tables = {"wrappings": WRAPPINGS, "what names begin with": PREFIXES, "--weights-key": KEYS, "tensors": TENSORS}
    for kind, tried in tables.items():
        yield from files(f"files of weights: {kind}", tried, folder, melo, pictures)
    yield from folders("timm's models by name", ARCHITECTURES, folder, melo, pictures)
    yield from folders("timm's JSON", SAID, folder, melo, pictures)
