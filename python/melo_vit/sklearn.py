"""A classifier for scikit-learn."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets, unique_labels
from sklearn.utils.validation import check_is_fitted, column_or_1d

from ._errors import DataError
from ._melo import Backbone, Plugin, Predictor
from ._training import ClassWeights, Method, Target, train

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Share of the patients that chooses the best epoch.
VALIDATION = 0.2


class MeloClassifier(ClassifierMixin, BaseEstimator):
    """A plug-in on a frozen Vision Transformer as a classifier of images.

    ``X`` is ``uint8 [n, h, w, 3]`` or ``[n, h, w]`` (other axes by ``layout``, other numbers by ``value_range``), or ``n`` paths.
    Flat rows ``[n, h · w · c]``, as pipelines of scikit-learn hand them on, are taken apart by ``image_shape``. ``y`` is a class an
    image. ``backbone`` is a :class:`Backbone`, or what :meth:`Backbone.load` takes; other parameters are those of :func:`train`.

    ``validation`` is the share of the patients (``groups``, else images) that chooses the best epoch, drawn within classes by ``seed``.
    A test split is left to scikit-learn.

    After ``fit``: ``classes_``, ``plugin_`` (a :class:`Plugin`), ``n_features_in_``.
    """

    method: Method
    class_weights: ClassWeights | None
    precision: Literal["auto", "f32", "bf16", "bf16x3", "int8"]
    classes_: NDArray[Any]
    plugin_: Plugin

    def __init__(
        self,
        backbone: Backbone | str | os.PathLike[str] | None = None,
        *,
        method: Method = "lora",
        rank: int | None = None,
        targets: Sequence[Target] | None = None,
        last_k: int | None = None,
        epochs: int = 20,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        class_weights: ClassWeights | None = None,
        patience: int | None = None,
        augment: Any = None,
        image_size: int | None = None,
        image_shape: tuple[int, ...] | None = None,
        layout: str | None = None,
        value_range: tuple[float, float] | None = None,
        validation: float = VALIDATION,
        precision: Literal["auto", "f32", "bf16", "bf16x3", "int8"] = "f32",
        seed: int = 0,
        progress: bool | None = False,
    ) -> None:
        self.backbone = backbone
        self.method = method
        self.rank = rank
        self.targets = targets
        self.last_k = last_k
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.class_weights = class_weights
        self.patience = patience
        self.augment = augment
        self.image_size = image_size
        self.image_shape = image_shape
        self.layout = layout
        self.value_range = value_range
        self.validation = validation
        self.precision = precision
        self.seed = seed
        self.progress = progress

    def fit(self, X: Any, y: Any, groups: Any = None, sample_weight: Any = None) -> MeloClassifier:
        """Trains on images with a class each; no group (patient) is on both sides of the validation split.

        ``sample_weight`` is how much an image counts in the loss; those of 0 are left out.
        """
        images, shape = self._images(X)
        if y is None:
            raise DataError("y: requires y to be passed, but the target y is None", "Labels")
        labels = column_or_1d(y, warn=True)
        check_classification_targets(labels)
        if labels.ndim != 1 or len(labels) != len(images):
            raise DataError(f"y: found shape {labels.shape} for {len(images)} images, expected [{len(images)}]", "Lengths")
        weights = weights_of(sample_weight, len(images))
        if weights is not None and not weights.all():
            kept = np.flatnonzero(weights)
            images = [images[place] for place in kept] if isinstance(images, list) else images[kept]
            labels, weights = labels[kept], weights[kept]
            groups = None if groups is None else np.asarray(groups)[kept]
        self.classes_ = unique_labels(labels)
        if len(self.classes_) < 2:
            raise DataError(f"y: has one class only, {self.classes_[0]!r}; a classifier needs two", "OneClass")
        indices = np.searchsorted(self.classes_, labels)
        names = [str(name) for name in self.classes_]
        splits = validation_split(indices, groups, self.validation, self.seed)
        self.plugin_ = train(
            self._loaded(),
            images,
            [names[index] for index in indices],
            splits=splits,
            groups=groups,
            weights=weights,
            classes=names,
            kind="single_label",
            layout=self._layout(),
            value_range=self.value_range,
            task=type(self).__name__,
            method=self.method,
            rank=self.rank,
            targets=self.targets,
            last_k=self.last_k,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            class_weights=self.class_weights,
            patience=self.patience,
            augment=self.augment,
            image_size=self.image_size,
            seed=self.seed,
            progress=self.progress,
        )
        self.n_features_in_ = int(np.prod(shape)) if shape else 1
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Calibrated probabilities ``[n, classes]``, in the order of ``classes_``."""
        check_is_fitted(self)
        images, shape = self._images(X)
        features = int(np.prod(shape)) if shape else 1
        if self.image_shape is not None and features != self.n_features_in_:
            name = type(self).__name__
            message = f"X has {features} features, but {name} is expecting {self.n_features_in_} features as input"
            raise DataError(message, "Shape")
        predictor = Predictor(self.plugin_.backbone, self.plugin_)
        said = predictor.predict(images, layout=self._layout(), value_range=self.value_range, keep_pixels=False)
        return said.probabilities()

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each image, ``[n]``."""
        probabilities = self.predict_proba(X)
        return cast("NDArray[Any]", self.classes_[probabilities.argmax(axis=1)])

    def _loaded(self) -> Backbone:
        if self.backbone is None:
            raise DataError("backbone: is missing, expected a Backbone or a file of weights", "Backbone")
        if isinstance(self.backbone, Backbone):
            return self.backbone
        return Backbone.load(self.backbone, precision=self.precision)

    def _layout(self) -> str | None:
        """The axes of ``X``; a shape of two is grey."""
        if self.layout is None and self.image_shape is not None:
            return "nhw" if len(self.image_shape) == 2 else "nhwc"
        return self.layout

    def _images(self, X: Any) -> tuple[Any, tuple[int, ...]]:
        """The images, and the shape of one; flat rows are taken apart."""
        if hasattr(X, "toarray"):
            raise TypeError("sparse input is not supported: images are dense arrays or paths")
        if not hasattr(X, "__array_interface__") and not hasattr(X, "__dlpack__") and not hasattr(X, "__array__"):
            X = list(X)
            if X and not isinstance(X[0], (list, tuple, int, float, complex)):
                return X, ()
        if self.image_shape is None:
            if hasattr(X, "detach"):
                return X, tuple(X.shape[1:])
            array: NDArray[Any] = np.asarray(X)
            if array.dtype.kind in "OUS" and array.ndim == 2 and array.shape[1] == 1:
                array = array.ravel()
            if array.dtype.kind in "OUS" and array.ndim == 1:
                return array.tolist(), ()
            if array.ndim == 2:
                message = f"X: found rows of {array.shape[1]} features, expected images; say image_shape=(h, w, 3) or (h, w)"
                raise DataError(message, "Shape")
            return array, tuple(array.shape[1:])
        rows: NDArray[Any] = np.asarray(X)
        if rows.dtype == object:
            rows = rows.astype(np.float64)
        if np.iscomplexobj(rows):
            raise DataError("Complex data not supported", "DType")
        if rows.ndim != 2:
            hint = "Reshape your data either using array.reshape(-1, 1) or array.reshape(1, -1)"
            raise DataError(f"X: found shape {rows.shape}, expected 2D array of flat images. {hint}", "Shape")
        if rows.shape[0] == 0 or rows.shape[1] == 0:
            what = "sample" if rows.shape[0] == 0 else "feature"
            raise DataError(f"Found array with 0 {what}(s) (shape={rows.shape}) while a minimum of 1 is required.", "Shape")
        if rows.dtype.kind == "f" and not np.isfinite(rows).all():
            raise DataError("X: contains NaN or infinity", "NonFinite")
        try:
            return rows.reshape(len(rows), *self.image_shape), tuple(rows.shape[1:])
        except ValueError as error:
            message = f"X: found rows of {rows.shape[1]} features, expected image_shape={self.image_shape} of each"
            raise DataError(message, "Shape") from error

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.one_d_array = False
        tags.input_tags.two_d_array = self.image_shape is not None
        tags.input_tags.three_d_array = self.image_shape is None
        tags.non_deterministic = False
        return tags


def weights_of(weights: Any, n: int) -> NDArray[np.float64] | None:
    """``[n]``, not negative, some positive; none where all count the same."""
    if weights is None:
        return None
    array = np.asarray(weights, np.float64)
    if array.shape != (n,):
        raise DataError(f"sample_weight.shape == {array.shape}, expected ({n},)!", "Lengths")
    if not np.isfinite(array).all() or (array < 0).any():
        raise DataError("sample_weight: expected finite numbers that are not negative", "Weights")
    if not array.any():
        raise DataError("sample_weight: every weight is zero", "Weights")
    return None if (array == array[0]).all() else array


def validation_split(labels: NDArray[np.intp], groups: Any, share: float, seed: int) -> list[str]:
    """``"train"`` or ``"val"`` of each image: of each class's groups about ``share``, at least one and never all."""
    if not 0.0 < share < 1.0:
        raise DataError(f"validation: is {share}, expected between 0 and 1", "Setting")
    numbers = np.arange(len(labels)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if len(numbers) != len(labels):
        raise DataError(f"groups: found {len(numbers)} for {len(labels)} images", "Lengths")
    rng = np.random.default_rng(seed)
    chosen: set[int] = set()
    seen: set[int] = set()
    for label in np.unique(labels):
        own = np.array(sorted(set(numbers[labels == label].tolist()) - seen))
        seen.update(own.tolist())
        if len(own) > 1:
            count = min(max(round(share * len(own)), 1), len(own) - 1)
            chosen.update(rng.permutation(own)[:count].tolist())
    splits = ["val" if number in chosen else "train" for number in numbers.tolist()]
    for split in ("val", "train"):
        if len({int(label) for label, of in zip(labels, splits, strict=True) if of == split}) < 2:
            reason = f"too few images a class, or patients, for a {split} split of two classes"
            raise DataError(f"y: {len(labels)} sample(s), {reason}", "TooFew")
    return splits
