"""Writes crates/train/tests/golden/linear_probe.json: heads of scikit-learn's LogisticRegression on standardised features.

    pip install -r tools/golden/metrics-requirements.txt
    python tools/golden/linear_probe.py
"""

import json
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

OUT = Path(__file__).parents[2] / "crates/train/tests/golden/linear_probe.json"
IMAGES, WIDTH, CLASSES = 48, 10, 3


def solved(features, labels, strength, weights=None):
    """Weights and bias on features as they are."""
    scaler = StandardScaler().fit(features)
    model = LogisticRegression(C=strength, tol=1e-10, max_iter=100_000)
    model.fit(scaler.transform(features), labels, sample_weight=weights)
    weight = model.coef_ / scaler.scale_
    return weight, model.intercept_ - weight @ scaler.mean_


def main():
    rng = np.random.default_rng(5)
    # Of unequal spread and place, and one that does not vary.
    features = rng.normal(size=(IMAGES, WIDTH)) * 10 ** rng.uniform(-2, 1, WIDTH) + rng.normal(size=WIDTH)
    features[:, 3] = 0.25
    features = features.astype(np.float32)
    standard = StandardScaler().fit_transform(features.astype(np.float64))
    labels = (standard @ rng.normal(size=(WIDTH, CLASSES)) + rng.gumbel(size=(IMAGES, CLASSES))).argmax(1)
    findings = (standard @ rng.normal(size=(WIDTH, CLASSES)) + rng.logistic(size=(IMAGES, CLASSES)) > 0.5).astype(int)
    weights = rng.integers(1, 4, IMAGES)
    cases = []
    for strength in (0.01, 1.0, 30.0):
        for name, of in (("single_label", labels), ("weighted", labels), ("multi_label", findings)):
            wide = features.astype(np.float64)
            if name == "multi_label":
                each = [solved(wide, of[:, finding], strength) for finding in range(CLASSES)]
                weight, bias = np.concatenate([w for w, _ in each]), np.concatenate([b for _, b in each])
            else:
                weight, bias = solved(wide, of, strength, weights if name == "weighted" else None)
            logits = wide @ weight.T + bias
            if name != "multi_label":
                logits -= logits.mean(1, keepdims=True)
            cases.append({"name": name, "c": strength, "logits": [[round(x, 7) for x in row] for row in logits.tolist()]})
    golden = {
        "features": [[float(x) for x in row] for row in features],
        "labels": labels.tolist(),
        "findings": findings.tolist(),
        "weights": weights.tolist(),
        "cases": cases,
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(golden).replace("], [", "],\n[") + "\n")


if __name__ == "__main__":
    main()
