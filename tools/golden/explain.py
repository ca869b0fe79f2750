"""Writes crates/vit/tests/golden/explain.safetensors: what autograd on timm's attention says of the models of vit.py.

    pip install -r tools/golden/requirements.txt
    python tools/golden/vit.py                 # first: its files are the input
    python tools/golden/explain.py             # writes, then verifies
    python tools/golden/explain.py --verify    # holds the written file to the same in f64

The papers' t x t matrices are made whole here; the library carries one row through the blocks.
README.md says what the file holds. Letters: n images, t tokens, h heads, c classes.
"""

import argparse
import json

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import checkpoint_filter_fn
from vit import CASES as ALL_CASES
from vit import OUT, attach, build

FILE = OUT / "explain.safetensors"
# Of positions of other kinds, the laws of crates/vit hold heat maps to formulas in f64.
CASES = [case for case in ALL_CASES if not case.positions]
# Of the largest value of an image's patches, as in crates/train/tests/golden.rs.
TOLERANCE = 1e-4


def load(case, dtype):
    """The model with its plug-in, its head and its images."""
    tensors = {name: t for name, t in load_file(OUT / f"{case.name}.safetensors").items() if name != "labels"}
    model = build(case, case.run_size)
    own = {name.removeprefix("backbone."): t for name, t in tensors.items() if name.startswith("backbone.")}
    model.load_state_dict(checkpoint_filter_fn(own, model))
    model.to(dtype)
    p = {name: t.to(dtype) for name, t in tensors.items()}
    attach(case, model, p)
    return model, p


def attentions_of(case, model):
    """Makes every block's probabilities `[n, h, t, t]` part of the graph, and keeps them."""
    kept = []

    def keep(_module, _inputs, probabilities):
        probabilities.retain_grad()
        kept.append(probabilities)

    for block in model.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(keep)
    return kept


def read_rows(case, r):
    """The mean of the rows that the head reads, `[n, t, t]` to `[n, t]`."""
    prefix = 1 + case.distilled
    return (r[:, prefix:] if case.pool == "avg" else r[:, :prefix]).mean(1)


def rollout(case, attentions):
    r = torch.eye(attentions[0].shape[-1], dtype=attentions[0].dtype)
    for a in attentions:
        a = 0.5 * a.detach().mean(1) + 0.5 * torch.eye(a.shape[-1], dtype=a.dtype)
        r = a / a.sum(-1, keepdim=True) @ r
    return read_rows(case, r)


def gradient(case, attentions):
    """What attention carried: `R - I`, which differs from `R` in no patch of the class token's row."""
    r = torch.eye(attentions[0].shape[-1], dtype=attentions[0].dtype).expand(len(attentions[0]), -1, -1)
    for a in attentions:
        r = r + (a.grad * a.detach()).clamp(min=0).mean(1) @ r
    return read_rows(case, r - torch.eye(r.shape[-1], dtype=r.dtype))


def explain(case, dtype=torch.float32):
    model, p = load(case, dtype)
    attentions = attentions_of(case, model)
    tokens = model.forward_features(p["input"].requires_grad_(True))
    feature = tokens[:, :2].flatten(1) if case.distilled else model.forward_head(tokens, pre_logits=True)
    logits = F.linear(feature, p["plugin.head.weight"], p["plugin.head.bias"])
    by_class = []
    for c in range(logits.shape[1]):
        for a in attentions:
            a.grad = None
        logits[:, c].sum().backward(retain_graph=True)
        by_class.append(gradient(case, attentions))
    return {
        f"{case.name}.rollout": rollout(case, attentions),
        f"{case.name}.gradient": torch.stack(by_class, 1),
    }


def off(case, found, expected):
    """Largest difference, in shares of the largest value of any patch of its row `[t]`."""
    largest = expected[..., 1 + case.distilled :].abs().amax(-1, keepdim=True)
    assert (largest > 0).all()
    return ((found - expected).abs() / largest).max().item()


def verify():
    with safe_open(FILE, "pt") as file:
        assert json.loads(file.metadata()["golden"]) == {"cases": [case.name for case in CASES]}
        written = {name: file.get_tensor(name) for name in file.keys()}
    assert len(written) == 2 * len(CASES)
    for case in CASES:
        for name, expected in explain(case, torch.float64).items():
            error = off(case, written[name], expected)
            assert error < TOLERANCE / 10, f"{name}: f32 is off by {error:.1e}"
            print(f"{name}: {list(expected.shape)}, f32 is off by {error:.1e}")
        # A check that cannot fail is none: classes must differ, and the plug-in must matter.
        classes = written[f"{case.name}.gradient"]
        assert off(case, classes[:, 0], classes[:, 1]) > 100 * TOLERANCE, case.name


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--verify", action="store_true", help="check the written file instead of writing it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    if not args.verify:
        tensors = {name: t.contiguous() for case in CASES for name, t in explain(case).items()}
        save_file(tensors, FILE, metadata={"golden": json.dumps({"cases": [case.name for case in CASES]})})
    verify()


if __name__ == "__main__":
    main()
