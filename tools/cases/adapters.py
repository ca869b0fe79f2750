"""Adapters of PEFT: every setting of a LoRA in turn, and the forms of their files; as PEFT answers, or refused by name.

Settings are found in `LoraConfig` itself, so a new version of PEFT brings new rows.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
import transformers
from common import Melo, Row
from descriptions import ABSENT, CONFIGS, PROCESSOR, TIMM, write
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_data_config
from tiny import CLASSES, WIDTH, Right, judge, randomise, softmax, write_pictures
from transformers import AutoImageProcessor, ViTForImageClassification

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
PARTIAL = "with a warning of missing keys"


@dataclass
class Base:
    """A frozen model, its files, and the adapter that the others differ from."""

    name: str
    folder: Path
    make: Callable[[], torch.nn.Module]
    pixels: list[torch.Tensor]
    settings: dict[str, Any]

    def answers(self, model: torch.nn.Module) -> list[list[float]]:
        with torch.no_grad():
            outputs = [model.eval().base_model(x) for x in self.pixels]  # without what a task_type wraps around it
        return [softmax(output if isinstance(output, torch.Tensor) else output.logits) for output in outputs]


def timm_base(folder: Path, pictures: list[Path]) -> Base:
    folder.mkdir()
    args = TIMM["model_args"] | {"depth": 2}
    model = randomise(timm.create_model(TIMM["architecture"], num_classes=CLASSES, **args), 8)
    save_file(model.state_dict(), folder / "model.safetensors")
    write(folder / "config.json", TIMM | {"model_args": args})
    transform = create_transform(**resolve_data_config(pretrained_cfg=TIMM["pretrained_cfg"]))
    pixels = [transform(Image.open(path))[None] for path in pictures]
    settings = {"r": 2, "lora_alpha": 3, "target_modules": ["qkv"], "modules_to_save": ["head"]}
    return Base("timm", folder, lambda: copy.deepcopy(model), pixels, settings)


def hf_base(folder: Path, pictures: list[Path]) -> Base:
    config = transformers.ViTConfig(**CONFIGS["vit"] | {"num_hidden_layers": 2})
    model = randomise(ViTForImageClassification(config), 9)
    model.save_pretrained(folder)
    write(folder / "preprocessor_config.json", PROCESSOR)
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    pixels = [processor(Image.open(path), return_tensors="pt")["pixel_values"] for path in pictures]
    settings = {"r": 2, "lora_alpha": 3, "target_modules": ["q_proj", "v_proj"], "modules_to_save": ["classifier"]}

    def make() -> torch.nn.Module:
        fresh = copy.deepcopy(model)
        fresh.name_or_path = fresh.config._name_or_path = ""
        return fresh

    return Base("transformers", folder, make, pixels, settings)


# Values by setting and base; None stands for both.
VALUES: dict[str, list] = {
    "task_type": ["FEATURE_EXTRACTION", "SEQ_CLS"],
    "peft_type": ["LOHA", "IA3", "ADALORA", "nope"],
    "auto_mapping": [{"base_model_class": "VisionTransformer", "parent_library": "timm.models.vision_transformer"}],
    "peft_version": ["0.1.0"],
    "base_model_name_or_path": ["other/model"],
    "revision": ["main"],
    "inference_mode": [True, False],
    "r": [1, 4, 40, 0],
    "lora_alpha": [1, 16, 0.5, 0, -2],
    "lora_dropout": [0.5],
    "fan_in_fan_out": [True],
    "bias": ["all", "lora_only"],
    "use_rslora": [True],
    "init_lora_weights": [
        False,
        "gaussian",
        "pissa",
        "pissa_niter_4",
        "olora",
        "eva",
        "loftq",
        "orthogonal",
        "corda",
        "lora_ga",
        "nope",
    ],
    "megatron_config": [{"a": 1}],
    "megatron_core": ["other.core"],
    "trainable_token_indices": [[0]],
    "layer_replication": [[[0, 2], [1, 2]]],
    "runtime_config": [{"ephemeral_gpu_offload": True}],
    "layers_pattern": ["blocks"],
    "no_such_field": [1],
}
VALUES_OF: dict[str, dict[str, list]] = {
    "timm": {
        "target_modules": [
            ["attn.qkv"],
            ["blocks.0.attn.qkv"],
            ["qkv", "attn.proj", "fc1", "fc2"],
            "all-linear",
            r".*\.(qkv|fc2)",
            r"blocks\.1\.mlp\.fc[12]",
            ["patch_embed.proj"],
            ["qkv", "patch_embed.proj"],
            ["proj"],
            ["head"],
            ["nothing"],
            [],
        ],
        "exclude_modules": [["blocks.0.attn.qkv"], r"blocks\.1.*", ["nothing"]],
        "modules_to_save": [["head", "norm"], ["head", "patch_embed"], ["head", "blocks.0.norm1"], [], ["nothing"]],
        "layers_to_transform": [[0], 1, [0, 1], [5]],
        "rank_pattern": [
            {"blocks.0.attn.qkv": 4},
            {"qkv": 1},
            {r"blocks\.1\..*": 3},
            {"^blocks.0.attn.qkv": 4},
            {"kv": 5},
            {"nothing": 9},
            {"qkv": 40},
        ],
        "alpha_pattern": [
            {"blocks.0.attn.qkv": 4},
            {"qkv": 1},
            {r"blocks\.1\..*": 3},
            {"^blocks.0.attn.qkv": 4},
            {"nothing": 9},
        ],
        "target_parameters": [["blocks.0.attn.qkv.weight"]],
    },
    "transformers": {
        "target_modules": [
            ["q_proj"],
            ["k_proj"],
            ["q_proj", "k_proj", "v_proj", "o_proj", "fc1", "fc2"],
            ["attention.o_proj"],
            "all-linear",
            r".*\.(q_proj|fc2)",
            ["vit.layers.1.mlp.fc1"],
            ["projection"],
            ["classifier"],
            ["nothing"],
        ],
        "exclude_modules": [["vit.layers.0.attention.q_proj"], r".*layers\.1.*"],
        "modules_to_save": [["classifier", "layernorm"], [], ["nothing"]],
        "layers_to_transform": [[0], 1, [0, 1], [5]],
        "rank_pattern": [
            {"vit.layers.0.attention.q_proj": 4},
            {"q_proj": 1},
            {r".*layers\.1\..*": 3},
            {"^vit.layers.0.attention.q_proj": 4},
        ],
        "alpha_pattern": [
            {"vit.layers.0.attention.q_proj": 4},
            {"q_proj": 1},
            {r".*layers\.1\..*": 3},
            {"^vit.layers.0.attention.q_proj": 4},
        ],
        "target_parameters": [["vit.layers.0.mlp.fc1.weight"]],
    },
}
TOGETHER: dict[str, list[dict]] = {
    "timm": [
        {"layers_to_transform": [1], "layers_pattern": "blocks"},
        {"layers_to_transform": [1], "layers_pattern": ["layers", "blocks"]},
        {"layers_to_transform": [1], "layers_pattern": "layers"},
        {"use_rslora": True, "rank_pattern": {"blocks.0.attn.qkv": 5}},
        {"use_rslora": True, "alpha_pattern": {"blocks.0.attn.qkv": 5}},
        {
            "r": 3,
            "lora_alpha": 7,
            "rank_pattern": {"fc1": 1},
            "alpha_pattern": {"fc2": 2},
            "target_modules": ["qkv", "fc1", "fc2"],
        },
        {"rank_pattern": {"attn.qkv": 4, "blocks.1.attn.qkv": 1}, "alpha_pattern": {"blocks.1.attn.qkv": 1, "qkv": 4}},
    ],
    "transformers": [
        {"layers_to_transform": [1], "layers_pattern": "layers"},
        {"use_rslora": True, "rank_pattern": {"v_proj": 5}},
        {"rank_pattern": {"q_proj": 4, "v_proj": 1}, "alpha_pattern": {"v_proj": 2}, "use_rslora": True},
        {"target_modules": ["q_proj", "v_proj", "fc1"], "exclude_modules": ["vit.layers.1.mlp.fc1"]},
    ],
}


def values_of(field: str, default: Any, base: Base) -> list:
    if field in VALUES or field in VALUES_OF[base.name]:
        return VALUES.get(field) or VALUES_OF[base.name][field]
    match default:
        case bool():
            return [not default]
        case int() | float():
            return [default * 2]
        case dict() | None:
            return [{"a": 1}]
        case _:
            return ["other"]


def defaults() -> dict[str, Any]:
    missing = dataclasses.MISSING
    fields = {
        f.name: f.default if f.default is not missing else f.default_factory() for f in dataclasses.fields(LoraConfig)
    }
    return fields | {"no_such_field": None}


def make_adapter(base: Base, folder: Path, settings: dict[str, Any]) -> PeftModel:
    """An adapter that looks trained, saved by PEFT."""
    known = {name: value for name, value in settings.items() if name != "base_model_name_or_path"}
    model = get_peft_model(base.make(), LoraConfig(**copy.deepcopy(known)))
    generator = torch.Generator().manual_seed(10)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name or "modules_to_save" in name:
                p.copy_(torch.empty(p.shape).uniform_(-0.4, 0.4, generator=generator))
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    return model


def change(path: Path, changed: dict[str, Any]) -> None:
    content = json.loads(path.read_text()) | changed
    write(path, {name: value for name, value in content.items() if value != ABSENT})


def of_peft(base: Base, folder: Path) -> Right:
    """What PEFT makes of the very files."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = PeftModel.from_pretrained(base.make(), folder)
        is_partial = any("missing adapter keys" in str(warning.message) for warning in caught)
        return Right(base.answers(model), remark=PARTIAL if is_partial else "")
    except Exception as error:  # whatever it fails with, it fails
        return Right.failed(error)


def ask(
    kind: str,
    name: str,
    base: Base,
    adapter: Path,
    right: Right,
    melo: Melo,
    pictures: list[Path],
    names: tuple[str, ...] = (),
    warns: tuple[str, ...] = (),
) -> Row:
    warns = warns or (("note: ",) if right.remark == PARTIAL else ())
    plugin = adapter.parent / "plugin.safetensors"
    plugin.unlink(missing_ok=True)
    imported = melo(
        "plugin", "import", adapter, "--backbone", base.folder, "--task", "t", "--classes", "a,b,c", "--out", plugin
    )
    if imported.code != 0:
        return judge(kind, name, right, imported, names, warns)
    answer = melo("predict", "--backbone", base.folder, "--plugin", plugin, *pictures, "--json")
    answer.err = imported.err + answer.err
    return judge(kind, name, right, answer, names, warns)


def settings_of_peft(base: Base, folder: Path, melo: Melo, pictures: list[Path]) -> Iterator[Row]:
    """Each setting in an adapter that was made with it, and written into the JSON of one that was made without."""
    usual, adapter = folder / "usual", folder / "adapter"
    make_adapter(base, usual, base.settings)
    kind = f"{CONFIG} of PEFT: {base.name}"
    tried = [{}, *TOGETHER[base.name]]
    for field, default in defaults().items():
        tried += [{field: value} for value in [*values_of(field, default, base), None, ABSENT]]
    for changed in tried:
        name = ", ".join(f"{field}: {json.dumps(value)}" for field, value in changed.items()) or "as it is saved"
        warns = ("other/model",) if "other/model" in changed.values() else ()
        names = (*changed, "lora_A", "classifier", "frozen backbone", "rank")
        try:
            make_adapter(base, adapter, base.settings | {k: v for k, v in changed.items() if v != ABSENT})
        except Exception:  # no such adapter can be made
            made = False
        else:
            made = True
            change(adapter / CONFIG, {k: v for k, v in changed.items() if k == "base_model_name_or_path"})
            yield ask(kind, name, base, adapter, of_peft(base, adapter), melo, pictures, names, warns)
        shutil.rmtree(adapter, ignore_errors=True)
        shutil.copytree(usual, adapter)
        change(adapter / CONFIG, changed)
        right = of_peft(base, adapter)
        if right.probabilities is None and (None in changed.values() or "task_type" in changed):
            reason = "it says what PEFT wraps around the model" if "task_type" in changed else "nothing is said"
            right = Right(of_peft(base, usual).probabilities, remark=f"is meant ({reason}); fails ({right.failure})")
        if changed or not made:
            yield ask(kind, f"{name}, in the JSON alone", base, adapter, right, melo, pictures, names, warns)


Tensors = dict[str, torch.Tensor]


def rename(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name.replace(old, new): tensor for name, tensor in tensors.items()}


def drop(part: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if part not in name}


def cast(dtype: torch.dtype) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: tensor.to(dtype) for name, tensor in tensors.items()}


def add(name: str, *shape: int) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {name: torch.ones(shape)}


def second(tensors: Tensors) -> Tensors:
    both = ((name, tensor, part) for name, tensor in tensors.items() for part in ("default", "second"))
    return {
        name.replace(".weight", f".{part}.weight") if "lora_" in name else name: tensor * (1 + (part == "second"))
        for name, tensor, part in both
    }


IN_FRONT = "base_model.model."
# name: (what is done to the tensors, whether the adapter as it was is meant, what a refusal names)
FORMS: dict[str, tuple[Callable[[Tensors], Tensors], bool, tuple[str, ...]]] = {
    "names with .default.": (
        lambda t: {n.replace(".weight", ".default.weight") if "lora_" in n else n: x for n, x in t.items()},
        True,
        (),
    ),
    "classifier under modules_to_save.default": (
        rename(f"{IN_FRONT}head.", f"{IN_FRONT}head.modules_to_save.default."),
        True,
        (),
    ),
    "classifier under modules_to_save": (rename(f"{IN_FRONT}head.", f"{IN_FRONT}head.modules_to_save."), True, ()),
    "original_module beside": (add(f"{IN_FRONT}head.original_module.weight", CLASSES, WIDTH), True, ()),
    "two adapters in one file": (second, False, ("second", "default", "lora_A")),
    "without base_model.model.": (rename(IN_FRONT, ""), True, (IN_FRONT, "lora_A")),
    "with module. in front": (rename(IN_FRONT, f"{IN_FRONT}module."), False, ("module.",)),
    "all behind _orig_mod.": (rename(IN_FRONT, f"{IN_FRONT}_orig_mod."), False, ("_orig_mod.",)),
    "float16": (cast(torch.float16), False, ()),
    "bfloat16": (cast(torch.bfloat16), False, ()),
    "float64": (cast(torch.float64), False, ("F64",)),
    "no classifier": (drop("head."), False, ("classifier", "head")),
    "no bias of the classifier": (drop("head.bias"), False, ("head.bias", "bias")),
    "no lora_B of one block": (drop("blocks.1.attn.qkv.lora_B"), False, ("lora_B",)),
    "no update of one block": (drop("blocks.1."), False, ("blocks.1",)),
    "a stray tensor": (add("stray.weight", 3), False, ("stray.weight",)),
    "weights of the backbone beside": (add(f"{IN_FRONT}norm.weight", WIDTH), False, ("norm.weight",)),
    "lora_magnitude_vector beside": (
        add(f"{IN_FRONT}blocks.0.attn.qkv.lora_magnitude_vector.weight", 3 * WIDTH),
        False,
        ("lora_magnitude_vector",),
    ),
    "lora_embedding beside": (
        add(f"{IN_FRONT}blocks.0.attn.qkv.lora_embedding_A", 2, WIDTH),
        False,
        ("lora_embedding",),
    ),
    "not a number": (lambda t: t | {f"{IN_FRONT}head.bias": torch.full((CLASSES,), torch.nan)}, False, ("head.bias",)),
}


def forms(base: Base, folder: Path, melo: Melo, pictures: list[Path]) -> Iterator[Row]:
    usual, adapter = folder / "usual", folder / "adapter"
    kind = "files of PEFT"
    make_adapter(base, usual, base.settings)
    for name, (changed, is_meant, names) in FORMS.items():
        for pickled in (False, True):
            make_adapter(base, adapter, base.settings)
            tensors = changed(load_file(adapter / TENSORS))
            if pickled:
                (adapter / TENSORS).unlink()
                torch.save(tensors, adapter / "adapter_model.bin")
            else:
                save_file(tensors, adapter / TENSORS)
            right = of_peft(base, adapter)
            if right.probabilities is None and is_meant:
                right = Right(of_peft(base, usual).probabilities, remark=f"is meant; PEFT fails ({right.failure})")
            yield ask(
                kind, f"{name}, {'.bin' if pickled else '.safetensors'}", base, adapter, right, melo, pictures, names
            )
    yield from several(kind, base, folder, melo, pictures)


def several(kind: str, base: Base, folder: Path, melo: Melo, pictures: list[Path]) -> Iterator[Row]:
    """Two adapters of one model, a folder each; both files of tensors side by side; files that are missing."""
    model = make_adapter(base, folder / "one", base.settings)
    model.add_adapter("second", LoraConfig(**base.settings | {"r": 4}))
    both = folder / "both"
    shutil.rmtree(both, ignore_errors=True)
    model.save_pretrained(both)
    for path in (both, both / "second"):
        yield ask(
            kind, f"two adapters, {path.relative_to(both.parent)}", base, path, of_peft(base, path), melo, pictures
        )
    make_adapter(base, both, base.settings)
    torch.save({name: tensor * 2 for name, tensor in load_file(both / TENSORS).items()}, both / "adapter_model.bin")
    yield ask(kind, ".safetensors and .bin", base, both, of_peft(base, both), melo, pictures)
    for missing in (TENSORS, CONFIG):
        make_adapter(base, both, base.settings)
        (both / "adapter_model.bin").unlink(missing_ok=True)
        (both / missing).unlink()
        yield ask(kind, f"no {missing}", base, both, of_peft(base, both), melo, pictures, (missing,))
    make_adapter(base, both, base.settings)
    (both / CONFIG).write_text("\ufeff" + (both / CONFIG).read_text(), encoding="utf-8")
    meant = Right(of_peft(base, folder / "one").probabilities, remark="is meant; PEFT fails on the byte order mark")
    yield ask(kind, f"{CONFIG} with a byte order mark", base, both, meant, melo, pictures)


def cases(folder: Path, melo: Melo) -> Iterator[Row]:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("timm").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    pictures = write_pictures(folder)
    bases = [timm_base(folder / "timm", pictures), hf_base(folder / "hf", pictures)]
    for base in bases:
        yield from settings_of_peft(base, folder, melo, pictures)
    yield from forms(bases[0], folder, melo, pictures)
