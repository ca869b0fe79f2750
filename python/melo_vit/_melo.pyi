"""The native module. Shapes are in brackets: ``n`` images, ``h`` and ``w`` pixels."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from ._predictions import Predictions
from .statistics import Auc, Calibration, PairedAuc

__all__ = [
    "VERSION",
    "Backbone",
    "Data",
    "Evaluation",
    "Plugin",
    "Prediction",
    "Predictor",
    "bootstrap_weights",
    "calibration",
    "clustered_auc",
    "delong",
    "delong_paired",
    "encode_png",
    "evaluate",
    "finish",
    "forked",
    "main",
    "train",
    "wilson",
]

VERSION: str

_Path = str | os.PathLike[str]
_Precision = Literal["auto", "f32", "bf16", "bf16x3", "int8"]
_Kind = Literal["single_label", "multi_label", "ordinal", "regression", "segmentation"]

@final
class Backbone:
    """A frozen Vision Transformer, ready to compute; threads share it without copies. Pickled, it is its file."""

    @staticmethod
    def load(
        source: _Path,
        *,
        precision: _Precision = "f32",
        threads: int = 0,
        weights_key: str | None = None,
    ) -> Backbone:
        """Reads a file, a folder, or a model on the hub (``"hf:owner/name"``, ``"timm/name"``).

        ``precision`` is that of the matrix products, ``"auto"`` the fastest that this processor is good at; ``threads`` 0 is one a
        core. Raises ``BackboneError``, ``SettingError``.
        """

    @property
    def name(self) -> str:
        """Name of the architecture."""

    @property
    def digest(self) -> str:
        """SHA-256 of architecture and weights: what plug-ins are held to."""

    @property
    def source(self) -> Path:
        """Where it was read from."""

    @property
    def precision(self) -> _Precision:
        """Numbers in the matrix products."""

    @property
    def threads(self) -> int:
        """Threads that compute."""

    @property
    def device_name(self) -> str:
        """What it runs on, such as ``AVX-512``."""

    @property
    def image_size(self) -> int:
        """Side of the images that the weights were trained on, pixels."""

    @property
    def width(self) -> int:
        """Width of a token."""

    @property
    def depth(self) -> int:
        """Number of blocks."""

    @property
    def parameters(self) -> int:
        """Weights, without a classifier."""

    @property
    def notes(self) -> list[str]:
        """A sentence for every choice that the files left open."""

    def embed(
        self,
        images: Any,
        *,
        kind: Literal["pooled", "class", "mean", "grid"] = "pooled",
        block: int | None = None,
        norm: bool = True,
        layout: str | None = None,
        value_range: tuple[float, float] | None = None,
    ) -> NDArray[np.float32]:
        """Features ``[n, width]``, of ``kind="grid"`` ``[n, g, g, width]``, after ``block`` (the last) with the final norm.

        ``images`` as in :meth:`Predictor.predict`. Raises ``ImageError``, ``SettingError``.
        """

    def to_torch(self, plugin: Plugin | None = None) -> Any:
        """A timm module with a plug-in merged in, or with the weights' own classifier: its logits are this one's to rounding. Needs timm."""

@final
class Plugin:
    """One clinical task on a frozen backbone. Pickled, it is its file's bytes and its backbone."""

    @staticmethod
    def load(path: _Path, backbone: Backbone) -> Plugin:
        """Reads a plug-in that belongs to this backbone; another is a ``PluginError`` of kind ``BackboneMismatch``."""

    @staticmethod
    def from_bytes(data: bytes, backbone: Backbone) -> Plugin:
        """As :meth:`load`, of a file's bytes."""

    @staticmethod
    def own_classifier(backbone: Backbone) -> Plugin:
        """The classifier that came with the weights, as a plug-in that adapts nothing."""

    @staticmethod
    def from_peft(
        folder: _Path,
        backbone: Backbone,
        *,
        task: str | None = None,
        classes: Sequence[str] | None = None,
        multi_label: bool = False,
        card: _Path | None = None,
        head: _Path | None = None,
    ) -> Plugin:
        """An adapter of Hugging Face's PEFT. A card in the folder says task and classes itself."""

    def to_peft(self, folder: _Path, *, layout: Literal["timm", "hf", "hf-new"] = "timm") -> None:
        """Writes what PEFT's ``PeftModel.from_pretrained`` loads, the card beside it."""

    def to_timm(self, folder: _Path) -> None:
        """Writes backbone and plug-in as one checkpoint for timm's ``create_model("local-dir:…")``."""

    def to_onnx(self, path: _Path) -> None:
        """Writes backbone and plug-in as ONNX, opset 17."""

    def to_bytes(self) -> bytes:
        """The file as bytes."""

    def save(self, path: _Path, *, dtype: Literal["f32", "f16"] | None = None) -> None:
        """Writes the file, whole or not at all; ``dtype`` is that of its training where it is not given."""

    @property
    def backbone(self) -> Backbone:
        """The backbone that it belongs to; of ``method="full"`` the fine-tuned one."""

    @property
    def task(self) -> str:
        """Name of the task."""

    @property
    def kind(self) -> _Kind:
        """Kind of answers."""

    @property
    def classes(self) -> list[str]:
        """Names of the classes, findings or numbers, in the order of probabilities."""

    @property
    def card(self) -> dict[str, Any]:
        """Everything that the file says of itself: preprocessing, calibration, figures, provenance."""

    @property
    def metrics(self) -> dict[str, float]:
        """Figures by name, such as ``test_auc_macro``."""

    @property
    def parameters(self) -> int:
        """Trained numbers."""

    @property
    def digest(self) -> str:
        """SHA-256 of its file."""

    @property
    def history(self) -> list[dict[str, Any]]:
        """The epochs of its training; empty of one that was read."""

    @property
    def warnings(self) -> list[str]:
        """What its training found odd about data and figures, as it was warned of; empty of one that was read."""

    @property
    def val(self) -> Evaluation | None:
        """What it said of the validation split when it was trained; None of one that was read."""

    @property
    def test(self) -> Evaluation | None:
        """The same of the test split, where there was one."""

    def to_html(self) -> str:
        """The card as a page."""

    def to_markdown(self) -> str:
        """The card as Markdown."""

    def _repr_html_(self) -> str: ...

@final
class Evaluation:
    """A plug-in's answers on a split, and how good they are."""

    @property
    def task(self) -> str:
        """Name of the task."""

    @property
    def split(self) -> str:
        """``train``, ``val`` or ``test``."""

    @property
    def kind(self) -> _Kind:
        """Kind of answers."""

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""

    @property
    def names(self) -> list[str]:
        """Names of the images, or bags, ``[n]``: what a training measured is in their order, what ``evaluate`` did in that of its data."""

    @property
    def metrics(self) -> dict[str, float]:
        """Figures by name: ``auc_macro``, ``acc``, ``balanced_acc``, ``auc/<class>``, …; what is undefined is left out."""

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % intervals of the figures, by patient."""

    @property
    def details(self) -> dict[str, Any] | None:
        """All that ``melo eval --json`` measures of classes and findings; None of numbers and masks."""

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """Calibrated, or numbers, ``[n, classes]``."""

    @property
    def logits(self) -> NDArray[np.float32]:
        """Before calibration, ``[n, classes]``."""

    @property
    def truth(self) -> NDArray[Any]:
        """Classes ``[n]``, findings ``[n, classes]``, numbers or shares of masks ``[n, classes]``."""

    @property
    def warnings(self) -> list[str]:
        """What should be known before the figures are trusted: classes that are never called, too few cases."""

    def to_html(self) -> str:
        """Figures and ROC curves as a page."""

    def __len__(self) -> int: ...
    def _repr_html_(self) -> str: ...

@final
class Predictor:
    """A backbone that is asked about images by any number of plug-ins at once; what they share is computed once.

    Several threads may ask one predictor. Pickled, it is its backbone's file and its plug-ins.
    """

    def __new__(cls, backbone: Backbone, plugins: Plugin | _Path | Iterable[Plugin | _Path]) -> Predictor: ...
    @property
    def backbone(self) -> Backbone:
        """What computes."""

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks, in the order of the plug-ins."""

    def predict(
        self,
        images: Any,
        *,
        layout: str | None = None,
        value_range: tuple[float, float] | None = None,
        keep_pixels: bool | None = None,
    ) -> Predictions:
        """What each plug-in says of each image.

        ``images`` is one image, ``uint8 [n, h, w, 3]``, or any iterable of images: paths, bytes of files, open files, PIL images, DICOM
        datasets of pydicom, arrays of NumPy, torch or whatever has ``__array_interface__`` or ``__dlpack__``. ``layout`` says the axes of
        arrays that are not ``[n, h, w, 3]``, ``[h, w, 3]`` or ``[h, w]``: ``"chw"``, ``"cwh"`` (MONAI's PIL reader), ``"hwc"``,
        ``"hw"``, with an ``n`` in front for a batch. ``value_range`` is what becomes 0 and 255 of other numbers than ``uint8``.
        ``keep_pixels`` keeps images for heat maps; by default of at most 16.

        Raises ``ImageError``, which names the image.
        """

    def predict_bag(self, images: Any) -> list[Prediction]:
        """What each plug-in says of the images of one bag: files, or bytes of files."""

@final
class Prediction:
    """What one plug-in says of one image, or of a bag."""

    @property
    def image(self) -> str:
        """Name of the image."""

    @property
    def task(self) -> str:
        """Name of the task."""

    @property
    def remarks(self) -> list[str]:
        """What was odd about the image: nearly black, one flat colour, one frame of several."""

    @property
    def kind(self) -> _Kind:
        """Kind of answer."""

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """Calibrated probabilities, numbers, or a mask's shares of the pixels, ``[classes]``."""

    @property
    def logits(self) -> NDArray[np.float32]:
        """Before calibration, ``[classes]``; of masks the scores of pixels."""

    @property
    def spread(self) -> NDArray[np.float32] | None:
        """Standard deviation of what the members of an ensemble of folds say, ``[classes]``; None of single plug-ins."""

    @property
    def predicted(self) -> str | None:
        """The class, or grade; None of findings, numbers and masks."""

    @property
    def findings(self) -> list[str] | None:
        """The findings that reach their thresholds; None of other tasks."""

    @property
    def set(self) -> dict[str, Any] | None:
        """What may be true with the coverage that the plug-in promises: ``coverage``, ``method`` and ``classes``, ``findings`` or
        ``intervals``; None of a plug-in that promises none."""

    @property
    def in_scope(self) -> bool | None:
        """Whether the image is one for the plug-in; None where it cannot tell."""

    @property
    def scope_score(self) -> float | None:
        """How far the image is from those of the training, 1 at the limit; None where that is not known."""

    @property
    def attention(self) -> NDArray[np.float32] | None:
        """How much each image of a bag counted, ``[images]`` of sum 1; None of single images."""

    @property
    def mask(self) -> NDArray[np.uint8] | None:
        """Class indices ``[h, w]`` at the image's own size; None of other tasks."""

    @property
    def pixels(self) -> NDArray[np.uint8] | None:
        """The image ``[h, w, 3]``, where pixels were kept."""

    def heatmap(
        self,
        target: str | None = None,
        *,
        method: Literal["gradient", "rollout"] = "gradient",
        opacity: float = 0.5,
        longest: int = 768,
    ) -> NDArray[np.uint8]:
        """The image with what the answer, or class ``target``, rests on in colours, ``uint8 [h, w, 3]``. Needs kept pixels."""

    def _repr_html_(self) -> str: ...

@final
class Data:
    """Labelled images."""

    @staticmethod
    def read(path: str, options: str, images: str | None) -> Data: ...
    @staticmethod
    def table(text: str, name: str, options: str, images: str) -> Data: ...
    @staticmethod
    def arrays(
        images: Any,
        labels: list[list[float]],
        classes: list[str],
        kind: str,
        patients: Sequence[str | None] | None,
        splits: list[str] | None,
        weights: list[float] | None,
        layout: str | None,
        value_range: tuple[float, float] | None,
    ) -> Data: ...

def train(backbone: Backbone, data: Data, settings: str, told: Callable[[dict[str, Any]], object] | None) -> Plugin: ...
def evaluate(plugin: Plugin, data: Data, split: str) -> Evaluation: ...
def delong(scores: NDArray[np.float32], truth: NDArray[np.bool_], *, level: float = 0.95) -> Auc: ...
def delong_paired(
    a: NDArray[np.float32], b: NDArray[np.float32], truth: NDArray[np.bool_], *, level: float = 0.95
) -> PairedAuc: ...
def clustered_auc(
    probabilities: NDArray[np.float32], truth: NDArray[np.bool_], clusters: NDArray[np.int64], *, level: float = 0.95
) -> tuple[float, float, float]: ...
def bootstrap_weights(
    clusters: NDArray[np.int64], strata: NDArray[np.int64], *, replicates: int = 2000, seed: int = 0
) -> list[list[int]]: ...
def calibration(probabilities: NDArray[np.float32], truth: NDArray[np.int64], *, bins: int = 15) -> Calibration: ...
def wilson(successes: int, trials: int, *, level: float = 0.95) -> tuple[float, float]: ...
def encode_png(pixels: NDArray[np.uint8]) -> bytes: ...
def finish() -> None: ...
def forked() -> None: ...
def main(arguments: list[str], program: list[str]) -> int: ...
