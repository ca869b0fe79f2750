"""Writes crates/eval/tests/golden/numbers_and_grades.json: predicted numbers and grades, and what scikit-learn and scipy make of them.

    pip install -r tools/golden/metrics-requirements.txt
    python tools/golden/numbers_and_grades.py

Deterministic: running it again changes nothing; null stands for undefined.
"""

import json
import warnings
from pathlib import Path

import numpy as np
from scipy.stats import pearsonr
from sklearn import metrics as sk

OUT = Path(__file__).parents[2] / "crates/eval/tests/golden/numbers_and_grades.json"


def known(value):
    """NaN to None."""
    return None if np.isnan(value) else float(value)


def numbers(name, predictions, truth):
    mean = np.full_like(truth, truth.mean())
    return {
        "name": name,
        "predictions": predictions.tolist(),
        "truth": truth.tolist(),
        "mae": sk.mean_absolute_error(truth, predictions),
        "rmse": sk.root_mean_squared_error(truth, predictions),
        "bias": float(np.mean(predictions - truth)),
        "r2": known(sk.r2_score(truth, predictions, force_finite=False) if truth.std() > 0 else np.nan),
        "pearson": known(pearsonr(truth, predictions).statistic),
        "baseline": [float(truth.mean()), sk.mean_absolute_error(truth, mean), sk.root_mean_squared_error(truth, mean)],
    }


def grades(name, predictions, truth, count):
    labels = range(count)
    kappas = {w: known(sk.cohen_kappa_score(truth, predictions, labels=labels, weights=w)) for w in ("quadratic", "linear")}
    return {
        "name": name,
        "grades": count,
        "predictions": predictions.tolist(),
        "truth": truth.tolist(),
        "kappa_quadratic": kappas["quadratic"],
        "kappa_linear": kappas["linear"],
        "mae": sk.mean_absolute_error(truth, predictions),
        "confusion": sk.confusion_matrix(truth, predictions, labels=labels).tolist(),
    }


def number_cases():
    rng = np.random.default_rng(20261130)
    truth = np.round(rng.uniform(18, 95, 60), 1)
    yield numbers("ages", np.round(0.7 * truth + 20 + rng.normal(0, 6, 60), 3), truth)
    yield numbers("worse than the mean", np.round(110 - truth, 3), truth)
    yield numbers("small and far from 0", 1e6 + np.round(rng.normal(0, 0.01, 25), 4), 1e6 + np.round(rng.normal(0, 0.01, 25), 4))
    yield numbers("perfect", truth[:9], truth[:9])
    yield numbers("one answer", np.full(12, 50.0), truth[:12])
    yield numbers("one truth", truth[:12], np.full(12, 50.0))
    yield numbers("two cases", np.array([1.0, 2.5]), np.array([2.0, 3.0]))


def grade_cases():
    rng = np.random.default_rng(20261201)
    truth = rng.choice(5, 90, p=[0.5, 0.1, 0.25, 0.1, 0.05])
    yield grades("retinopathy", np.clip(truth + rng.integers(-1, 2, 90), 0, 4), truth, 5)
    yield grades("grades that do not occur", np.where(rng.random(30) < 0.8, 4, 0), np.where(rng.random(30) < 0.8, 4, 0), 5)
    yield grades("opposite", 4 - truth, truth, 5)
    yield grades("one answer", np.full(90, 2), truth, 5)
    yield grades("perfect", truth, truth, 5)
    yield grades("one grade", np.full(8, 1), np.full(8, 1), 3)
    yield grades("two grades", rng.integers(0, 2, 20), rng.integers(0, 2, 20), 2)


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # undefined metrics are the point
    text = json.dumps({"numbers": list(number_cases()), "grades": list(grade_cases())}, separators=(",", ":"), allow_nan=False)
    OUT.write_text(text.replace('{"name"', '\n{"name"') + "\n")
