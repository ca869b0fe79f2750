"""Every field of every foreign description, set to another value in turn: answered as the library does, or refused.

Fields are found in the libraries' own classes and signatures, so a new version of a library brings new rows.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timm
import torch
import transformers
from common import Melo, Row
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config
from timm.models._pretrained import PretrainedCfg
from timm.models.vision_transformer import VisionTransformer
from tiny import CLASSES, HEADS, PATCH, SIZE, WIDTH, Right, judge, randomise, softmax, write_pictures
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    CLIPVisionModelWithProjection,
    ViTForImageClassification,
)
from transformers.processing_utils import ImagesKwargs

ABSENT = "left out"  # in place of a value
STRAY = [("no_such_field", 1)]  # what no library knows

# transformers

TOWER = dict(hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=HEADS, image_size=SIZE, patch_size=PATCH)
LABELS = dict(
    id2label={str(i): f"LABEL_{i}" for i in range(CLASSES)}, label2id={f"LABEL_{i}": i for i in range(CLASSES)}
)
MLP = dict(intermediate_size=2 * WIDTH)
CONFIGS: dict[str, dict] = {
    "vit": TOWER | MLP | LABELS,
    "deit": TOWER | MLP | LABELS | dict(architectures=["DeiTForImageClassification"]),
    "deit, distilled": TOWER
    | MLP
    | LABELS
    | dict(model_type="deit", architectures=["DeiTForImageClassificationWithTeacher"]),
    "vit_mae": TOWER
    | MLP
    | LABELS
    | dict(decoder_hidden_size=16, decoder_num_hidden_layers=1, decoder_num_attention_heads=2),
    "vit_msn": TOWER | MLP | LABELS,
    "dinov2": TOWER | dict(mlp_ratio=2) | LABELS,
    "dinov2_with_registers": TOWER | dict(mlp_ratio=2) | LABELS,
    "clip_vision_model": TOWER | MLP | dict(projection_dim=CLASSES),
    "clip": dict(vision_config=TOWER | MLP, text_config=dict(vocab_size=16, hidden_size=16, num_hidden_layers=1))
    | LABELS,
    "siglip": dict(
        vision_config=TOWER | MLP, text_config=dict(vocab_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    )
    | LABELS,
    "beit": TOWER | MLP | LABELS,
}
# The classes that classify with them; the others are found by AutoModelForImageClassification.
CLASSIFIERS = {"vit_mae": ViTForImageClassification, "clip_vision_model": CLIPVisionModelWithProjection}

# Values by field; a field without any gets some by the type of its default.
CONFIG_VALUES: dict[str, list] = {
    "transformers_version": ["4.30.0"],
    "architectures": [["ViTModel"], ["NoSuchModel"]],
    "dtype": ["float32", "bfloat16", "float16"],
    "id2label": [{"0": "a", "1": "b", "2": "c"}, {"0": "a", "1": "b"}],
    "label2id": [{"a": 0, "b": 1, "c": 2}],
    "problem_type": ["single_label_classification", "multi_label_classification", "regression"],
    "hidden_size": [48],
    "num_hidden_layers": [2],
    "num_attention_heads": [2, 8, 3],
    "intermediate_size": [48],
    "mlp_ratio": [3, 4],
    "hidden_act": [
        "gelu_new",
        "gelu_pytorch_tanh",
        "gelu_fast",
        "gelu_python",
        "gelu_10",
        "quick_gelu",
        "relu",
        "silu",
        "mish",
        "nope",
    ],
    "layer_norm_eps": [0.3, 1e-5],
    "image_size": [24, 32, [16, 16], [16, 24], [32, 32]],
    "patch_size": [4, 16, [8, 8], [8, 4]],
    "num_channels": [1, 4],
    "pooler_output_size": [8],
    "pooler_act": ["relu"],
    "num_register_tokens": [2, 0],
    "text_config": [{"hidden_size": 24, "vocab_size": 16, "num_hidden_layers": 1}, {}],
    "vision_config": [
        TOWER | MLP | {"hidden_act": "gelu"},
        TOWER | MLP | {"no_such_field": 1},
        TOWER | MLP | {"num_channels": 1},
    ],
    "vision_config_dict": [TOWER | MLP | {"layer_norm_eps": 0.3}],
    "_out_features": [["stage1"]],
    "_out_indices": [[0]],
    "layerscale_value": [0.1],
    "drop_path_rate": [0.5],
    "attn_implementation": ["eager"],
    "pruned_heads": [{"0": [0]}],
    "is_decoder": [True],
    "num_labels": [CLASSES, 5],
    "name_or_path": ["somewhere/else"],
}
# Fields that are in files, and in no signature.
ALSO = ["attn_implementation", "pruned_heads", "is_decoder", "num_labels", "name_or_path"]


def values_of(field: str, default: Any, table: dict[str, list]) -> list:
    if field in table:
        return table[field]
    match default:
        case bool():
            return [not default]
        case int() | float():
            return [default * 2 + 1]
        case str():
            return [f"{default}_other"]
        case dict():
            return [{"a": 1}]
        case _:
            return [1, "other"]


def defaults_of(function: Callable) -> dict[str, Any]:
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return {p.name: p.default for p in parameters if p.kind != inspect.Parameter.VAR_KEYWORD}


# Where a library fails on a setting, and it is plain that the model without it is meant.
MEANT: dict[str, str] = {
    "return_dict": "how results are handed over",
    "architectures": "the weights have the classifier that they have",
    "id2label": "the classifier has as many rows as it has",
    "projection_dim": "the projection has as many rows as it has",
    "num_classes": "the classifier has as many rows as it has",
    "architecture": "model_args say all of it",
    "model_args": "positions are interpolated",
    "embed_dim": "the weights have one width",
    "depth": "the weights have so many blocks",
    "mlp_ratio": "the weights have one width of the MLP",
    "img_size": "the weights have so many positions",
    "input_size": "model_args say it",
    "patch_size": "the weights have one patch",
    "image_size": "one side, twice",
    "embed_layer": "the class by its name",
    "block_fn": "the class by its name",
    "mlp_layer": "the class by its name",
    "attn_layer": "the class by its name",
    "dtype": "where the model is built",
    "image_processor_type": "the class by its older name",
    "use_mask_token": "only a pre-training masks",
    "pool_scales": "only a segmentation pools",
    "add_fpn": "only a segmentation has it",
}
PLAIN: dict[str, list] = {
    "embed_layer": ["PatchEmbed"],
    "block_fn": ["Block"],
    "mlp_layer": ["Mlp"],
    "attn_layer": ["Attention"],
    "architecture": ["nope"],
    "model_args": [{}],
    "return_dict": [False],
    "dtype": ["float16"],
    "image_processor_type": ["ViTFeatureExtractor"],
    "architectures": [["ViTModel"], ["NoSuchModel"]],
    "image_size": [[SIZE, SIZE]],
    "patch_size": [[PATCH, PATCH]],
    "use_mask_token": [True],
    "pool_scales": [1, "other"],
    "add_fpn": [True],
}
# What else a refusal may name.
RELATED: dict[str, tuple[str, ...]] = {
    "architecture": ("cls_token", "num_heads"),
    "patch_size": ("image_size",),
    "vision_config": ("patch size",),
    "image_std": ("std",),
    "num_classes": ("classifier",),
    "do_center_crop": ("size",),
    "pretrained_cfg": ("interpolation",),
}
RESAMPLED = (
    "patch_size",
    ABSENT,
)  # timm resamples the weights to the patch of the architecture that is named, and goes on


def is_meant(field: str, value: Any) -> bool:
    """True where what is meant is plain though the library fails: nothing is said, or the usual by another name."""
    return value is None or (field in MEANT and (value == ABSENT or value in PLAIN.get(field, [])))


def settings(fields: dict[str, Any], base: dict, table: dict[str, list]) -> Iterator[tuple[str, Any]]:
    """Each field with each of its values, with null, and left out where the base has it."""
    for field, default in fields.items():
        yield from ((field, value) for value in values_of(field, default, table))
        yield field, None
        if field in base:
            yield field, ABSENT


def with_setting(base: dict, field: str, value: Any) -> dict:
    changed = {name: old for name, old in base.items() if name != field}
    return changed if value == ABSENT else changed | {field: value}


def words(field: str, value: Any) -> str:
    if not field:
        return "as it is saved"
    return f"{field} {ABSENT}" if value == ABSENT else f"{field}: {json.dumps(value)}"


def write(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content))


PROCESSOR = {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": SIZE, "width": SIZE},
    "resample": 3,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.4, 0.5, 0.6],
    "image_std": [0.25, 0.2, 0.3],
}
CROP = {"do_center_crop": True, "size": {"height": 24, "width": 24}, "crop_size": {"height": SIZE, "width": SIZE}}
SHORTEST = CROP | {"size": {"shortest_edge": 24}, "do_convert_rgb": True}
PROCESSORS: dict[str, dict] = {
    "ViT": PROCESSOR,
    "DeiT": PROCESSOR | CROP | {"image_processor_type": "DeiTImageProcessor"},
    "Bit": PROCESSOR | SHORTEST | {"image_processor_type": "BitImageProcessor"},
    "CLIP": PROCESSOR | SHORTEST | {"image_processor_type": "CLIPImageProcessor"},
    "Siglip": PROCESSOR | {"image_processor_type": "SiglipImageProcessor"},
    "Beit": PROCESSOR | {"image_processor_type": "BeitImageProcessor"},
}
SIDES: list = [
    SIZE,
    24,
    [24, 24],
    {"height": 24, "width": 24},
    {"height": 24, "width": 16},
    {"shortest_edge": 24},
    {"longest_edge": 24},
    {"shortest_edge": 16, "longest_edge": 32},
    {"max_height": 24, "max_width": 24},
    {"height": 24},
]
PROCESSOR_VALUES: dict[str, list] = {
    "do_convert_rgb": [True, False],
    "do_resize": [False],
    "size": SIDES,
    "default_to_square": [True, False],
    "crop_size": [8, *SIDES],
    "resample": [0, 1, 2, 3, 4, 5],
    "do_rescale": [False],
    "rescale_factor": [1 / 127.5, 1 / 512, 0, -1],
    "do_normalize": [False],
    "image_mean": [[0.1, 0.5, 0.9], 0.3, [0.1, 0.2]],
    "image_std": [[0.1, 0.5, 0.9], 0.3, [0.1, 0.2], [0.0, 0.1, 0.1]],
    "do_pad": [True],
    "pad_size": [{"height": 32, "width": 32}],
    "do_center_crop": [True, False],
    "data_format": ["channels_first", "channels_last"],
    "input_data_format": ["channels_first", "channels_last"],
    "device": ["cpu"],
    "return_tensors": ["pt", "np"],
    "disable_grouping": [True, False],
    "image_seq_length": [7],
    "image_processor_type": [
        "ViTImageProcessorFast",
        "ViTFeatureExtractor",
        "ConvNextImageProcessor",
        "SiglipImageProcessor",
        "Nope",
    ],
    "feature_extractor_type": ["ViTFeatureExtractor", "DeiTFeatureExtractor"],
    "processor_class": ["CLIPProcessor"],
}


def of_transformers(folder: Path, pictures: list[Path]) -> Right:
    """What transformers makes of the very files; its other backend resizes with other roundings."""
    try:
        model_type = json.loads((folder / "config.json").read_text()).get("model_type")
        auto = CLASSIFIERS.get(model_type, AutoModelForImageClassification)
        model, loaded = auto.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
        loaded.pop("unexpected_keys")  # these are passed over
        if problems := {key: sorted(map(str, names))[:2] for key, names in loaded.items() if names}:
            raise ValueError(f"weights do not fit: {problems}")
        processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        pixels = [processor(Image.open(path), return_tensors="pt")["pixel_values"] for path in pictures]
        return of_model(model.eval(), pixels)
    except Exception as error:  # whatever it fails with, it fails
        return Right.failed(error)


def of_model(model: torch.nn.Module, pixels: list[torch.Tensor]) -> Right:
    def logits(x: torch.Tensor, **more: bool) -> list[float]:
        with torch.no_grad():
            output = model(x, **more)
        return softmax(output.image_embeds if hasattr(output, "image_embeds") else output[0])

    # SigLIP adds all its positions to the only patch of an image, and does not say so.
    always = {"interpolate_pos_encoding": True} if model.config.model_type == "siglip" else {}
    try:
        return Right([logits(x, **always) for x in pixels])
    except ValueError as error:
        if "doesn't match model" not in str(error):
            raise
        # Another size than the model's is only taken where it is asked for.
        return Right([logits(x, interpolate_pos_encoding=True) for x in pixels], remark="with interpolate_pos_encoding")


def save_weights(folder: Path, content: dict) -> None:
    """Weights as a model of this configuration has them."""
    config = transformers.CONFIG_MAPPING[content["model_type"]].from_dict(content)
    make = CLASSIFIERS.get(content["model_type"])
    model = make(config) if make else AutoModelForImageClassification.from_config(config)
    randomise(model.float(), 5).save_pretrained(folder)


def shapes(folder: Path) -> dict[str, list[int]]:
    with safe_open(folder / "model.safetensors", "np") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 it is no dict


def trials(folder: Path, own: Path, make: Callable[[Path], None]) -> Iterator[tuple[str, Path]]:
    """Weights to try a setting with: of a model that has it; where their shapes differ, also those of one without."""
    trial = folder / "trial"
    shutil.rmtree(trial, ignore_errors=True)
    try:
        make(trial)
        fits = shapes(trial) == shapes(own)
    except Exception:  # no such model can be made
        fits = True
    yield "", own if fits else trial
    if not fits:
        yield ", weights without it", own


def ask(
    kind: str,
    name: str,
    target: Path,
    setting: tuple[str, Any],
    contents: list[dict],
    library: Callable[[Path, list[Path]], Right],
    melo: Melo,
    pictures: list[Path],
    file: str = "config.json",
) -> Row:
    """`contents`: the description with the setting, then what is tried in its place where it is plain what is meant."""
    field, value = setting
    write(target / file, contents[0])
    right = library(target, pictures)
    answer = melo("predict", "--backbone", target, *pictures, "--json")
    # timm resamples weights to the patch of the architecture that is named, and goes on with another model.
    is_resampled = field == "patch_size" and value in (ABSENT, None) and "without it" in name
    if is_resampled or (right.probabilities is None and is_meant(field, value)):
        for content in contents[2 if is_resampled else 1 :]:
            write(target / file, content)
            if (usual := library(target, pictures)).probabilities is not None:
                reason = MEANT.get(field, "nothing is said")
                right = Right(usual.probabilities, remark=f"is meant ({reason}); {right}")
                break
    # Where sizes are not those of the weights, a tensor is what does not fit.
    names = (field, *RELATED.get(field, ())) + (("tensor",) if "without it" in name or value is None else ())
    return judge(kind, name, right, answer, names if field and right.probabilities else ())


def configs(folder: Path, melo: Melo, pictures: list[Path]) -> Iterator[Row]:
    for model, own in CONFIGS.items():
        base = {"model_type": model} | own
        own_folder, target = folder / model, folder / "asked"
        save_weights(own_folder, base)
        fields = defaults_of(transformers.CONFIG_MAPPING[base["model_type"]].__init__) | dict.fromkeys(ALSO)
        for field, value in [("", ABSENT), *settings(fields, base, CONFIG_VALUES), *STRAY]:
            content = with_setting(base, field, value)
            for suffix, source in trials(
                folder, own_folder, lambda trial, content=content: save_weights(trial, content)
            ):
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(source, target)
                write(target / "preprocessor_config.json", PROCESSOR)
                contents = [content, with_setting(base, field, ABSENT), base]
                yield ask(
                    f"config.json of transformers: {model}",
                    words(field, value) + suffix,
                    target,
                    (field, value),
                    contents,
                    of_transformers,
                    melo,
                    pictures,
                )


def processors(folder: Path, melo: Melo, pictures: list[Path]) -> Iterator[Row]:
    """Each setting in a file of its own, and within the file of a whole processor."""
    for name, base in PROCESSORS.items():
        target = folder / f"{name} processor"
        content = {"model_type": "vit"} | CONFIGS["vit"]
        save_weights(target, content)
        write(target / "config.json", content)
        more = ["image_processor_type", "feature_extractor_type", "processor_class"]
        fields = dict.fromkeys([*ImagesKwargs.__annotations__, *more])
        own, nested = target / "preprocessor_config.json", target / "processor_config.json"
        for field, value in [("", ABSENT), *settings(fields, base, PROCESSOR_VALUES), *STRAY]:
            contents = [with_setting(base, field, value), with_setting(base, field, ABSENT), base]
            whole = [{"image_processor": content, "processor_class": "CLIPProcessor"} for content in contents]
            for path, written in ((own, contents), (nested, whole)):
                own.unlink(missing_ok=True)
                nested.unlink(missing_ok=True)
                yield ask(
                    f"{path.name} of transformers: {name}",
                    words(field, value),
                    target,
                    (field, value),
                    written,
                    of_transformers,
                    melo,
                    pictures,
                    path.name,
                )


# timm

TIMM = {
    "architecture": "vit_tiny_patch16_224",
    "num_classes": CLASSES,
    "num_features": WIDTH,
    "global_pool": "token",
    "model_args": {
        "img_size": SIZE,
        "patch_size": PATCH,
        "embed_dim": WIDTH,
        "depth": 1,
        "num_heads": HEADS,
        "mlp_ratio": 2.0,
    },
    "pretrained_cfg": {
        "input_size": [3, SIZE, SIZE],
        "interpolation": "bicubic",
        "crop_pct": 0.8,
        "crop_mode": "center",
        "mean": [0.4, 0.5, 0.6],
        "std": [0.25, 0.2, 0.3],
        "num_classes": CLASSES,
        "classifier": "head",
        "first_conv": "patch_embed.proj",
    },
}
TOP_VALUES: dict[str, list] = {
    "architecture": [
        "vit_small_patch16_224",
        "deit_tiny_patch16_224",
        "vit_base_patch16_clip_quickgelu_224",
        "vit_base_patch16_gap_224",
        "vit_base_patch16_rpn_224",
        "vit_relpos_small_patch16_224",
        "vit_tiny_patch16_224.augreg_in21k",
        "test_vit",
        "resnet18",
        "nope",
    ],
    "num_classes": [5, 0],
    "num_features": [7],
    "global_pool": ["avg", "", "max", "map"],
    "label_names": [["a", "b", "c"], ["a"]],
    "label_descriptions": [{"a": "A"}],
    "model_args": [{}],
    "pretrained_cfg": [{}],
}
CFG_VALUES: dict[str, list] = {
    "url": ["https://example.org/weights.pth"],
    "file": ["weights.pth"],
    "state_dict": [{}, {"head.weight": [0.0]}],
    "hf_hub_id": ["timm/vit_tiny_patch16_224"],
    "hf_hub_filename": ["weights.pth"],
    "source": ["url"],
    "architecture": ["vit_base_patch16_224"],
    "custom_load": [True, "hf"],
    "input_size": [[3, 24, 24], [3, 32, 32], [3, 16, 24], [1, SIZE, SIZE], [SIZE, SIZE]],
    "test_input_size": [[3, 32, 32]],
    "min_input_size": [[3, 8, 8]],
    "fixed_input_size": [True],
    "interpolation": ["bilinear", "nearest", "lanczos", "box", "hamming", "random", "nope"],
    "crop_pct": [1.0, 0.5, 1.25, 0],
    "test_crop_pct": [0.5],
    "crop_mode": ["squash", "border", "nope"],
    "mean": [[0.1, 0.5, 0.9], [0.5], 0.5, [0.1, 0.2]],
    "std": [[0.1, 0.5, 0.9], [0.5], 0.5, [0.1, 0.2], [0.0, 0.1, 0.1]],
    "num_classes": [5],
    "label_offset": [1],
    "label_names": [["a", "b", "c"]],
    "label_descriptions": [{"a": "A"}],
    "pool_size": [[7, 7]],
    "first_conv": ["other.conv"],
    "classifier": ["fc", ["head", "head_dist"]],
}
ARG_VALUES: dict[str, list] = {
    "img_size": [24, 32, [SIZE, SIZE], [16, 24]],
    "patch_size": [4, [8, 8], [8, 4]],
    "in_chans": [1, 4],
    "num_classes": [5],
    "global_pool": ["avg", "", "avgmax", "max", "map", "prr"],
    "embed_dim": [48],
    "depth": [2],
    "num_heads": [2, 8, 3],
    "mlp_ratio": [1.0, 4.0],
    "init_values": [0.1],
    "patch_drop_rate": [0.5],
    "class_token": [False],
    "pos_embed": ["none", ""],
    "reg_tokens": [2],
    "fc_norm": [True, False],
    "weight_init": ["skip", "jax", "moco"],
    "embed_layer": ["PatchEmbed", "HybridEmbed"],
    "embed_norm_layer": ["layernorm"],
    "norm_layer": ["layernorm", "rmsnorm", "layernorm2d"],
    "act_layer": ["gelu", "gelu_tanh", "quick_gelu", "relu", "silu", "nope"],
    "block_fn": ["Block", "ParallelScalingBlock"],
    "mlp_layer": ["Mlp", "SwiGLU"],
    "attn_layer": ["Attention", "diff"],
    "device": ["cpu"],
    "dtype": ["float16"],
}
# Arguments that timm's factory takes beside those of the class.
FACTORY = ["strict_img_size", "use_naflex", "scriptable"]
TIMM_PARTS: dict[str, tuple[dict[str, Any], dict[str, list]]] = {
    "": (dict.fromkeys(TOP_VALUES), TOP_VALUES),
    "pretrained_cfg": ({field.name: field.default for field in dataclasses.fields(PretrainedCfg)}, CFG_VALUES),
    "model_args": (defaults_of(VisionTransformer.__init__) | dict.fromkeys(FACTORY), ARG_VALUES),
}


# Settings that mean something together: what is changed, and the rows of the classifier that is saved.
TOGETHER: list[tuple[dict, int]] = [
    ({"pretrained_cfg": {"label_offset": 1}}, CLASSES + 1),
    ({"num_classes": 5}, 5),
    ({"num_classes": 5, "pretrained_cfg": {"num_classes": 5}}, 5),
    ({"num_classes": 5, "pretrained_cfg": {"num_classes": 5}, "model_args": {"num_classes": 5}}, 5),
    ({"model_args": {"reg_tokens": 2, "no_embed_class": True}}, CLASSES),
    ({"model_args": {"global_pool": "avg", "fc_norm": False}}, CLASSES),
    ({"model_args": {"global_pool": "token", "fc_norm": True}}, CLASSES),
    ({"model_args": {"global_pool": "avg", "pool_include_prefix": True}}, CLASSES),
    ({"model_args": {"global_pool": "avg", "final_norm": False}}, CLASSES),
    ({"model_args": {"pre_norm": True, "init_values": 0.1}}, CLASSES),
    ({"model_args": {"pre_norm": True, "qkv_bias": False}}, CLASSES),
    ({"model_args": {"dynamic_img_size": True}, "pretrained_cfg": {"input_size": [3, 32, 32]}}, CLASSES),
    (
        {
            "model_args": {"dynamic_img_size": True, "dynamic_img_pad": True},
            "pretrained_cfg": {"input_size": [3, 28, 28]},
        },
        CLASSES,
    ),
    ({"model_args": {"img_size": 32}, "pretrained_cfg": {"fixed_input_size": True}}, CLASSES),
    ({"model_args": {"img_size": 32}, "pretrained_cfg": {"input_size": [3, 32, 32]}}, CLASSES),
    ({"pretrained_cfg": {"crop_mode": "border", "crop_pct": 0.6, "interpolation": "bilinear"}}, CLASSES),
    ({"pretrained_cfg": {"crop_mode": "squash", "crop_pct": 0.6, "interpolation": "bilinear"}}, CLASSES),
    ({"pretrained_cfg": {"crop_mode": "squash", "crop_pct": 1.0}}, CLASSES),
    ({"pretrained_cfg": {"test_input_size": [3, 32, 32], "test_crop_pct": 0.5}}, CLASSES),
]


def of_timm(folder: Path, pictures: list[Path]) -> Right:
    """What timm makes of the very files."""

    def answer() -> Right:
        model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval().float()
        transform = create_transform(**resolve_data_config(model=model))
        with torch.no_grad():
            return Right([softmax(model(transform(Image.open(path))[None])) for path in pictures])

    try:
        right = answer()
        if right.probabilities != answer().probabilities:
            raise ValueError("its classifier is drawn at random")
        return right
    except Exception as error:  # whatever it fails with, it fails
        return Right.failed(error)


def save_timm_weights(folder: Path, content: dict) -> None:
    """Weights as a model of these arguments has them."""
    args = {"num_classes": content.get("num_classes")} | (content.get("model_args") or {})
    args["num_classes"] = CLASSES if args["num_classes"] is None else args["num_classes"]
    model = randomise(timm.create_model(content["architecture"], **args).float(), 6)
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")


def descriptions_of_timm(folder: Path, melo: Melo, pictures: list[Path]) -> Iterator[Row]:
    own_folder, target = folder / "timm", folder / "asked"
    save_timm_weights(own_folder, TIMM)
    for part, (fields, table) in TIMM_PARTS.items():
        base = TIMM[part] if part else TIMM
        for field, value in [("", ABSENT), *settings(fields, base, table), *STRAY]:
            changed = [with_setting(base, field, value), with_setting(base, field, ABSENT), base]
            contents = [TIMM | {part: content} if part else content for content in changed]
            contents.append(
                contents[0] | {"model_args": (contents[0].get("model_args") or {}) | {"dynamic_img_size": True}}
            )
            for suffix, source in trials(
                folder, own_folder, lambda trial, content=contents[0]: save_timm_weights(trial, content)
            ):
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(source, target)
                yield ask(
                    f"config.json of timm: {part or 'beside'}",
                    words(field, value) + suffix,
                    target,
                    (field, value),
                    contents,
                    of_timm,
                    melo,
                    pictures,
                )

    for changed, rows in TOGETHER:
        content = TIMM | {
            part: TIMM[part] | value if isinstance(value, dict) else value for part, value in changed.items()
        }
        shutil.rmtree(target, ignore_errors=True)
        save_timm_weights(target, content | {"model_args": content["model_args"] | {"num_classes": rows}})
        fields = [field for part, value in changed.items() for field in (value if isinstance(value, dict) else [part])]
        name = f"{json.dumps(changed)}, {rows} rows"
        write(target / "config.json", content)
        answer = melo("predict", "--backbone", target, *pictures, "--json")
        yield judge("config.json of timm: together", name, of_timm(target, pictures), answer, (*fields, "image size"))


def cases(folder: Path, melo: Melo) -> Iterator[Row]:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("timm").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    pictures = write_pictures(folder)
    yield from configs(folder, melo, pictures)
    yield from processors(folder, melo, pictures)
    yield from descriptions_of_timm(folder, melo, pictures)
