"""Training and evaluation."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from . import _melo
from ._data import data as of_data
from ._data import plain
from ._errors import MeloWarning
from ._progress import observer

#: Passes over the training split where nobody asks for others.
EPOCHS = 20

Method = Literal["lora", "linear", "adapter", "full"]
Target = Literal["q", "k", "v", "o", "fc1", "fc2"]
ClassWeights = Literal["none", "balanced"]
Kind = Literal["single_label", "multi_label", "ordinal", "regression", "segmentation"]


def listed(values: Any) -> list[Any] | None:
    return None if values is None else list(values)


def train(
    backbone: _melo.Backbone,
    data: Any,
    y: Any = None,
    *,
    groups: Any = None,
    splits: Any = None,
    weights: Any = None,
    classes: Sequence[str] | None = None,
    kind: Kind | None = None,
    images: str | os.PathLike[str] | None = None,
    layout: str | None = None,
    value_range: tuple[float, float] | None = None,
    reading: Mapping[str, Any] | None = None,
    task: str | None = None,
    method: Method = "lora",
    rank: int | None = None,
    alpha: float | None = None,
    targets: Target | Sequence[Target] | None = None,
    blocks: Sequence[int] | None = None,
    last_k: int | None = None,
    rslora: bool | None = None,
    rank_pattern: Mapping[int, int] | None = None,
    lora_plus: float | None = None,
    lora_dropout: float | None = None,
    bottleneck: int | None = None,
    layer_decay: float | None = None,
    folds: int | None = None,
    solver: Literal["lbfgs", "adamw"] | None = None,
    epochs: int = EPOCHS,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    min_learning_rate: float | None = None,
    warmup_epochs: float | None = None,
    weight_decay: float | None = None,
    clip_norm: float | None = None,
    label_smoothing: float | None = None,
    class_weights: ClassWeights | None = None,
    mask_head: Literal["upsampling", "linear"] | None = None,
    patience: int | None = None,
    augment: bool | Mapping[str, Any] | None = None,
    seed: int = 0,
    image_size: int | None = None,
    crop_mode: Literal["squash", "center", "border"] | None = None,
    pooling: Literal["attention", "mean", "max"] | None = None,
    unordered: bool | None = None,
    coverage: float | None = None,
    sets: Literal["lac", "aps", "raps", "none"] | None = None,
    sets_by: Literal["all", "class"] | None = None,
    scope: bool | None = None,
    scope_false_alarms: float | None = None,
    run: str | os.PathLike[str] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    f16: bool = False,
    backbone_out: str | os.PathLike[str] | None = None,
    callback: Callable[[dict[str, Any]], object] | None = None,
    progress: bool | None = None,
) -> _melo.Plugin:
    """Trains a plug-in and measures it, as ``melo train`` does; what is not given is the default there.

    ``data`` is a manifest (a path to a CSV, a workbook, a folder of classes or a pack), a table with the same columns
    (pandas, polars, a dictionary; paths relative to ``images``, else to the working folder), or images with ``y``:
    paths, or ``uint8 [n, h, w, 3]``. ``y`` is a class an image ``[n]``, findings ``[n, classes]`` of 0 and 1, or numbers
    with ``kind="regression"``. ``groups`` are patients: no patient is in two splits. Without ``splits`` (``"train"``,
    ``"val"``, ``"test"``) images are split 70 : 10 : 20 by patient.

    ``weights [n]``, positive, are how much images with ``y`` count in the loss, beside each other in a batch.

    ``augment`` is ``False``, or some of ``horizontal_flip``, ``vertical_flip``, ``rotate_degrees``, ``crop_scale``,
    ``brightness``, ``contrast``. ``run`` is a folder for states: with ``resume=True`` a training that was killed goes on.
    ``method="linear"`` is solved to convergence on features computed once, whatever the settings of steps; with
    ``solver="adamw"`` it is trained in steps. ``method="full"`` writes the fine-tuned backbone to ``backbone_out``, and
    the plug-in's ``backbone`` is that one.

    Prediction sets are fitted to hold the truth for ``coverage`` of the images (0.9), by ``sets`` (``"lac"``, ``"aps"``, ``"raps"``, ``"none"``),
    for all images or those of each class (``sets_by``). The plug-in tells which images are for it, and calls ``scope_false_alarms`` of its
    own out of scope (0.05), unless ``scope`` is false.

    ``folds`` trains an ensemble: so many plug-ins, each without another part of the training and validation patients, as one whose answer is
    their mean (and ``Prediction.spread`` how far they are apart); where no blocks are given they are trained on top of one plug-in, each the
    last two blocks in its own way.

    ``callback`` is told every event as a dictionary; what it raises stops the training and is raised here. ``progress``
    shows a bar of tqdm, in a notebook a live curve; ``None`` does so where somebody looks. Ctrl-C stops after the step
    in flight. Other threads of the program go on meanwhile.

    What is odd about data or figures (a class that is never called, images nearly black) is a ``MeloWarning``.
    Raises ``SettingError``, ``DataError``, ``TrainingError``, ``BackboneError``.
    """
    if augment is False:
        augment = {"horizontal_flip": False, "rotate_degrees": 0.0, "crop_scale": 1.0, "brightness": 0.0, "contrast": 0.0}
    settings: dict[str, Any] = {
        "task": task, "method": method, "rank": rank, "alpha": alpha, "targets": [targets] if isinstance(targets, str) else listed(targets),
        "blocks": listed(blocks), "last_k": last_k, "rslora": rslora,
        "rank_pattern": None if rank_pattern is None else {str(block): rank for block, rank in rank_pattern.items()},
        "lora_plus": lora_plus, "lora_dropout": lora_dropout, "bottleneck": bottleneck, "layer_decay": layer_decay, "folds": folds, "solver": solver,
        "epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate,
        "min_learning_rate": min_learning_rate, "warmup_epochs": warmup_epochs, "weight_decay": weight_decay,
        "clip_norm": clip_norm, "label_smoothing": label_smoothing, "class_weights": class_weights,
        "mask_head": mask_head, "patience": patience, "augment": None if augment is None or augment is True else dict(augment),
        "seed": seed, "image_size": image_size, "crop_mode": crop_mode,
        "pooling": "gated_attention" if pooling == "attention" else pooling, "unordered": unordered,
        "coverage": coverage, "sets": sets, "sets_by": sets_by, "scope": scope, "scope_false_alarms": scope_false_alarms,
        "run": None if run is None else os.fspath(run), "resume": resume, "overwrite": overwrite, "f16": f16,
        "backbone_out": None if backbone_out is None else os.fspath(backbone_out),
    }  # fmt: skip
    given = {name: value for name, value in settings.items() if value is not None}
    labelled = of_data(
        data, y, groups=groups, splits=splits, weights=weights, classes=classes, kind=kind, images=images,
        layout=layout, value_range=value_range, reading=reading,
    )  # fmt: skip
    plugin = _melo.train(backbone, labelled, plain(given), observer(progress, callback))
    for said in plugin.warnings:
        warnings.warn(f"{plugin.task}: {said}", MeloWarning, stacklevel=2)
    return plugin


def evaluate(
    plugin: _melo.Plugin,
    data: Any,
    y: Any = None,
    *,
    split: Literal["train", "val", "test"] = "test",
    groups: Any = None,
    splits: Any = None,
    kind: Kind | None = None,
    images: str | os.PathLike[str] | None = None,
    layout: str | None = None,
    value_range: tuple[float, float] | None = None,
    reading: Mapping[str, Any] | None = None,
) -> _melo.Evaluation:
    """Measures a plug-in on one split, with 95 % intervals by patient, as ``melo eval`` does.

    ``data`` as for :func:`train`. Images with ``y`` and without ``splits`` are all taken as ``split``. A manifest without splits is
    refused unless it is the one that the plug-in was trained on: which images are new to it could not be told.

    Raises ``DataError``, ``SettingError``.
    """
    classes = None
    if y is not None:
        classes = plugin.classes
        if not hasattr(data, "__len__"):
            data = list(data)
        if splits is None:
            splits = [split] * len(data)
    labelled = of_data(
        data, y, groups=groups, splits=splits, classes=classes, kind=kind or (plugin.kind if y is not None else None),
        images=images, layout=layout, value_range=value_range, reading=reading,
    )  # fmt: skip
    return _melo.evaluate(plugin, labelled, split)
