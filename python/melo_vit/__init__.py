"""One frozen Vision Transformer, and for every clinical task a small plug-in.

>>> import melo_vit as melo
>>> backbone = melo.Backbone.load("vit.safetensors")
>>> plugin = melo.train(backbone, "fundus.csv", epochs=2, progress=False)
>>> plugin.save("fundus.safetensors")
>>> predictor = melo.Predictor(backbone, [plugin, "chest_film.safetensors"])
>>> predictor.predict(["film.png"]).probabilities("chest_film").shape
(1, 3)
"""

from __future__ import annotations

import atexit
import os
from typing import TYPE_CHECKING, Any

from ._errors import (
    BackboneError,
    DataError,
    ImageError,
    InternalError,
    MeloError,
    MeloWarning,
    PluginError,
    SettingError,
    TrainingError,
)
from ._melo import VERSION as __version__
from ._melo import Backbone, Evaluation, Plugin, Prediction, Predictor, finish, forked

if TYPE_CHECKING:
    from . import statistics
    from ._predictions import Predictions
    from ._training import evaluate, train
    from .sklearn import MeloClassifier

__all__ = [
    "Backbone",
    "BackboneError",
    "DataError",
    "Evaluation",
    "ImageError",
    "InternalError",
    "MeloClassifier",
    "MeloError",
    "MeloWarning",
    "Plugin",
    "PluginError",
    "Prediction",
    "Predictions",
    "Predictor",
    "SettingError",
    "TrainingError",
    "__version__",
    "evaluate",
    "statistics",
    "train",
]

atexit.register(finish)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forked)

#: What is imported when it is asked for, since it needs NumPy or scikit-learn.
_LATER = {
    "MeloClassifier": ".sklearn",
    "Predictions": "._predictions",
    "evaluate": "._training",
    "statistics": ".statistics",
    "train": "._training",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(_LATER[name], __name__)
    return module if name == "statistics" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
