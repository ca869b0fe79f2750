"""Tiny random models of every family that melo reads, saved as their own libraries save them, with the logits they give.

    python tools/golden/families.py            writes crates/interop/tests/golden/families/<case>/ and <case>.safetensors
    python tools/golden/families.py --table    runs `melo backbone verify` on each and prints the table of docs/interop.md (with --melo, of another binary)

Pinned versions: families-requirements.txt. Seeds are fixed; one CPU thread, f32.
"""

import argparse
import functools
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import timm
import torch
import transformers as T
from safetensors.torch import save_file
from timm.layers import LayerNorm
from timm.models.beit import Beit
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer

torch.set_num_threads(1)
ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "crates/interop/tests/golden/families"
N, CLASSES = 2, 3
HF = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, image_size=16, patch_size=4)
IMAGENET = dict(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])


def randomize(model, seed):
    """Unlike an initialisation: no zero bias, no gamma of one, attention far from uniform."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if "norm" in name or "lambda" in name or "gamma" in name or "layrnorm" in name:
            p.data = (0.2 * noise + (1 if name.endswith(("weight", "lambda1", "gamma")) else 0)).contiguous()
        elif "relative_position" in name:
            p.data = 1.5 * noise
        elif p.ndim >= 2 and "token" not in name and "pos" not in name:
            p.data = noise / p[0].numel() ** 0.5 * 1.5
        else:
            p.data = 0.3 * noise
    return model.eval()


def images(size, seed):
    return torch.randn(N, 3, size, size, generator=torch.Generator().manual_seed(seed))


def finish(folder, pixels, logits, **others):
    tensors = {"pixels": pixels, "logits": logits.detach()} | others
    save_file({k: v.contiguous() for k, v in tensors.items()}, OUT / f"{folder.name}.safetensors")


def fresh(name):
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def hf_processor(folder, **fields):
    crop = dict(do_center_crop="crop_size" in fields)
    spec = dict(do_resize=True, resample=3, rescale_factor=1 / 255, **crop, **(IMAGENET | fields))
    (folder / "preprocessor_config.json").write_text(json.dumps(spec))


def answers(model, pixels, **call):
    """Logits of a classifier, else what a model's own users take as its feature."""
    out = model(pixel_values=pixels, **call)
    for name in ("logits", "image_embeds", "pooler_output"):
        if getattr(out, name, None) is not None:
            return getattr(out, name)
    return out.last_hidden_state[:, 0]


def hf(name, model, seed, size=16, sharded=False, form="safetensors", tower=None, processor=None, **call):
    folder = fresh(name)
    model = randomize(model, seed)
    pixels = images(size, seed)
    with torch.no_grad():
        logits = answers(getattr(model, tower) if tower else model, pixels, **call)
    if form == "bin":
        model.config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    elif form == "names":
        # The names of the modules themselves, as adapters are named and as later files may be.
        model.config.save_pretrained(folder)
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors")
    else:
        model.save_pretrained(folder, max_shard_size="30KB" if sharded else "5GB")
    kind = {"dinov3_vit": "DINOv3ViTImageProcessorFast", "beit": "BeitImageProcessor"}.get(model.config.model_type)
    usual = dict(size={"height": 16, "width": 16}) | (dict(image_processor_type=kind) if kind else {})
    hf_processor(folder, **(processor or usual))
    finish(folder, pixels, logits)


def timm_json(folder, name, size, **fields):
    spec = dict(
        architecture=name,
        global_pool=fields.pop("global_pool", "token"),
        pretrained_cfg=dict(
            input_size=[3, size, size], interpolation="bicubic", crop_pct=0.9, crop_mode="center", mean=[0.5] * 3, std=[0.5] * 3
        ),
        model_args=dict(num_heads=3) | fields,
    )
    (folder / "config.json").write_text(json.dumps(spec))


def of_timm(name, seed, size=16, make=VisionTransformer, form="safetensors", wrap=None, described=None, **arguments):
    folder = fresh(name)
    arguments = dict(img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=CLASSES) | arguments
    model = randomize(make(**arguments), seed)
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    pixels = images(size, seed)
    if size != 16 and not isinstance(model, VisionTransformer):
        run = make(**(arguments | dict(img_size=size))).eval()
        filters = timm.models.eva if isinstance(model, Eva) else timm.models.beit
        run.load_state_dict(filters.checkpoint_filter_fn(dict(state), run))
    elif size != 16:
        run = make(**(arguments | dict(img_size=size))).eval()
        run.load_state_dict(timm.models.vision_transformer.checkpoint_filter_fn(dict(state), run))
    else:
        run = model
    with torch.no_grad():
        logits = run(pixels)
    if form == "safetensors":
        save_file(state, folder / "model.safetensors")
    elif form == "pth":
        torch.save(wrap(state) if wrap else state, folder / "checkpoint.pth")
    timm_json(folder, name, 16, **(described or {}))
    finish(folder, pixels, logits)


def google(name, seed):
    """The arrays of `vision_transformer`, made from a timm model as timm's own reader takes them apart."""
    folder = fresh(name)
    model = randomize(VisionTransformer(img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=CLASSES), seed)
    p = {k: v.detach().numpy() for k, v in model.state_dict().items()}
    d, h = 24, 3
    out = {
        "cls": p["cls_token"],
        "embedding/kernel": p["patch_embed.proj.weight"].transpose(2, 3, 1, 0),
        "embedding/bias": p["patch_embed.proj.bias"],
        "Transformer/posembed_input/pos_embedding": p["pos_embed"],
        "Transformer/encoder_norm/scale": p["norm.weight"],
        "Transformer/encoder_norm/bias": p["norm.bias"],
        "head/kernel": p["head.weight"].T,
        "head/bias": p["head.bias"],
    }
    for i in range(2):
        there, here = f"Transformer/encoderblock_{i}/", f"blocks.{i}."
        for flax, ours in (("LayerNorm_0", "norm1"), ("LayerNorm_2", "norm2")):
            out[f"{there}{flax}/scale"] = p[f"{here}{ours}.weight"]
            out[f"{there}{flax}/bias"] = p[f"{here}{ours}.bias"]
        attention = f"{there}MultiHeadDotProductAttention_1/"
        for j, part in enumerate(("query", "key", "value")):
            out[f"{attention}{part}/kernel"] = p[f"{here}attn.qkv.weight"][j * d : (j + 1) * d].T.reshape(d, h, d // h)
            out[f"{attention}{part}/bias"] = p[f"{here}attn.qkv.bias"][j * d : (j + 1) * d].reshape(h, d // h)
        out[f"{attention}out/kernel"] = p[f"{here}attn.proj.weight"].T.reshape(h, d // h, d)
        out[f"{attention}out/bias"] = p[f"{here}attn.proj.bias"]
        for flax, ours in (("MlpBlock_3/Dense_0", "mlp.fc1"), ("MlpBlock_3/Dense_1", "mlp.fc2")):
            out[f"{there}{flax}/kernel"] = p[f"{here}{ours}.weight"].T
            out[f"{there}{flax}/bias"] = p[f"{here}{ours}.bias"]
    np.savez(folder / "ViT-tiny.npz", **{k: np.ascontiguousarray(v) for k, v in out.items()})
    # timm's own reader must agree that this is what Google writes.
    again = VisionTransformer(img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=CLASSES).eval()
    timm.models.vision_transformer._load_weights(again, str(folder / "ViT-tiny.npz"))
    pixels = images(16, seed)
    with torch.no_grad():
        logits = again(pixels)
        assert torch.allclose(logits, model(pixels), atol=1e-5)
    finish(folder, pixels, logits)


def open_clip(name, seed):
    """The vision tower of open_clip's files: names of OpenAI's, `proj` on the class token."""
    folder = fresh(name)
    make = dict(img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=CLASSES, pre_norm=True)
    model = randomize(VisionTransformer(**make, norm_layer=torch.nn.LayerNorm), seed)
    model.head.bias.data.zero_()
    model.patch_embed.proj.bias = None
    p = model.state_dict()
    out = {
        "visual.class_embedding": p["cls_token"][0, 0],
        "visual.positional_embedding": p["pos_embed"][0],
        "visual.conv1.weight": p["patch_embed.proj.weight"],
        "visual.proj": p["head.weight"].T,
    }
    for theirs, ours in (("ln_pre", "norm_pre"), ("ln_post", "norm")):
        for kind in ("weight", "bias"):
            out[f"visual.{theirs}.{kind}"] = p[f"{ours}.{kind}"]
    for i in range(2):
        there, here = f"visual.transformer.resblocks.{i}.", f"blocks.{i}."
        modules = (("ln_1", "norm1"), ("ln_2", "norm2"), ("attn.out_proj", "attn.proj"), ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2"))
        for kind in ("weight", "bias"):
            out[f"{there}attn.in_proj_{kind}"] = p[f"{here}attn.qkv.{kind}"]
            for theirs, ours in modules:
                out[f"{there}{theirs}.{kind}"] = p[f"{here}{ours}.{kind}"]
    out |= {"logit_scale": torch.ones(()), "text_projection": torch.ones(2, 2), "token_embedding.weight": torch.ones(2, 2)}
    save_file({k: v.contiguous() for k, v in out.items()}, folder / "open_clip_model.safetensors")
    timm_json(folder, name, 16)
    with torch.no_grad():
        finish(folder, images(16, seed), model(images(16, seed)))


def dino_v2_of_facebook(name, seed):
    """Facebook's own DINOv2 giant: `w12` and `w3`, a mask token, positions for the class token."""
    folder = fresh(name)
    model = randomize(
        VisionTransformer(
            img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=0, init_values=1e-5,
            mlp_layer=timm.layers.SwiGLUPacked, act_layer=torch.nn.SiLU, mlp_ratio=2.66667 * 2,
        ),
        seed,
    )
    names = {"fc1": "w12", "fc2": "w3"}
    state = {}
    for key, value in model.state_dict().items():
        for ours, theirs in names.items():
            key = key.replace(f"mlp.{ours}", f"mlp.{theirs}")
        state[key] = value.contiguous()
    state["mask_token"] = torch.zeros(1, 24)
    torch.save({"teacher": {f"backbone.{k}": v for k, v in state.items()}, "iteration": 7}, folder / "checkpoint.pth")
    timm_json(folder, name, 16)
    pixels = images(16, seed)
    with torch.no_grad():
        finish(folder, pixels, model(pixels))


def encoder(name, seed, architecture, model_args, statistics, form="pytorch_model.bin", wrap=lambda state: state, pool=None, **make):
    """An encoder as its authors publish it: the JSON of their repository with the sizes of a tiny model, and what they pass besides."""
    folder = fresh(name)
    sizes = dict(img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=0)
    model = randomize(VisionTransformer(**(sizes | model_args | make)), seed)
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    if form.endswith(".safetensors"):
        save_file(state, folder / form)
    else:
        torch.save(wrap(state), folder / form)
    mean, std = statistics
    cfg = dict(
        tag=name, custom_load=False, input_size=[3, 16, 16], fixed_input_size=True, interpolation="bicubic", crop_pct=1.0,
        crop_mode="center", mean=mean, std=std, num_classes=0, pool_size=None, first_conv="patch_embed.proj", classifier="head",
    )
    spec = dict(architecture=architecture, num_classes=0, num_features=24, global_pool=model_args.get("global_pool", "token"))
    (folder / "config.json").write_text(json.dumps(spec | dict(model_args=sizes | model_args, pretrained_cfg=cfg)))
    pixels = images(16, seed)
    with torch.no_grad():
        tokens = model.forward_features(pixels)
        prefix = model.num_prefix_tokens
        both = torch.cat([tokens[:, 0], tokens[:, prefix:].mean(1)], 1)
        finish(folder, pixels, model.forward_head(tokens) if model.global_pool else tokens[:, 0], tokenavg=both)


def mae_of_facebook(state, decoder=8):
    """A checkpoint of MAE's pre-training, as RETFound's is: decoder, optimizer, scaler and arguments beside the encoder."""
    rest = {
        "mask_token": torch.zeros(1, 1, decoder), "decoder_pos_embed": torch.zeros(1, 17, decoder),
        "decoder_embed.weight": torch.zeros(decoder, 24), "decoder_embed.bias": torch.zeros(decoder),
        "decoder_blocks.0.norm1.weight": torch.zeros(decoder), "decoder_norm.weight": torch.zeros(decoder),
        "decoder_pred.weight": torch.zeros(48, decoder), "decoder_pred.bias": torch.zeros(48),
    }
    optimizer = {"state": {0: {"step": 3, "exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
    arguments = argparse.Namespace(model="mae_vit_large_patch16", mask_ratio=0.75, norm_pix_loss=True)
    return {"model": state | rest, "optimizer": optimizer, "epoch": 799, "scaler": {"scale": 65536.0}, "args": arguments}


def open_clip_of_timm(name, seed):
    """BiomedCLIP's layout: a trunk of timm's, a projection, another text tower, and open_clip's own JSON."""
    folder = fresh(name)
    # A name says the heads of its own width alone: timm's smallest.
    model = randomize(VisionTransformer(img_size=16, patch_size=4, embed_dim=64, depth=1, num_heads=2, mlp_ratio=0.5, num_classes=0), seed)
    state = {f"visual.trunk.{k}": v.contiguous() for k, v in model.state_dict().items()}
    state |= {"visual.head.proj.weight": torch.ones(8, 64), "logit_scale": torch.ones(())}
    state |= {"text.transformer.embeddings.word_embeddings.weight": torch.ones(4, 8), "text.proj.0.weight": torch.ones(8, 8)}
    torch.save(state, folder / "open_clip_pytorch_model.bin")
    vision = dict(timm_model_name="test_vit", timm_model_pretrained=False, timm_pool="", timm_proj="linear", image_size=16)
    text = dict(hf_model_name="microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract", hf_proj_type="mlp", hf_pooler_type="cls_last_hidden_state_pooler", context_length=256)
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    spec = dict(model_cfg=dict(embed_dim=512, vision_cfg=vision, text_cfg=text), preprocess_cfg=dict(mean=mean, std=std))
    (folder / "open_clip_config.json").write_text(json.dumps(spec))
    pixels = images(16, seed)
    with torch.no_grad():
        finish(folder, pixels, model(pixels))


# What timm's named models of these families have beside their sizes.
DINOV3 = dict(
    qkv_bias=False, init_values=1e-5, rope_type="dinov3", rope_temperature=100, rope_rotate_half=True, use_rot_pos_emb=True,
    use_abs_pos_emb=False, num_reg_tokens=4, use_fc_norm=False,
)
EVA02 = dict(mlp_ratio=4 * 2 / 3, swiglu_mlp=True, use_rot_pos_emb=True, ref_feat_shape=(4, 4))


def eva(name, seed, size=16, eps=1e-6, **arguments):
    """timm's `Eva`: heads of width 8, of which rotary positions take four values each way."""
    said = {k: v for k, v in arguments.items()} | dict(norm_eps=eps)
    of_timm(
        name, seed, size, make=lambda **all: Eva(**all, norm_layer=functools.partial(LayerNorm, eps=eps)),
        described=said | dict(global_pool=arguments.get("global_pool", "avg")), **arguments,
    )


def beit(name, seed, size=16, **arguments):
    of_timm(
        name, seed, size, make=Beit, described=dict(global_pool="avg") | arguments,
        **(dict(use_abs_pos_emb=False, use_rel_pos_bias=True, init_values=0.1, qkv_bias=True) | arguments),
    )


def dino_v3_of_facebook(name, seed, **arguments):
    """Facebook's own DINOv3: one bias whose mask leaves out that of keys, storage tokens, periods; a SwiGLU of three matrices."""
    folder = fresh(name)
    make = dict(img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=0, global_pool="token")
    model = randomize(Eva(**(make | DINOV3 | dict(qkv_bias=True) | arguments), norm_layer=functools.partial(LayerNorm, eps=1e-5)), seed)
    names = {"reg_token": "storage_tokens", "gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma"}
    names |= {"mlp.fc1_g": "mlp.w1", "mlp.fc1_x": "mlp.w2"} | ({"mlp.fc2": "mlp.w3"} if "swiglu_mlp" in arguments else {})
    state, filler = {}, torch.Generator().manual_seed(seed)
    for key, value in model.state_dict().items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs)
        if "_bias" not in key:
            state[key] = value.contiguous()
    for i, block in enumerate(model.blocks):
        # What the mask leaves out is not zero in the file.
        k = torch.randn(24, generator=filler)
        state[f"blocks.{i}.attn.qkv.bias"] = torch.cat([block.attn.q_bias, k, block.attn.v_bias]).detach()
        state[f"blocks.{i}.attn.qkv.bias_mask"] = torch.cat([torch.ones(24), torch.zeros(24), torch.ones(24)])
    state |= {"mask_token": torch.zeros(1, 24), "rope_embed.periods": model.rope.periods.to(torch.bfloat16)}
    torch.save(state, folder / "dinov3_vits16_pretrain.pth")
    timm_json(folder, "", 16)
    described = json.loads((folder / "config.json").read_text())
    # Heads, positions and epsilon follow from the weights.
    del described["model_args"], described["architecture"]
    (folder / "config.json").write_text(json.dumps(described))
    pixels = images(16, seed)
    with torch.no_grad():
        finish(folder, pixels, model(pixels))


def pooling():
    """Other pooling than the class token's."""
    gap = dict(class_token=False, global_pool="avg", fc_norm=False)
    of_timm("timm-gap", 50, **gap, described=gap)
    of_timm("timm-gap-reg4", 51, **gap, reg_tokens=4, no_embed_class=True, init_values=1e-5, described=gap)
    siglip = dict(class_token=False, global_pool="map", act_layer="gelu_tanh")
    of_timm("timm-siglip", 52, **siglip, described=siglip)
    of_timm("timm-siglip-at-24px", 53, size=24, **siglip, described=siglip)
    of_timm("timm-qk-norm", 54, qk_norm=True, described=dict(qk_norm=True))
    tower = dict(**HF, intermediate_size=48)
    text = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=50, max_position_embeddings=4)
    whole = dict(vision_config=tower, text_config=text | dict(bos_token_id=1, eos_token_id=2), num_labels=CLASSES)
    half = dict(image_mean=[0.5] * 3, image_std=[0.5] * 3)
    processor = dict(image_processor_type="SiglipImageProcessor", size={"height": 16, "width": 16}, **half)
    hf("hf-siglip-vision", T.SiglipVisionModel(T.SiglipVisionConfig(**tower)), 55, processor=processor)
    hf("hf-siglip", T.SiglipModel(T.SiglipConfig(**whole)), 56, tower="vision_model", processor=processor)
    hf("hf-siglip-classifier", T.SiglipForImageClassification(T.SiglipConfig(**whole)), 57, processor=processor)
    hf(
        "hf-siglip-at-24px", T.SiglipVisionModel(T.SiglipVisionConfig(**tower)), 58, size=24, processor=processor,
        interpolate_pos_encoding=True,
    )  # fmt: skip


def encoders():
    """What pathology, radiology and ophthalmology ask for; each reuses a family."""
    imagenet = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    swiglu = dict(mlp_layer=timm.layers.SwiGLUPacked, act_layer=torch.nn.SiLU)
    uni = dict(init_values=1e-5, dynamic_img_size=True)
    encoder("uni", 60, "vit_large_patch16_224", uni, imagenet)
    uni2 = uni | dict(mlp_ratio=2.66667 * 2, no_embed_class=True, reg_tokens=8)
    encoder("uni2-h", 61, "vit_giant_patch14_224", uni2, imagenet, **swiglu)
    virchow = dict(init_values=1e-5, mlp_ratio=5.3375, global_pool="", dynamic_img_size=True)
    encoder("virchow", 62, "vit_huge_patch14_224", virchow, imagenet, **swiglu)
    encoder("virchow2", 63, "vit_huge_patch14_224", virchow | dict(reg_tokens=4), imagenet, form="model.safetensors", **swiglu)
    optimus = dict(init_values=1e-5, dynamic_img_size=False, mlp_ratio=5.33334)
    own = ([0.707223, 0.578729, 0.703617], [0.211883, 0.230117, 0.177517])
    giant = dict(reg_tokens=4, no_embed_class=True, **swiglu)
    encoder("h-optimus", 64, "vit_giant_patch14_reg4_dinov2", optimus, own, **giant)
    gigapath = dict(in_chans=3, init_values=1e-5, mlp_ratio=5.33334)
    encoder("gigapath-tile", 65, "vit_giant_patch14_dinov2", gigapath, imagenet, **swiglu)
    encoder("retfound", 66, "vit_large_patch16_224", {}, imagenet, form="RETFound_cfp_weights.pth", wrap=mae_of_facebook)
    mean = dict(global_pool="avg", fc_norm=True)
    tuned = dict(form="checkpoint-best.pth", wrap=lambda state: {"model": state, "epoch": 3, "args": argparse.Namespace(nb_classes=2)})
    encoder("retfound-tuned", 67, "vit_large_patch16_224", mean, imagenet, **tuned)
    crop = dict(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}, image_processor_type="BitImageProcessor")
    grey = dict(image_mean=[0.5307] * 3, image_std=[0.2583] * 3)
    hf("rad-dino", T.Dinov2Model(T.Dinov2Config(**HF, mlp_ratio=2)), 68, processor=crop | grey)
    vit = T.ViTConfig(**HF, intermediate_size=48)
    hf("phikon", T.ViTModel(vit, add_pooling_layer=False), 69, processor=dict(size={"height": 16, "width": 16}, image_processor_type="ViTImageProcessor"))
    hf("phikon-v2", T.Dinov2Model(T.Dinov2Config(**HF, mlp_ratio=2)), 70, processor=crop)
    open_clip_of_timm("biomedclip", 71)


def others_positions():
    d3 = dict(**HF, intermediate_size=48, num_register_tokens=4)

    class Pooled(T.DINOv3ViTModel):
        def forward(self, **call):
            return T.modeling_outputs.ImageClassifierOutput(logits=super().forward(**call).pooler_output)

    hf("hf-dinov3", Pooled(T.DINOv3ViTConfig(**d3)), 50)
    gated = dict(use_gated_mlp=True, hidden_act="silu", query_bias=False, value_bias=False)
    hf("hf-dinov3-gated-at-24px", Pooled(T.DINOv3ViTConfig(**d3, **gated)), 51, size=24)
    hf("hf-dinov3-modules", Pooled(T.DINOv3ViTConfig(**d3, key_bias=True)), 52, form="names")
    eva("timm-dinov3", 53, eps=1e-5, **DINOV3)
    eva("timm-dinov3-qkvb-at-24px", 54, eps=1e-5, size=24, **DINOV3 | dict(qkv_bias=True, global_pool="token"))
    eva("timm-dinov3-plus", 55, eps=1e-5, **DINOV3 | dict(swiglu_mlp=True, swiglu_align_to=8, mlp_ratio=2.2))
    dino_v3_of_facebook("facebook-dinov3", 56)
    dino_v3_of_facebook("facebook-dinov3-plus", 57, swiglu_mlp=True, swiglu_align_to=8)
    bt = dict(**HF, intermediate_size=48, num_labels=CLASSES)
    hf("hf-beit", T.BeitForImageClassification(T.BeitConfig(**bt, use_relative_position_bias=True)), 60)
    hf("hf-beit-at-24px", T.BeitForImageClassification(T.BeitConfig(**bt, use_relative_position_bias=True)), 61, size=24)
    shared = dict(use_shared_relative_position_bias=True, use_absolute_position_embeddings=True, use_mean_pooling=False)
    hf("hf-beit-shared", T.BeitForImageClassification(T.BeitConfig(**bt, **shared, layer_scale_init_value=0.0)), 62)
    both = dict(use_relative_position_bias=True, use_shared_relative_position_bias=True)
    hf("hf-data2vec", T.Data2VecVisionForImageClassification(T.Data2VecVisionConfig(**bt, **both)), 63)
    beit("timm-beit", 64)
    beit("timm-beit-at-24px", 65, size=24)
    beit("timm-beit-at-8px", 66, size=8)
    beit("timm-beit-shared", 67, use_rel_pos_bias=False, use_shared_rel_pos_bias=True)
    eva("timm-eva", 70, mlp_ratio=4)
    eva("timm-eva02-small", 71, **EVA02)
    eva("timm-eva02-base-at-24px", 72, size=24, **EVA02 | dict(qkv_fused=False, scale_mlp=True))
    clip = dict(qkv_fused=False, scale_mlp=True, scale_attn_inner=True, global_pool="token")
    eva("timm-eva02-clip", 73, **EVA02 | clip)
    beit3 = dict(scale_attn_norm=True, scale_mlp_norm=True, global_pool="avg", fc_norm=True)
    of_timm("timm-beit3", 74, described=beit3, **beit3)


def generate():
    shutil.rmtree(OUT, ignore_errors=True)
    clip = dict(**HF, intermediate_size=48, projection_dim=CLASSES)
    vit = dict(**HF, intermediate_size=48, num_labels=CLASSES)
    d2 = dict(**HF, mlp_ratio=2, num_labels=CLASSES)
    hf("hf-vit", T.ViTForImageClassification(T.ViTConfig(**vit)), 1)
    hf("hf-vit-modules", T.ViTForImageClassification(T.ViTConfig(**vit)), 2, form="names")
    hf("hf-vit-bin", T.ViTForImageClassification(T.ViTConfig(**vit, qkv_bias=False)), 3, form="bin")
    hf("hf-vit-sharded", T.ViTForImageClassification(T.ViTConfig(**vit, hidden_act="gelu_new")), 4, sharded=True)
    hf("hf-vit-at-24px", T.ViTForImageClassification(T.ViTConfig(**vit)), 5, size=24, interpolate_pos_encoding=True)
    hf("hf-deit-distilled", T.DeiTForImageClassificationWithTeacher(T.DeiTConfig(**vit)), 6)
    hf("hf-deit", T.DeiTForImageClassification(T.DeiTConfig(**vit)), 7)
    hf("hf-dinov2", T.Dinov2ForImageClassification(T.Dinov2Config(**d2)), 8)
    hf("hf-dinov2-at-8px", T.Dinov2ForImageClassification(T.Dinov2Config(**d2)), 9, size=8)
    hf("hf-dinov2-giant", T.Dinov2ForImageClassification(T.Dinov2Config(**d2, use_swiglu_ffn=True)), 10)
    registers = T.Dinov2WithRegistersConfig(**d2, num_register_tokens=4)
    hf("hf-dinov2-registers", T.Dinov2WithRegistersForImageClassification(registers), 11)
    hf("hf-clip-vision", T.CLIPVisionModelWithProjection(T.CLIPVisionConfig(**clip)), 12)
    tower = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=50)
    whole = T.CLIPConfig(vision_config=clip, text_config=tower | dict(bos_token_id=1, eos_token_id=2), num_labels=CLASSES)
    hf("hf-clip-classifier", T.CLIPForImageClassification(whole), 13)
    of_timm("timm-augreg", 20)
    of_timm("timm-sam", 21, global_pool="token")
    of_timm("timm-at-24px", 22, size=24)
    of_timm("timm-mae-avg", 23, global_pool="avg", fc_norm=True, described=dict(global_pool="avg"))
    of_timm("timm-deit-distilled", 24, make=VisionTransformerDistilled, form="pth", wrap=lambda s: {"model": s})
    of_timm("timm-dino-pth", 25, form="pth")
    of_timm("timm-dinov2", 26, init_values=1e-5)
    of_timm("timm-dinov2-reg4", 27, init_values=1e-5, reg_tokens=4, no_embed_class=True)
    of_timm("timm-dinov2-reg4-at-8px", 28, size=8, init_values=1e-5, reg_tokens=4, no_embed_class=True)
    swiglu = dict(init_values=1e-5, mlp_layer=timm.layers.SwiGLUPacked, act_layer=torch.nn.SiLU, mlp_ratio=2.66667 * 2)
    of_timm("timm-dinov2-giant", 29, **swiglu)
    quick = dict(act_layer="quick_gelu")
    of_timm("timm-clip-quickgelu", 30, pre_norm=True, norm_layer=torch.nn.LayerNorm, described=quick, **quick)
    google("google-npz", 40)
    open_clip("open-clip", 41)
    dino_v2_of_facebook("facebook-dinov2-giant", 42)
    pooling()
    encoders()
    others_positions()


def table(melo):
    print("| family and file | blocks × width, details | largest difference of logits, relative |\n|---|---|---|")
    for folder in sorted(folder for folder in OUT.iterdir() if folder.is_dir()):
        found = subprocess.run(
            [melo, "backbone", "verify", folder, "--against", folder.with_suffix(".safetensors"), "--json"],
            capture_output=True, text=True,
        )
        if found.returncode:
            print(f"| {folder.name} | | {found.stderr.strip()} |")
            continue
        result = json.loads(found.stdout)
        c = result["config"]
        details = [f"{c['depth']} × {c['width']}", c["pool"], c["activation"]]
        details += [word for word in ("pre_norm", "distilled", "layer_scale", "swiglu", "qk_norm") if c.get(word)]
        details += [word for word in ("relative_positions", "attn_norm", "mlp_norm") if c.get(word)]
        details += ["no class token"] if c.get("class_token") is False else []
        details += ["no pos_embed"] if c.get("pos_embed") is False else []
        details += [f"rotary, {c['rotary']['pairs']}"] if c.get("rotary") else []
        details += [f"{c['registers']} registers"] if c.get("registers") else []
        print(f"| {folder.name} | {', '.join(details)} | {result['relative_difference']:.1e} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--melo", type=pathlib.Path, default=ROOT / "target/release/melo")
    arguments = parser.parse_args()
    sys.exit(table(arguments.melo) if arguments.table else generate())
