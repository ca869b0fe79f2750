"""Writes crates/train/tests/golden/conformal.json: scores, and the prediction sets that MAPIE and crepes make of them.

    pip install -r tools/golden/conformal-requirements.txt
    python tools/golden/conformal.py

Deterministic: running it again changes nothing. `lac`, `aps` and `residual` are MAPIE's split conformal classifier and regressor on given
outputs; `class_conditional` and `findings` are crepes' Mondrian classifier (hinge score, no smoothing), of a finding on (absent, present).
crepes takes in what has a p value of exactly 1 - coverage, one score more than the quantile where (n + 1) coverage is whole: of these
coverages it is not.
MAPIE subtracts a random share of the true class's probability in APS; here it is all of it, so that its sets, which take in the class that
crosses the threshold (its default), are those of the score "all that is more probable". `raps` are MAPIE's regularised scores alone, with
lambda 0.1 and k 1: its sets hold another penalty against them.
"""

import json
from pathlib import Path

import numpy as np
from crepes import ConformalClassifier
from crepes.extras import hinge
from mapie.classification import SplitConformalClassifier
from mapie.conformity_scores import RAPSConformityScore
from mapie.regression import SplitConformalRegressor
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

OUT = Path(__file__).parents[2] / "crates/train/tests/golden/conformal.json"
COVERAGES = [0.81, 0.87, 0.94]
FIT, NEW, CLASSES = 90, 40, 4


class All(np.random.RandomState):
    """Random numbers that are all 1."""

    def uniform(self, low=0.0, high=1.0, size=None):
        return np.ones(size)


class Outputs(ClassifierMixin, BaseEstimator):
    """A classifier whose inputs are its probabilities."""

    classes_ = np.arange(CLASSES)
    n_features_in_ = CLASSES
    fitted_ = True

    def fit(self, x, y):
        return self

    def predict_proba(self, x):
        return x

    def predict(self, x):
        return x.argmax(axis=1)


class Numbers(RegressorMixin, BaseEstimator):
    """A regressor whose inputs are its answers."""

    n_features_in_ = 1
    fitted_ = True

    def fit(self, x, y):
        return self

    def predict(self, x):
        return x[:, 0]


def mapie(score, p, labels, new):
    model = SplitConformalClassifier(Outputs(), COVERAGES, conformity_score=score, random_state=All())
    _, sets = model.conformalize(p, labels).predict_set(new)
    return [sets[:, :, at].astype(int).tolist() for at in range(len(COVERAGES))]


def crepes(p, labels, new, classes):
    """Membership [new, classes] for each coverage, each class held to its own."""
    model = ConformalClassifier().fit(hinge(p, classes, labels), bins=labels)
    sets = []
    for coverage in COVERAGES:
        of_class = [
            model.predict_set(hinge(new), bins=np.full(len(new), k), confidence=coverage, smoothing=False)[:, k]
            for k in classes
        ]
        sets.append(np.stack(of_class, axis=1).astype(int).tolist())
    return sets


def main():
    rng = np.random.default_rng(20)
    logits = rng.normal(size=(FIT + NEW, CLASSES)) * 1.5 + np.array([0.8, 0.4, 0.0, 0.0])
    p32 = np.exp(logits - logits.max(1, keepdims=True))
    p32 = (p32 / p32.sum(1, keepdims=True)).astype(np.float32)
    labels = np.array([rng.choice(CLASSES, p=row / row.sum()) for row in p32.astype(np.float64)])
    p = p32.astype(np.float64)
    fit, new, truth = p[:FIT], p[FIT:], labels[:FIT]
    # MAPIE wants rows that sum to one.
    fit_one, new_one = fit / fit.sum(1, keepdims=True), new / new.sum(1, keepdims=True)

    f32 = (1 / (1 + np.exp(-rng.normal(size=(FIT + NEW, 2)) * 1.5))).astype(np.float32)
    findings = (rng.random((FIT + NEW, 2)) < f32).astype(int)
    of_findings = []
    for k in range(2):
        both = np.stack([1 - f32[:, k].astype(np.float64), f32[:, k].astype(np.float64)], axis=1)
        of_findings.append(crepes(both[:FIT], findings[:FIT, k], both[FIT:], np.arange(2)))

    answers = (rng.normal(size=FIT + NEW) * 10 + 60).astype(np.float32)
    numbers = (answers + rng.normal(size=FIT + NEW) * 3).astype(np.float32)
    regressor = SplitConformalRegressor(Numbers(), COVERAGES, conformity_score="absolute")
    of_numbers = regressor.conformalize(answers[:FIT, None].astype(np.float64), numbers[:FIT].astype(np.float64))
    _, intervals = of_numbers.predict_interval(answers[FIT:, None].astype(np.float64))

    raps = RAPSConformityScore()
    raps.classes, raps.random_state = np.arange(CLASSES), All()
    raw = super(RAPSConformityScore, raps).get_conformity_scores(truth, fit_one, y_enc=truth)
    regularised = RAPSConformityScore._regularize_conformity_score(np.array([1.0]), np.array([0.1]), raw, raps.cutoff)

    golden = {
        "coverages": COVERAGES,
        "probabilities": p32[:FIT].tolist(),
        "labels": truth.tolist(),
        "new_probabilities": p32[FIT:].tolist(),
        "lac": mapie("lac", fit_one, truth, new_one),
        "aps": mapie("aps", fit_one, truth, new_one),
        "class_conditional": crepes(fit, truth, new, np.arange(CLASSES)),
        "raps_scores": regularised[:, 0, 0].tolist(),
        "finding_probabilities": f32[:FIT].tolist(),
        "finding_labels": findings[:FIT].tolist(),
        "new_finding_probabilities": f32[FIT:].tolist(),
        "findings": of_findings,
        "answers": answers[:FIT].tolist(),
        "numbers": numbers[:FIT].tolist(),
        "new_answers": answers[FIT:].tolist(),
        "residual": [intervals[:, :, at].tolist() for at in range(len(COVERAGES))],
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(golden, separators=(",", ":")) + "\n")
    print(OUT, OUT.stat().st_size, "bytes")
    for name in ("lac", "aps", "class_conditional"):
        print(name, [np.sum(sets, axis=1).mean() for sets in golden[name]])


if __name__ == "__main__":
    main()
