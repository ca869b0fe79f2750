# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Is the plug-in as good as full fine-tuning?
#
# On the same splits: low-rank updates, a classifier alone, and all weights. Then the question that a reviewer asks of the difference. The
# images are generated, and the answer is about these images only: **yours** are where it says so.

# %%
import os
import tempfile
from pathlib import Path

import numpy as np

import melo_vit as melo

places = [Path.cwd(), *Path.cwd().parents]
here = [place / "assets" for place in places if (place / "assets/vit_small_formula.safetensors").is_file()]
assets = Path(os.environ.get("MELO_ASSETS", here[0] if here else "assets"))
work = Path(tempfile.mkdtemp(prefix="melo-compared-"))
backbone = melo.Backbone.load(assets / "vit_small_formula.safetensors")


# %% [markdown]
# ## Data
#
# Noise, with a patch that is finely woven where the label is 1 and coarsely where it is 0; two images a patient. One patient in ten is
# labelled wrongly, so that no method can be perfect.
#
# **Yours:** `images` an array or paths, `labels`, `patients`, and splits that were fixed beforehand.


# %%
def drawn(rng: np.random.Generator, label: int, side: int = 96) -> np.ndarray:
    image = rng.normal(100, 20, (side, side))
    y, x = rng.integers(0, side - 48, 2)
    cell = 3 if label else 8
    woven = np.indices((48, 48)) // cell
    image[y : y + 48, x : x + 48] += 25 * np.where(woven.sum(axis=0) % 2, 1, -1)
    return np.repeat(np.clip(image, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


rng = np.random.default_rng(0)
patients = np.arange(160) // 2
kind_of = rng.integers(0, 2, 80)
images = np.stack([drawn(rng, int(kind_of[patient])) for patient in patients])
wrong = rng.random(80) < 0.1
labels = (kind_of ^ wrong)[patients]
splits = np.where(patients < 32, "train", np.where(patients < 44, "val", "test"))

# %% [markdown]
# ## Three methods, one seed each
#
# Everything is chosen on the validation split; the test split is looked at once, below. Different methods want different learning rates:
# these are the defaults of `melo train`; with data of your own, choose them on the validation split too.

# %%
given = {"splits": splits, "groups": patients, "classes": ["coarse", "fine"], "epochs": 10, "progress": False}
plugins = {
    "lora": melo.train(backbone, images, labels, method="lora", **given),
    "linear": melo.train(backbone, images, labels, method="linear", **given),
    "full": melo.train(backbone, images, labels, method="full", backbone_out=work / "full.safetensors", **given),
}

# %% [markdown]
# ## The test split
#
# Scores of the same cases in the same order. Intervals are by patient: two images of one patient are no two cases.

# %%
held = splits == "test"
truth, of_patients = labels[held] == 1, patients[held]
scores, learned = {}, {}
for method, plugin in plugins.items():
    test = melo.evaluate(plugin, images[held], labels[held], groups=of_patients)
    scores[method] = test.probabilities[:, 1]
    value, low, high = melo.statistics.auc(scores[method], truth, groups=of_patients)
    trained = plugin.parameters + (plugin.backbone.parameters if method == "full" else 0)
    print(f"{method:7}{trained:>10,} trained numbers  AUC {value:.3f}, 95 % interval {low:.3f} to {high:.3f}")
    learned[method] = low > 0.5


# %% [markdown]
# ## The difference
#
# DeLong's test pairs the cases, but takes them as independent; the bootstrap draws patients. Where they disagree, believe the second.


# %%
def auc(scores: np.ndarray, truth: np.ndarray) -> float:
    positive, negative = scores[truth], scores[~truth]
    if not len(positive) or not len(negative):
        return float("nan")
    return float(((positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)).mean())


def difference(a: np.ndarray, b: np.ndarray, truth: np.ndarray) -> float:
    return auc(a, truth) - auc(b, truth)


compared = {}
for other in ("linear", "full"):
    paired = melo.statistics.delong_paired(scores["lora"], scores[other], truth)
    compared[other] = melo.statistics.bootstrap(difference, scores["lora"], scores[other], truth, groups=of_patients, replicates=1000)
    value, low, high = compared[other]
    print(f"lora - {other}: {value:+.3f}, 95 % interval {low:+.3f} to {high:+.3f} by patient; DeLong p = {paired['p']:.2f}")

# %% [markdown]
# ## What may be said
#
# "Not significant" is not "as good": a small test split finds no difference between anything. "As good" needs a margin that was stated
# before the test split was looked at, and an interval of the difference that stays above it. And two models that learned nothing are as
# good as each other.

# %%
margin = 0.05  # yours: how much worse would still be acceptable, stated beforehand
for other, (value, low, high) in compared.items():
    if not (learned["lora"] or learned[other]):
        said = "neither is better than chance here, and there is nothing to compare"
    elif low > 0:
        said = "the plug-in is better on these data"
    elif high < -margin:
        said = f"the plug-in is worse by more than {margin}"
    elif low > -margin:
        said = f"the plug-in is not worse by {margin} or more (non-inferior at this margin)"
    elif high < 0:
        said = f"the plug-in is worse; whether by {margin} or more, {held.sum()} images cannot tell"
    else:
        said = f"undecided: {len(set(of_patients))} patients cannot tell a difference of {margin} from none"
    print(f"lora against {other}: {said}.")

# %% [markdown]
# One seed and one split say little of the method itself: seeds and folds vary, often by more than the methods do. `melo study` runs tasks,
# methods, seeds and folds by patient from one file, and tests non-inferiority with the margin that it states (docs/study.md).
