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
# # A first model in ten minutes
#
# A plug-in on a frozen Vision Transformer: data, training, figures, answers. The images are generated; the places marked **yours** are where
# your own go.
#
# Research software. It is no medical device and must not be used for diagnosis.
#
# Run it in a checkout of melo, or set `MELO_ASSETS` to its folder `assets`.

# %%
import os
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import melo_vit as melo

places = [Path.cwd(), *Path.cwd().parents]
here = [place / "assets" for place in places if (place / "assets/vit_small_formula.safetensors").is_file()]
assets = Path(os.environ.get("MELO_ASSETS", here[0] if here else "assets"))
work = Path(tempfile.mkdtemp(prefix="melo-first-"))

# %% [markdown]
# ## The backbone
#
# **Yours:** a file, a folder, `"timm/vit_base_patch16_224.augreg_in21k"` or `"hf:facebook/dinov2-small"`. This one is small, and was
# pre-trained on formulas alone.

# %%
backbone = melo.Backbone.load(assets / "vit_small_formula.safetensors")
backbone


# %% [markdown]
# ## The images
#
# Dim fields of noise; every other one has a bright spot. Two images a patient: no patient is in two splits.
#
# **Yours:** `data = "labels.csv"`, a table with `path`, `label` and, where known, `split` and `patient_id`; then leave out `images`.


# %%
def drawn(number: int, side: int = 64) -> np.ndarray:
    rng = np.random.default_rng(number)
    image = rng.integers(40, 90, (side, side, 3), dtype=np.uint8)
    if number % 2:
        y, x = rng.integers(4, side - 12, 2)
        image[y : y + 8, x : x + 8] = rng.integers(110, 160, (8, 8, 3), dtype=np.uint8)
    return image


pixels = np.stack([drawn(number) for number in range(80)])
data = {
    "path": [f"{number}.png" for number in range(80)],
    "label": ["clear" if number % 2 == 0 else "spot" for number in range(80)],
    "split": ["train"] * 40 + ["val"] * 16 + ["test"] * 24,
    "patient_id": [f"p{number // 2}" for number in range(80)],
}
for name, image in zip(data["path"], pixels, strict=True):
    Image.fromarray(image).save(work / name)

# %% [markdown]
# ## Training
#
# Rank 4 on queries and values, and a classifier: what `melo train` does without flags. The curve is live.

# %%
plugin = melo.train(backbone, data, images=work, task="spots", epochs=8)
plugin.save(work / "spots.safetensors")
print(f"{plugin.parameters:,} trained numbers, {(work / 'spots.safetensors').stat().st_size:,} bytes")

# %% [markdown]
# ## How good is it?
#
# On the test split, which chose nothing, with 95 % intervals by patient. With few patients they are wide: that is what the data say.

# %%
test = melo.evaluate(plugin, data, images=work)
for name in ("auc_macro", "acc"):
    low, high = test.intervals[name]
    print(f"{name} {test.metrics[name]:.3f}, 95 % interval {low:.3f} to {high:.3f}")
test

# %% [markdown]
# ## Answers
#
# Each image with its heat map, and the classes with their calibrated probabilities. **Yours:** paths, bytes, arrays, PIL images, DICOM.

# %%
predictor = melo.Predictor(backbone, [plugin])
predictor.predict([work / "56.png", work / "57.png"])

# %% [markdown]
# A second task costs its own blocks only: the phantoms' chest films, from the repository, on the same image.

# %%
both = melo.Predictor(backbone, [plugin, assets / "phantoms" / "chest_film.safetensors"])
for spots, film in both.predict(pixels[56:58]):
    print(spots, film)

# %% [markdown]
# The file says what it is: `plugin.card`, and here as a page.

# %%
plugin
