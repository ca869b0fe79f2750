"""Writes crates/study/tests/golden/shortcut.json: sizes and brightnesses, labels, and what scikit-learn's logistic
regression makes of them.

    pip install -r tools/golden/metrics-requirements.txt
    python tools/golden/shortcut.py

Deterministic: running it again on one machine changes nothing. Rows are
[width, height, bytes, brightness, contrast, saturation, red_cast, blue_cast]; `scores` are the decision values of the
test rows, [test, classes], one class against the rest.
"""

import json
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

OUT = Path(__file__).parents[2] / "crates/study/tests/golden/shortcut.json"


def features(rows):
    """The nine features of melo_study::shortcut."""
    w, h, size, *rest = np.array(rows).T
    return np.stack([w, h, w / h, size / (w * h), *rest], axis=1)


def case(seed, classes, pull, grey):
    rng = np.random.default_rng(seed)
    rows, labels = [], []
    for _ in range(90):
        label = int(rng.integers(classes))
        width, height = int(rng.choice([256, 200, 180])), 192
        light = rng.normal(110 + pull * label, 20)
        colour = [0.0, 0.0, 0.0] if grey else rng.normal([40, 15, -20], [8, 4, 6])
        row = [width, height, int(rng.integers(4000, 9000)), light, rng.normal(50, 9), *colour]
        rows.append([float(round(value, 3)) for value in row])
        labels.append(label)
    labels = np.array(labels)
    x = StandardScaler().fit(features(rows[:60]))
    train, test = x.transform(features(rows[:60])), x.transform(features(rows[60:]))
    scores = []
    for label in range(classes):
        model = LogisticRegression(C=1.0, solver="newton-cholesky", tol=1e-12, max_iter=1000)
        scores.append(model.fit(train, labels[:60] == label).decision_function(test))
    aucs = [roc_auc_score(labels[60:] == label, score) for label, score in enumerate(scores)]
    return {
        "classes": classes,
        "rows": rows,
        "labels": labels.tolist(),
        "train": 60,
        "scores": np.array(scores).T.tolist(),
        "auc_macro": float(np.mean(aucs)),
    }


def main():
    cases = {
        "three_classes_in_colour": case(1, 3, 12, False),
        "two_classes_in_grey_nearly_separable": case(2, 2, 70, True),
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(cases) + "\n")


if __name__ == "__main__":
    main()
