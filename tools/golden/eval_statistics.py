"""Writes crates/eval/tests/golden/statistics.json: scores, labels, and what pROC, scikit-learn, scipy,
statsmodels, numpy and MedMNIST's own evaluator make of them.

    apt-get install r-base-core r-cran-proc          # R 4.2.2, pROC 1.18.0
    pip install -r tools/golden/eval_statistics-requirements.txt
    pip install --no-deps medmnist==3.0.2            # its evaluator alone, without PyTorch
    python tools/golden/eval_statistics.py

Deterministic: running it again changes nothing. null stands for undefined. All data are drawn here.
"""

import json
import subprocess
import tempfile
import warnings
from pathlib import Path

import numpy as np
from medmnist.evaluator import getACC, getAUC
from scipy import stats
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

HERE = Path(__file__).parent
OUT = HERE.parents[1] / "crates/eval/tests/golden/statistics.json"


def f32(scores):
    return np.asarray(scores, np.float32)


def short(scores):
    """float32 as its shortest decimals, which must read back as the same float32 by way of float64."""
    decimals = [float(str(s)) for s in f32(scores).ravel()]
    assert np.array_equal(np.float32(decimals), f32(scores).ravel())
    return decimals


def binary(rng, positives, negatives, *signals, digits=3):
    """0/1 labels in a random order, and a column of correlated scores for each signal (shift of the positives)."""
    truth = rng.permutation(np.repeat([1, 0], [positives, negatives]))
    shared = rng.normal(size=len(truth))
    columns = [f32(np.round(0.6 * shared + 0.8 * rng.normal(size=len(truth)) + s * truth, digits)) for s in signals]
    return truth, *columns


def delong(name, truth, a, b, level=0.95):
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        file.write("positive,a,b\n")
        # All digits: R must see the ties and the order that Rust sees.
        file.writelines(f"{t},{float(x)!r},{float(y)!r}\n" for t, x, y in zip(truth, a, b))
        file.flush()
        command = ["Rscript", "--vanilla", HERE / "delong.R", file.name, str(level)]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    values = [float(value) for value in shown.split()]
    assert len(values) == 12
    return {
        "name": name,
        "positive": truth.tolist(),
        "a": short(a),
        "b": short(b),
        "level": level,
        "estimate_a": values[:4],
        "estimate_b": values[4:8],
        "interval": values[8:10],
        # Infinite where the variance is 0 and the difference is not.
        "z": values[10] if np.isfinite(values[10]) else None,
        "p": values[11],
    }


def delong_cases(rng):
    truth, a, b = binary(rng, 45, 105, 1.2, 0.8)
    yield delong("plain", truth, a, b)
    yield delong("plain, 80 %", truth, a, b, 0.8)
    yield delong("heavy ties", *binary(rng, 40, 60, 1.0, 0.5, digits=0))
    yield delong("rare", *binary(rng, 6, 300, 1.0, 1.5, digits=2))
    yield delong("tiny", *binary(rng, 3, 4, 1.0, 0.5))
    yield delong("near 1: the interval is clamped", *binary(rng, 10, 12, 3.0, 2.5))
    yield delong("worse than chance", *binary(rng, 30, 30, -0.5, -1.0))
    truth, a, b = binary(rng, 20, 20, 0.7, 0.7)
    yield delong("the same order", truth, a, f32(2 * a + 1))
    yield delong("perfect against good", truth, f32(truth), b)
    yield delong("perfect against constant", truth, f32(truth), f32(0 * truth))


def weighted_auc(rng):
    for digits in (1, 4):
        truth, scores = binary(rng, 30, 50, 0.8, digits=digits)
        weights = rng.poisson(1.0, len(truth))
        yield {
            "positive": truth.tolist(),
            "scores": short(scores),
            "weights": weights.tolist(),
            "auc": sk.roc_auc_score(truth, scores, sample_weight=weights),
        }


def percentiles(rng):
    for size, level in ((2, 0.95), (7, 0.9), (200, 0.95), (201, 0.5)):
        samples = np.round(rng.normal(size=size), 6)
        tail = (1 - level) / 2
        yield {"samples": samples.tolist(), "level": level, "interval": np.quantile(samples, [tail, 1 - tail]).tolist()}


def holm(rng):
    for p in (rng.random(12) ** 3, [0.01, 0.01, 0.04, 0.03, 0.005], [0.5], [1.0, 0.0, 0.9, 0.9], np.full(4, 0.02)):
        yield {"p": list(p), "adjusted": multipletests(p, method="holm")[1].tolist()}


def proportions():
    few = ((0, 1), (0, 30), (1, 30), (7, 20), (19, 20), (20, 20))
    for k, n in (*few, (500, 1234), (3, 100_000), (999_990, 1_000_000)):
        for level in (0.9, 0.95, 0.99):
            exact = stats.binomtest(k, n).proportion_ci(level, "exact")
            wilson = proportion_confint(k, n, 1 - level, method="wilson")
            beta = proportion_confint(k, n, 1 - level, method="beta")
            score = stats.binomtest(k, n).proportion_ci(level, "wilson")
            np.testing.assert_allclose(exact, np.nan_to_num(beta, nan=0.0 if k == 0 else 1.0), atol=1e-12)
            np.testing.assert_allclose(score, wilson, atol=1e-12)
            yield {
                "successes": k,
                "trials": n,
                "level": level,
                "wilson": [float(x) for x in wilson],
                "clopper_pearson": [float(x) for x in exact],
            }


def ece(confidence, right, bins):
    """Straight from the formula, bin by bin."""
    edges = np.linspace(0, 1, bins + 1)
    total = 0.0
    for i in range(bins):
        inside = (confidence > edges[i]) & (confidence <= edges[i + 1])
        if i == 0:
            inside |= confidence == 0
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


def reliability(confidence, right, bins):
    confidence = confidence.astype(np.float64)
    accuracy, mean = calibration_curve(right, confidence, n_bins=bins)
    return {
        "bins": bins,
        "accuracy": accuracy.tolist(),
        "confidence": mean.tolist(),
        "ece": ece(confidence, right, bins),
    }


def calibration_cases(rng):
    for name, classes, signal in (("two classes", 2, 1.0), ("five classes, too sure", 5, 2.0)):
        labels = rng.integers(0, classes, 120)
        logits = f32(np.round(2 * (rng.normal(size=(120, classes)) + signal * np.eye(classes)[labels]), 3))
        # In steps of 1/1024, so that rows sum to 1 exactly, as scikit-learn wants them.
        p = np.floor(softmax(logits.astype(np.float64), axis=1) * 1024) / 1024
        p[np.arange(len(p)), p.argmax(axis=1)] += 1 - p.sum(axis=1)
        brier = sk.brier_score_loss(labels, p, scale_by_half=False, labels=range(classes))
        half = sk.brier_score_loss(labels, p if classes > 2 else p[:, 1])
        assert abs(brier / half - (1 if classes > 2 else 2)) < 1e-12
        yield {
            "name": name,
            "multi_label": False,
            "classes": classes,
            "probabilities": short(p),
            "labels": labels.tolist(),
            "reliability": [reliability(p.max(axis=1), p.argmax(axis=1) == labels, bins) for bins in (10, 15)],
            "brier": [float(brier)],
        }
    labels = (rng.random((80, 3)) < [0.1, 0.3, 0.5]).astype(int)
    p = f32(expit(np.round(rng.normal(size=labels.shape) + 2 * labels - 1.5, 2)))
    p[:4] = [[0, 0.5, 1], [0.25, 0.75, 0.5], [1, 0, 0.5], [0.5, 0.25, 0]]
    brier = [sk.brier_score_loss(labels[:, k], p[:, k].astype(np.float64)) for k in range(3)]
    yield {
        "name": "findings",
        "multi_label": True,
        "classes": 3,
        "probabilities": short(p),
        "labels": labels.ravel().tolist(),
        "reliability": [reliability(p.ravel(), labels.ravel() == 1, bins) for bins in (10, 4)],
        "brier": [float(b) for b in brier],
        "scikit_learn_brier": float(np.mean(brier)),
    }


def temperature(name, logits, labels, nll, multi_label):
    found = minimize_scalar(
        lambda log: nll(logits / np.exp(log)), bounds=np.log([0.01, 100]), method="bounded", options={"xatol": 1e-12}
    )
    return {
        "name": name,
        "multi_label": multi_label,
        "classes": logits.shape[1],
        "logits": short(logits),
        "labels": labels.ravel().tolist(),
        "temperature": float(np.exp(found.x)),
        "nll_before": float(nll(logits)),
        "nll_after": float(found.fun),
    }


def temperature_cases(rng):
    for name, classes, scale in (("too sure", 4, 3.0), ("too shy", 3, 0.2), ("two classes", 2, 1.0)):
        labels = rng.integers(0, classes, 150)
        logits = np.round(scale * (rng.normal(size=(150, classes)) + 1.2 * np.eye(classes)[labels]), 3)
        logits = f32(logits).astype(np.float64)
        rows = np.arange(len(labels))
        nll = lambda z, labels=labels, rows=rows: -log_softmax(z, axis=1)[rows, labels].mean()
        yield temperature(name, logits, labels, nll, False)
    labels = (rng.random((100, 3)) < 0.3).astype(int)
    logits = f32(np.round(4 * (rng.normal(size=labels.shape) + 2 * labels - 1.2), 3)).astype(np.float64)
    nll = lambda z: -log_expit(np.where(labels == 1, z, -z)).mean()
    yield temperature("findings", logits, labels, nll, True)


def curves(rng):
    for name, columns in (
        ("few thresholds", binary(rng, 40, 60, 1.0, digits=1)),
        ("all distinct", binary(rng, 25, 40, 1.5, digits=5)),
        ("runs", (np.repeat([1, 0, 1, 0], [5, 3, 2, 9]), f32(np.arange(19, 0, -1) / 32))),
    ):
        truth, scores = columns
        fpr, tpr, thresholds = sk.roc_curve(truth, scores)
        precision, recall, cuts = sk.precision_recall_curve(truth, scores, drop_intermediate=True)
        every_fpr, every_tpr, every_cut = sk.roc_curve(truth, scores, drop_intermediate=False)
        j = every_tpr - every_fpr
        best = np.argmax(np.round(j, 12))
        sensitive = every_tpr >= 0.9
        # Falling thresholds: the first that is sensitive enough is the most specific.
        at_sensitivity = np.argmax(sensitive)
        # The last that is specific enough is the most sensitive, and the first of those with its sensitivity.
        specific = np.flatnonzero(1 - every_fpr >= 0.8)
        at_specificity = specific[np.argmax(every_tpr[specific])]
        point = lambda i: [float(every_cut[i]), float(every_tpr[i]), float(1 - every_fpr[i])]
        yield {
            "name": name,
            "positive": truth.tolist(),
            "scores": short(scores),
            "roc": {
                "false_positive_rate": fpr.tolist(),
                "true_positive_rate": tpr.tolist(),
                "threshold": [None, *short(thresholds[1:])],
            },
            # From recall 0, as the ROC curve.
            "precision_recall": {
                "precision": precision[::-1].tolist(),
                "recall": recall[::-1].tolist(),
                "threshold": [None, *short(cuts[::-1])],
            },
            "average_precision": float(sk.average_precision_score(truth, scores)),
            "youden": point(best),
            "at_sensitivity_0.9": point(at_sensitivity),
            "at_specificity_0.8": point(at_specificity),
        }


def medmnist(rng):
    """Labels as MedMNIST has them, [n, 1] or [n, c]; scores at exactly 0.5 are among them."""
    labels = rng.integers(0, 4, (90, 1))
    scores = f32(softmax(rng.normal(size=(90, 4)) + 1.5 * np.eye(4)[labels[:, 0]], axis=1))
    tasks = [("multi-class", labels, scores), ("ordinal-regression", labels, scores)]
    labels = rng.integers(0, 2, (80, 1))
    second = f32(np.round(expit(rng.normal(size=80) + 1.5 * labels[:, 0] - 0.7) * 64) / 64)
    assert (second == 0.5).any()
    tasks.append(("binary-class", labels, np.stack([1 - second, second], axis=1)))
    labels = (rng.random((70, 5)) < 0.3).astype(int)
    scores = f32(np.round(expit(rng.normal(size=labels.shape) + 2 * labels - 1) * 64) / 64)
    assert (scores == 0.5).any()
    tasks.append(("multi-label, binary-class", labels, scores))
    for task, labels, scores in tasks:
        yield {
            "task": task,
            "classes": scores.shape[1],
            "probabilities": short(scores),
            "labels": labels.ravel().tolist(),
            "auc": float(getAUC(labels, scores, task)),
            "acc": float(getACC(labels, scores, task)),
        }


if __name__ == "__main__":
    warnings.simplefilter("error")
    seeds = iter(np.random.SeedSequence(19880901).spawn(8))
    drawn = lambda make: list(make(np.random.default_rng(next(seeds))))
    golden = {
        "delong": drawn(delong_cases),
        "weighted_auc": drawn(weighted_auc),
        "percentiles": drawn(percentiles),
        "holm": drawn(holm),
        "proportions": list(proportions()),
        "calibration": drawn(calibration_cases),
        "temperature": drawn(temperature_cases),
        "curves": drawn(curves),
        "medmnist": drawn(medmnist),
    }
    line = lambda case: json.dumps(case, separators=(",", ":"), allow_nan=False)
    cases = lambda values: "[\n" + ",\n".join(map(line, values)) + "\n]"
    OUT.write_text("{\n" + ",\n".join(f'"{key}":{cases(values)}' for key, values in golden.items()) + "\n}\n")
