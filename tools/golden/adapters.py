"""Writes crates/interop/tests/golden: tiny backbones, adapters by PEFT and in the authors' form, and PyTorch's logits with them.

    pip install -r tools/golden/adapters-requirements.txt
    python tools/golden/adapters.py                  # writes everything
    python tools/golden/adapters.py --verify DIR     # reads what melo wrote with the real libraries, compares logits

DIR is what the Rust tests of crates/interop leave in cargo's folder for tests (target/tmp/adapters). README.md says what each file holds.

Letters: n images, d width, r rank, c classes. Weights are [out, in].
"""

import argparse
import copy
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoImageProcessor, AutoModelForImageClassification, ViTConfig, ViTForImageClassification
from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher

OUT = Path(__file__).parents[2] / "crates/interop/tests/golden"
N, SIZE, PATCH, D, DEPTH, HEADS, HIDDEN, CLASSES = 3, 16, 8, 16, 2, 2, 24, 3
TIMM = dict(img_size=SIZE, patch_size=PATCH, embed_dim=D, depth=DEPTH, num_heads=HEADS, mlp_ratio=HIDDEN / D)
TOLERANCE = 1e-4  # of the largest logit; f32 sums in another order differ by about 1e-6
STATISTICS = dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], crop_pct=0.875, interpolation="bicubic")


def randomise(model, seed):
    """Weights at which every part matters: no bias zero, no gamma one, matrices that keep the variance."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            values = torch.empty(p.shape).uniform_(-1, 1, generator=generator)
            if p.dim() > 1 and name.endswith("weight"):
                p.copy_(values * (3 / p[0].numel()) ** 0.5)
            else:
                p.copy_(values * 0.5 + float("norm" in name and name.endswith("weight")))
    return model.eval()


def timm_model(classes=CLASSES):
    return randomise(timm.create_model("vit_base_patch16_224", num_classes=classes, **TIMM), 1)


def deit_model(classes=CLASSES):
    return randomise(timm.create_model("deit_base_distilled_patch16_224", num_classes=classes, **TIMM), 2)


def hf_model(classes=CLASSES):
    config = ViTConfig(
        hidden_size=D, num_hidden_layers=DEPTH, num_attention_heads=HEADS, intermediate_size=HIDDEN,
        image_size=SIZE, patch_size=PATCH, num_labels=classes,
    )  # fmt: skip
    return randomise(ViTForImageClassification(config), 3)


MODELS = {"timm": timm_model, "deit": deit_model, "hf": hf_model}
HF_MODULES = {  # new: timm's
    "vit.embeddings.cls_token": "cls_token",
    "vit.embeddings.position_embeddings": "pos_embed",
    "vit.embeddings.patch_embeddings.projection": "patch_embed.proj",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.o_proj": "attn.proj",
    "vit.layernorm": "norm",
    "vit.layers": "blocks",
}
OLD_NAMES = {  # modules of transformers 5: before
    "vit.layers.": "vit.encoder.layer.",
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}


def renamed(name, table):
    for old, new in table.items():
        name = name.replace(old, new)
    return name


def twin(model):
    """A Hugging Face ViT's tensors under timm's names, q, k and v fused, without the classifier."""
    p = model.state_dict()
    tensors = {}
    for name, w in p.items():
        if "_proj" in name and "o_proj" not in name:
            if "q_proj" in name:
                qkv = [p[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
                tensors[renamed(name, HF_MODULES).replace("attention.q_proj", "attn.qkv")] = torch.cat(qkv)
        elif not name.startswith("classifier"):
            tensors[renamed(name, HF_MODULES)] = w
    return tensors


def logits_of(model, x):
    with torch.no_grad():
        y = model(x)
    return y if isinstance(y, torch.Tensor) else y.logits


def save_backbone(name, tensors, eps):
    arguments = {"num_heads": HEADS, "patch_size": PATCH} | ({} if eps == 1e-6 else {"norm_eps": eps})
    architecture = {"deit": "deit_base_distilled_patch16_224"}.get(name, "vit_base_patch16_224")
    description = {
        "architecture": architecture, "global_pool": "token", "model_args": arguments,
        "pretrained_cfg": {"input_size": [3, SIZE, SIZE]} | STATISTICS,
    }  # fmt: skip
    save_file({k: v.contiguous() for k, v in tensors.items()}, OUT / f"{name}.safetensors")
    (OUT / f"{name}.json").write_text(json.dumps(description, indent=1) + "\n")


# name: (model, settings of PEFT); "modules_to_save" is added.
ALL_TIMM = ["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"]
CASES = {
    "timm_qkv": ("timm", dict(r=3, lora_alpha=5, target_modules=["qkv"])),
    "timm_patterns": (
        "timm",
        dict(
            r=2, lora_alpha=3, target_modules=ALL_TIMM,
            rank_pattern={r"blocks\.1\.mlp\.fc[12]": 4, "attn.proj": 1}, alpha_pattern={"fc1": 7, "blocks.0.attn.qkv": 6},
        ),
    ),
    "timm_layers": (
        "timm", dict(r=2, lora_alpha=1, target_modules=["attn.proj", "fc1"], layers_to_transform=[1], layers_pattern=".*blocks"),
    ),
    "timm_regex": ("timm", dict(r=2, lora_alpha=3, target_modules=r"blocks\.[01]\.mlp\.fc2|blocks\.0\.attn\.qkv")),
    "deit_qkv": ("deit", dict(r=2, lora_alpha=3, target_modules=["qkv"])),
    "hf_new": ("hf", dict(r=3, lora_alpha=4, target_modules=["q_proj", "v_proj"], use_rslora=True)),
    "hf_old": ("hf", dict(r=2, lora_alpha=5, target_modules=["query", "value", "attention.output.dense"])),
    "hf_all_linear": ("hf", dict(r=2, lora_alpha=3, target_modules="all-linear")),
    "hf_rslora_patterns": (
        "hf",
        dict(
            r=4, lora_alpha=3, target_modules=["q_proj", "v_proj", "fc1"], use_rslora=True,
            rank_pattern={"layers.0.attention.v_proj": 1, "fc1": 2}, alpha_pattern={"q_proj": 2},
        ),
    ),
}  # fmt: skip
HEADS_OF = {"timm": ["head"], "deit": ["head", "head_dist"], "hf": ["classifier"]}


def make_peft(name, x):
    """PEFT's folder, and the logits with it."""
    family, settings = CASES[name]
    settings = copy.deepcopy(settings)
    old = name == "hf_old"
    if old:
        settings["target_modules"] = ["q_proj", "v_proj", "attention.o_proj"]
    model = get_peft_model(MODELS[family](), LoraConfig(modules_to_save=HEADS_OF[family], **settings))
    generator = torch.Generator().manual_seed(len(name) * 101)
    with torch.no_grad():
        for parameter, p in model.named_parameters():
            if "lora_" in parameter or "modules_to_save" in parameter:
                p.copy_(torch.empty(p.shape).uniform_(-0.4, 0.4, generator=generator))
    model.eval()
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    if isinstance(config["target_modules"], list):
        config["target_modules"].sort()
    if old:  # transformers 5 has no modules of these names: the same tensors, as transformers 4 named them
        tensors = load_file(folder / "adapter_model.safetensors")
        tensors = {renamed(k, OLD_NAMES): v for k, v in tensors.items()}
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        config["target_modules"] = CASES[name][1]["target_modules"]
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return logits_of(model, x)


class QueryValue(nn.Module):
    """timm's fused projection with `scale · B A x` added to q and v."""

    def __init__(self, qkv, pairs, scale):
        super().__init__()
        self.qkv, self.pairs, self.scale = qkv, pairs, scale

    def forward(self, x):
        y = self.qkv(x)
        for part, (a, b) in zip((0, 2), self.pairs):
            y = y + self.scale * F.pad(x @ a.T @ b.T, (part * D, (2 - part) * D))
        return y


def with_authors(tensors, alpha):
    """timm's model with the tensors of an authors' file."""
    model = timm_model()
    rank = len(tensors["w_a_000"])
    for i, block in enumerate(model.blocks):
        pairs = [(tensors[f"w_a_{2 * i + j:03}"], tensors[f"w_b_{2 * i + j:03}"]) for j in range(2)]
        block.attn.qkv = QueryValue(block.attn.qkv, pairs, alpha / rank)
    name = f"fc_{D}in_{CLASSES}out"
    weight = tensors.get(name, tensors.get(f"{name}_weight"))
    bias = tensors.get(f"{name}_bias", torch.zeros(CLASSES))
    with torch.no_grad():
        model.head.weight.copy_(weight)
        model.head.bias.copy_(bias)
    return model.eval()


AUTHORS_ALPHA = {"authors": 3.0, "unicad": 6.0}


def make_authors(name, x):
    generator = torch.Generator().manual_seed(len(name))
    rank = 4

    def random(*shape):
        return torch.empty(shape).uniform_(-0.4, 0.4, generator=generator)

    tensors = {}
    for i in range(2 * DEPTH):
        tensors |= {f"w_a_{i:03}": random(rank, D), f"w_b_{i:03}": random(D, rank)}
    head = f"fc_{D}in_{CLASSES}out"
    if name == "authors":
        tensors[head] = random(CLASSES, D)
    else:
        tensors |= {f"{head}_weight": random(CLASSES, D), f"{head}_bias": random(CLASSES)}
    save_file(tensors, OUT / f"{name}.safetensors")
    return logits_of(with_authors(tensors, AUTHORS_ALPHA[name]), x)


def generate():
    OUT.mkdir(parents=True, exist_ok=True)
    x = torch.empty(N, 3, SIZE, SIZE).uniform_(-2, 2, generator=torch.Generator().manual_seed(7))
    without_head = lambda model: {k: v for k, v in model.state_dict().items() if not k.startswith("head")}
    save_backbone("timm", without_head(timm_model()), 1e-6)
    save_backbone("deit", without_head(deit_model()), 1e-6)
    save_backbone("hf", twin(hf_model()), 1e-12)
    logits = {name: make_peft(name, x) for name in CASES} | {name: make_authors(name, x) for name in AUTHORS_ALPHA}
    save_file({"input": x} | {f"logits.{k}": v.contiguous() for k, v in logits.items()}, OUT / "logits.safetensors")
    # A check that cannot fail is none: without its updates, no case has these logits.
    for name, found in logits.items():
        family = CASES.get(name, ("timm",))[0]
        assert (found - logits_of(MODELS[family](), x)).abs().max() > 0.05, name
    print(f"{sum(f.stat().st_size for f in OUT.rglob('*') if f.is_file())} bytes in {OUT.name}")


# What melo wrote, read by the real libraries.


def close(what, found, expected):
    found = torch.as_tensor(np.asarray(found))
    error = ((found - expected).abs().max() / expected.abs().max()).item()
    assert found.shape == expected.shape and error <= TOLERANCE, f"{what}: off by {error:.1e} of the largest"
    print(f"{what}: {error:.1e}")
    return error


def base_of(family, layout):
    """The golden backbone under a layout's names, with a random classifier of the right size."""
    if layout == "timm":
        if family != "hf":
            return MODELS[family]()
        tensors = load_file(OUT / "hf.safetensors")
        model = timm.create_model(
            "vit_base_patch16_224", num_classes=CLASSES, norm_layer=lambda d, **_: nn.LayerNorm(d, eps=1e-12), **TIMM
        )
        missing = model.load_state_dict(tensors, strict=False)
        assert set(missing.missing_keys) == {"head.weight", "head.bias"} and not missing.unexpected_keys
        return model.eval()
    if family == "hf":
        return hf_model()
    config = DeiTConfig(
        hidden_size=D, num_hidden_layers=DEPTH, num_attention_heads=HEADS, intermediate_size=HIDDEN,
        image_size=SIZE, patch_size=PATCH, num_labels=CLASSES, layer_norm_eps=1e-6,
    )  # fmt: skip
    model = DeiTForImageClassificationWithTeacher(config)
    timm_tensors, tensors = load_file(OUT / "deit.safetensors"), {}
    names = {k.replace("vit.", "deit."): v for k, v in HF_MODULES.items()}
    names |= {"deit.embeddings.distillation_token": "dist_token"}
    for name, w in model.state_dict().items():
        theirs = renamed(name, names)
        if "_proj." in theirs:
            part = ["q_proj", "k_proj", "v_proj"].index(theirs.split(".")[-2])
            fused = ".".join(theirs.split(".")[:-2]).replace("attention", "attn") + ".qkv." + theirs.split(".")[-1]
            tensors[name] = timm_tensors[fused].chunk(3)[part]
        else:
            tensors[name] = w if "classifier" in name else timm_tensors[theirs]
    model.load_state_dict(tensors, strict=True)
    return model.eval()


def read_peft(folder, family, layout, x):
    model = PeftModel.from_pretrained(base_of(family, layout), folder).eval()
    return logits_of(model, x)


def read_timm(path, family, x):
    """By timm's own loader, strictly."""
    eps = {"hf": 1e-12}.get(family, 1e-6)
    arguments = dict(norm_layer=lambda d, **_: nn.LayerNorm(d, eps=eps)) if family == "hf" else {}
    config = json.loads((path / "config.json").read_text())
    if family != "hf":
        model = timm.create_model(f"local-dir:{path}", pretrained=True).eval()
        assert list(model.pretrained_cfg["mean"]) == STATISTICS["mean"], model.pretrained_cfg
        assert model.pretrained_cfg["crop_pct"] == STATISTICS["crop_pct"]
    else:
        given = {k: v for k, v in config["model_args"].items() if k != "norm_eps"} | arguments
        model = timm.create_model(config["architecture"], num_classes=config["num_classes"], **given)
        model.load_state_dict(load_file(path / "model.safetensors"), strict=True)
        model.eval()
    return logits_of(model, x)


def read_hf(path, x):
    model, info = AutoModelForImageClassification.from_pretrained(path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    assert list(model.config.id2label.values()) == [f"finding {i}" for i in range(CLASSES)], model.config.id2label
    processor = AutoImageProcessor.from_pretrained(path)
    size = {k: v for k, v in dict(processor.size).items() if v}
    crop = {k: v for k, v in dict(processor.crop_size).items() if v}
    assert size == {"shortest_edge": int(SIZE / STATISTICS["crop_pct"])}, size
    assert crop == {"height": SIZE, "width": SIZE}, crop
    assert np.allclose(processor.image_mean, STATISTICS["mean"]) and int(processor.resample) == 3
    return logits_of(model.eval(), x)


def read_onnx(path, x):
    import onnx
    import onnxruntime

    model = onnx.load(path)
    onnx.checker.check_model(path, full_check=True)
    properties = {p.key: p.value for p in model.metadata_props}
    card = json.loads(properties["melo.card"])
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits, probabilities = session.run(["logits", "probabilities"], {"pixels": x.numpy()})
    one = session.run(["logits"], {"pixels": x[:1].numpy()})[0]
    assert np.allclose(one, logits[:1], atol=1e-5), "the batch is open"
    scaled = torch.from_numpy(logits) / card["temperature"]
    expected = torch.sigmoid(scaled) if card["kind"] == "multi_label" else torch.softmax(scaled, -1)
    close(f"{path.name} probabilities", probabilities, expected)
    return logits


def verify_variants(folder):
    """Architectures that the golden backbones are not: melo's logits, computed without merging, are the reference."""
    ours = load_file(folder / "logits.safetensors")
    names = sorted(k.removeprefix("logits.") for k in ours if k.startswith("logits."))
    for name in names:
        expected = ours[f"logits.{name}"]
        close(f"{name}: ONNX", read_onnx(folder / f"{name}.onnx", ours["input"]), expected)
        # Positions of other kinds are not written in timm's names.
        if (folder / name).is_dir():
            model = timm.create_model(f"local-dir:{folder / name}", pretrained=True).eval()
            close(f"{name}: timm", logits_of(model, ours["input"]), expected)
    return len(names) + sum((folder / name).is_dir() for name in names)


def verify(folder):
    golden = load_file(OUT / "logits.safetensors")
    ours = load_file(folder / "logits.safetensors")
    x, checked = golden["input"], 0
    for name in sorted(k.removeprefix("logits.") for k in golden if k.startswith("logits.")):
        family = CASES.get(name, ("timm",))[0]
        expected = golden[f"logits.{name}"]
        close(f"{name}: melo", ours[f"logits.{name}"], expected)
        for path in sorted(folder.glob(f"{name}@*")):
            kind = path.name.split("@")[1]
            if kind.startswith("peft"):
                found = read_peft(path, family, kind.removeprefix("peft-"), x)
            elif kind == "merged-timm":
                found = read_timm(path, family, x)
            elif kind == "merged-hf":
                found = read_hf(path, x)
            elif kind == "onnx":
                found = read_onnx(path / "model.onnx", x)
            elif kind in ("authors", "unicad"):
                found = logits_of(with_authors(load_file(path / "adapter.safetensors"), AUTHORS_ALPHA[name]), x)
            else:
                sys.exit(f"{path.name}: not known")
            close(path.name, found, expected)
            checked += 1
    checked += verify_variants(folder.parent / "variants")
    assert checked, f"nothing in {folder}"
    print(f"{checked} exports agree with PyTorch")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--verify", type=Path, metavar="DIR", help="read what melo wrote instead of writing golden files")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    verify(args.verify) if args.verify else generate()


if __name__ == "__main__":
    main()
