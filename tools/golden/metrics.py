"""Writes crates/eval/tests/golden/metrics.json: scores, labels, and what scikit-learn makes of them.

    pip install -r tools/golden/metrics-requirements.txt
    python tools/golden/metrics.py

Deterministic: running it again changes nothing. Keys of `expected` are the fields of `melo_eval::Metrics`;
null stands for undefined.
"""

import json
import warnings
from pathlib import Path

import numpy as np
from sklearn import metrics as sk

OUT = Path(__file__).parents[2] / "crates/eval/tests/golden/metrics.json"


def softmax(logits):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True)).astype(np.float32)


def known(values):
    """NaN, scikit-learn's word for undefined, to None."""
    return [None if np.isnan(v) else float(v) for v in values]


def aucs(truth, scores):
    """truth: [n, c] of 0/1; scores: [n, c]."""
    per_class = np.array([sk.roc_auc_score(t, s) for t, s in zip(truth.T, scores.T)])
    defined = ~np.isnan(per_class)
    macro = None
    if defined.any():
        macro = float(np.mean(per_class[defined]))
        if defined.sum() > 1:
            macro = float(sk.roc_auc_score(truth[:, defined], scores[:, defined], average="macro"))
    return {
        "auc_macro": macro,
        "auc_micro": known([sk.roc_auc_score(truth, scores, average="micro")])[0],
        "auc_per_class": known(per_class),
    }


def at_operating_point(true, predicted, classes):
    """true, predicted: [n] of class indices, or [n, c] of 0/1."""
    labels = range(classes)

    def fractions(average, zero_division):
        return sk.precision_recall_fscore_support(
            true, predicted, labels=labels, average=average, zero_division=zero_division
        )

    precision, sensitivity, f1, support = fractions(None, np.nan)
    precision_macro, sensitivity_macro, f1_macro, _ = fractions("macro", "warn")
    counts = sk.multilabel_confusion_matrix(true, predicted, labels=labels)
    # Specificity is the sensitivity of the absence of the class.
    binary = [np.repeat([[0, 0], [0, 1], [1, 0], [1, 1]], c.ravel(), axis=0).T for c in counts]
    specificity = [sk.recall_score(1 - t, 1 - p, zero_division=np.nan) for t, p in binary]
    specificity_macro = np.mean([sk.recall_score(1 - t, 1 - p) for t, p in binary])
    return {
        "f1_macro": float(f1_macro),
        "f1_per_class": known(f1),
        "sensitivity_macro": float(sensitivity_macro),
        "sensitivity_per_class": known(sensitivity),
        "specificity_macro": float(specificity_macro),
        "specificity_per_class": known(specificity),
        "precision_macro": float(precision_macro),
        "precision_per_class": known(precision),
        "positives_per_class": support.tolist(),
        "counts_per_class": [
            {"true_positive": tp, "false_positive": fp, "false_negative": fn, "true_negative": tn}
            for (tn, fp), (fn, tp) in counts.tolist()
        ],
    }


def short(scores):
    """float32 as its shortest decimals, which must read back as the same float32 by way of float64."""
    decimals = [float(str(s)) for s in scores.ravel()]
    assert np.array_equal(np.float32(decimals), scores.ravel())
    return decimals


def single_label(name, scores, labels):
    classes = scores.shape[1]
    predicted = scores.argmax(axis=1)
    accuracy = float(sk.accuracy_score(labels, predicted))
    return {
        "name": name,
        "classes": classes,
        "probabilities": short(scores),
        "labels": labels.tolist(),
        "expected": {
            "n": len(labels),
            "acc": accuracy,
            "exact_match": accuracy,
            "balanced_acc": float(sk.balanced_accuracy_score(labels, predicted)),
            **aucs(np.eye(classes, dtype=int)[labels], scores),
            **at_operating_point(labels, predicted, classes),
            "confusion": sk.confusion_matrix(labels, predicted, labels=range(classes)).tolist(),
        },
    }


def balanced_findings(labels, predicted):
    both = [(t, p) for t, p in zip(labels.T, predicted.T) if 0 < t.sum() < len(t)]
    return float(np.mean([sk.balanced_accuracy_score(t, p) for t, p in both])) if both else None


def multi_label(name, scores, labels, thresholds):
    classes = scores.shape[1]
    predicted = (scores >= thresholds).astype(int)
    return {
        "name": name,
        "classes": classes,
        "probabilities": short(scores),
        "labels": labels.ravel().tolist(),
        "thresholds": short(thresholds),
        "expected": {
            "n": len(labels),
            "acc": float(1 - sk.hamming_loss(labels, predicted)),
            "exact_match": float(sk.accuracy_score(labels, predicted)),
            "balanced_acc": balanced_findings(labels, predicted),
            **aucs(labels, scores),
            **at_operating_point(labels, predicted, classes),
            "confusion": None,
        },
    }


def cases():
    rng = np.random.default_rng(20240527)

    def informative(labels, classes, signal):
        return softmax(rng.normal(size=(len(labels), classes)) + signal * np.eye(classes)[labels])

    labels = rng.integers(0, 2, 80)
    yield single_label("binary", informative(labels, 2, 1.0), labels)

    labels = rng.permutation(np.repeat([0, 1, 2, 3], [110, 40, 15, 5]))
    yield single_label("four classes, imbalanced", informative(labels, 4, 1.5), labels)

    labels = rng.integers(0, 3, 120)
    yield single_label("heavy ties", np.round(informative(labels, 3, 1.0) * 5) / np.float32(5), labels)

    # Class 1 occurs but is never predicted; 2 neither occurs nor is predicted; 4 is predicted but never occurs.
    labels = rng.choice([0, 1, 3], 70)
    scores = informative(labels, 5, 1.0)
    scores[:, [1, 2]] /= 50
    assert {*scores.argmax(axis=1)} == {0, 3, 4}
    yield single_label("classes absent", scores, labels)

    labels = np.full(20, 1)
    yield single_label("one class only", informative(labels, 3, 0.5), labels)

    # Finding 1 is never present, 4 always, 5 never predicted.
    thresholds = np.array([0.5, 0.25, 0.7, 0.5, 0.5, 1.5], np.float32)
    labels = (rng.random((60, 6)) < [0.5, 0.0, 0.1, 0.3, 1.0, 0.2]).astype(int)
    scores = 1 / (1 + np.exp(-(rng.normal(size=labels.shape) + 1.5 * labels - 0.8)))
    scores = scores.astype(np.float32)
    scores[::7, :5] = thresholds[:5]
    yield multi_label("multi-label", scores, labels, thresholds)

    labels = (rng.random((40, 1)) < 0.4).astype(int)
    scores = (0.4 * rng.random(labels.shape) + 0.3 * labels).astype(np.float32)
    yield multi_label("multi-label, all negative and all found", np.hstack([scores, scores]),
                      np.hstack([labels, 0 * labels]), np.zeros(2, np.float32))


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # undefined metrics are the point
    text = json.dumps(list(cases()), separators=(",", ":"), allow_nan=False)
    OUT.write_text(text.replace('},{"name"', '},\n{"name"').replace(',"expected"', ',\n"expected"') + "\n")
