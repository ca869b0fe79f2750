"""Honest statistics of scores: DeLong, bootstrap by patient, calibration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _melo
from ._data import patients
from ._errors import DataError, SettingError


class Interval(NamedTuple):
    """A figure with the ends of its interval."""

    value: float
    low: float
    high: float


class Auc(TypedDict):
    auc: float
    variance: float
    low: float
    high: float


class PairedAuc(TypedDict):
    auc_a: float
    auc_b: float
    difference: float
    variance: float
    low: float
    high: float
    z: float | None
    p: float


class Calibration(TypedDict):
    ece: float
    brier: float
    bins: list[tuple[float, float, int, float | None, float | None]]


def _scores(values: ArrayLike) -> NDArray[np.float32]:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "buif":
        raise DataError(f"scores: found {array.dtype} of shape {array.shape}, expected numbers [n]", "Scores")
    return np.ascontiguousarray(array, np.float32)


def _truth(values: ArrayLike) -> NDArray[np.bool_]:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "buif" or not np.isin(array, (0, 1)).all():
        raise DataError(f"truth: found {array.dtype} of shape {array.shape}, expected 0 or 1 [n]", "Truth")
    return np.ascontiguousarray(array, np.bool_)


def _numbered(values: Any, n: int) -> NDArray[np.int64]:
    """A number for each distinct value; each its own where there is none."""
    if values is None:
        return np.arange(n, dtype=np.int64)
    named = patients(values) or []
    if len(named) != n:
        raise DataError(f"found {len(named)} groups or strata for {n} cases", "Lengths")
    numbers: dict[object, int] = {}
    return np.array([numbers.setdefault((index,) if name is None else name, len(numbers)) for index, name in enumerate(named)], np.int64)


def delong(scores: ArrayLike, truth: ArrayLike, *, level: float = 0.95) -> Auc:
    """AUC of ``scores [n]`` against ``truth [n]`` with DeLong's variance and normal interval (DeLong et al., Biometrics 44, 1988).

    >>> round(delong([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])["auc"], 2)
    0.75
    """
    return _melo.delong(_scores(scores), _truth(truth), level=level)


def delong_paired(a: ArrayLike, b: ArrayLike, truth: ArrayLike, *, level: float = 0.95) -> PairedAuc:
    """Two AUCs on the same cases, their difference and its p-value."""
    return _melo.delong_paired(_scores(a), _scores(b), _truth(truth), level=level)


def auc(scores: ArrayLike, truth: ArrayLike, *, groups: Any = None, level: float = 0.95) -> Interval:
    """AUC with an interval by patient: ``groups [n]`` name whose each case is; without them each is its own."""
    of = _scores(scores)
    return Interval(*_melo.clustered_auc(of, _truth(truth), _numbered(groups, len(of)), level=level))


def bootstrap(
    statistic: Callable[..., float],
    *arrays: ArrayLike,
    groups: Any = None,
    strata: Any = None,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """``statistic(*arrays)`` with a percentile interval over draws of whole groups, within strata, that depend on ``seed`` alone.

    Replicates in which the statistic is undefined (NaN) are left out.

    >>> bootstrap(lambda x: float(x.mean()), [1.0, 2.0, 3.0, 4.0], replicates=200).value
    2.5
    """
    of = [np.asarray(array) for array in arrays]
    if not of or len({len(array) for array in of}) > 1 or len(of[0]) == 0:
        raise DataError(f"arrays: found lengths {[len(array) for array in of]}, expected as many cases in each, and some", "Lengths")
    for name, fits in (("level", 0.0 < level < 1.0), ("replicates", replicates > 0), ("seed", seed >= 0)):
        if not fits:
            raise SettingError(f"{name}: is out of its range", "Setting", {"setting": name})
    n = len(of[0])
    drawn = _melo.bootstrap_weights(_numbered(groups, n), np.zeros(n, np.int64) if strata is None else _numbered(strata, n), replicates=replicates, seed=seed)
    values = np.array([statistic(*(array[np.repeat(np.arange(n), weights)] for array in of)) for weights in drawn])
    values = values[np.isfinite(values)]
    if values.size == 0:
        raise DataError("the statistic is undefined in every replicate", "Undefined")
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(statistic(*of)), float(low), float(high))


def calibration(probabilities: ArrayLike, truth: ArrayLike, *, bins: int = 15) -> Calibration:
    """Expected calibration error (Guo et al., 2017), Brier score and the bins of the reliability diagram of ``probabilities [n, c]`` against
    classes ``truth [n]``."""
    values = np.ascontiguousarray(probabilities, np.float32)
    if values.ndim != 2:
        raise DataError(f"probabilities: found shape {values.shape}, expected [n, classes]", "Scores")
    return _melo.calibration(values, np.ascontiguousarray(truth, np.int64), bins=bins)


def wilson(successes: int, trials: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share."""
    return _melo.wilson(successes, trials, level=level)
