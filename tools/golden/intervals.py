"""Writes crates/eval/tests/golden/intervals.json: intervals by patient of shares and AUCs.

    pip install -r tools/golden/eval_statistics-requirements.txt
    python tools/golden/intervals.py              # deterministic: running it again changes nothing
    python tools/golden/intervals.py --coverage   # how often the intervals hold the truth, for docs/decisions/0015

Variances of shares are statsmodels' cluster-robust ones, of AUCs the pairwise definition, Wilson's interval is scipy's where the
number of cases is whole, Newcombe's a root found by scipy.
"""

import json
import sys
from pathlib import Path

import numpy as np
import statsmodels.api as sm
from scipy import stats
from scipy.optimize import brentq
from scipy.special import expit, logit

OUT = Path(__file__).parents[2] / "crates/eval/tests/golden/intervals.json"
LEVEL = 0.95
Z = stats.norm.ppf(0.5 + LEVEL / 2)


def wilson(p, n):
    """The proportions q with (p - q)² = z² q (1 - q) / n, as roots of the quadratic equation."""
    roots = np.roots([1 + Z * Z / n, -(2 * p + Z * Z / n), p * p]).real
    low, high = sorted(roots)
    k = p * n
    if abs(k - round(k)) < 1e-9 and abs(n - round(n)) < 1e-9:
        known = stats.binomtest(round(k), round(n)).proportion_ci(LEVEL, "wilson")
        assert np.allclose([low, high], [known.low, known.high], atol=1e-9)
    return max(low, 0.0), min(high, 1.0)


def share(right, patients):
    n, p = len(right), right.mean()
    sizes = np.unique(patients, return_counts=True)[1]
    if np.ptp(right) == 0 or len(sizes) == 1:
        return p, *wilson(p, n * n / (sizes**2).sum())
    fit = sm.OLS(right, np.ones(n)).fit(cov_type="cluster", cov_kwds={"groups": patients})
    variance = fit.cov_params().item() * (n - 1) / n
    return p, *wilson(p, p * (1 - p) / max(variance, p * (1 - p) / n))


def newcombe_half(auc, m, n):
    auc = max(auc, 1 - auc)
    more = (m + n) / 2 - 1

    def variance(a):
        return a * (1 - a) * (1 + more * (1 - a) / (2 - a) + more * a / (1 + a)) / (m * n)

    grid = np.linspace(1e-6, auc - 1e-9, 10_001)
    above = np.flatnonzero(auc - grid > Z * np.sqrt(variance(grid)))[-1]
    return auc - brentq(lambda a: auc - a - Z * np.sqrt(variance(a)), grid[above], grid[above + 1])


def components(scores, truth, patients):
    """(AUC, contribution of each patient, half width that is owed to what does not vary)."""
    positive, negative = scores[truth == 1], scores[truth == 0]
    won = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    auc = won.mean()
    of, ids = np.unique(patients, return_inverse=True)
    total = np.zeros(len(of))
    in_kind = [len(set(patients[truth == kind])) for kind in (1, 0)]
    flat = np.ptp(won.mean(axis=1)) == 0 and np.ptp(won.mean(axis=0)) == 0
    if flat or 1 in in_kind:
        return auc, total, newcombe_half(auc, *in_kind)
    for kind, axis, clusters in ((1, 1, in_kind[0]), (0, 0, in_kind[1])):
        parts = (won.mean(axis=axis) - auc) / (truth == kind).sum()
        total += np.sqrt(clusters / (clusters - 1)) * np.bincount(ids[truth == kind], parts, len(of))
    return auc, total, 0.0


def area(columns, truth, patients):
    """Macro AUC of `columns [n, c]` against `truth [n, c]`, with its interval."""
    parts = [components(s, t, patients) for s, t in zip(columns.T, truth.T)]
    auc, total, owed = (np.mean([part[i] for part in parts], axis=0) for i in range(3))
    half = np.sqrt(Z * Z * (total**2).sum() + owed**2)
    if auc == 1:
        return auc, max(1 - half, 0.0), 1.0
    if auc == 0:
        return auc, 0.0, min(half, 1.0)
    return auc, *expit(logit(auc) + np.array([-1, 1]) * half / (auc * (1 - auc)))


def drawn(rng, patients, most, classes, signal, digits=3):
    sizes = rng.integers(1, most + 1, patients)
    ids = np.repeat(np.arange(patients), sizes)
    label = rng.integers(0, classes, patients)[ids]
    noise = rng.normal(size=(patients, classes))[ids] + rng.normal(size=(len(ids), classes))
    scores = np.round(noise + signal * np.eye(classes)[label], digits)
    return ids, label, scores


def cases(rng):
    for name, args in {
        "one image a patient": (40, 1, 2, 1.5),
        "several images a patient": (25, 4, 2, 1.5),
        "four classes": (50, 3, 4, 2.0),
        "ties": (30, 3, 3, 1.0, 0),
        "near 1": (24, 2, 2, 6.0),
    }.items():
        yield name, *drawn(rng, *args)
    perfect = np.repeat([0, 1], 3)
    yield "three against three in perfect order", np.arange(6), perfect, np.eye(2)[perfect]
    patients = np.repeat(np.arange(9), 2)
    perfect = patients % 3
    yield "perfect, two images a patient", patients, perfect, np.eye(3)[perfect]
    labels = np.repeat([0, 1, 1], [41, 20, 9])
    yield "constant", np.arange(70), labels, np.tile([1.0, 0.0], (70, 1))
    labels = np.r_[0, 0, 0, 1, 1, 1, 1]
    yield "one patient of a class", np.r_[0, 0, 0, 1, 2, 3, 4], labels, np.round(rng.normal(size=(7, 2)), 2)


def golden():
    rows = []
    for name, patients, labels, scores in cases(np.random.default_rng(20261128)):
        truth = np.eye(scores.shape[1], dtype=int)[labels]
        right = (scores.argmax(axis=1) == labels).astype(float)
        rows.append(
            {
                "name": name,
                "classes": scores.shape[1],
                "patients": patients.tolist(),
                "labels": labels.tolist(),
                "scores": scores.ravel().tolist(),
                "acc": [float(x) for x in share(right, patients)],
                "auc_macro": [float(x) for x in area(scores, truth, patients)],
                "auc_per_class": [
                    [float(x) for x in area(s[:, None], t[:, None], patients)] for s, t in zip(scores.T, truth.T)
                ],
                "sensitivity": [[float(x) for x in share(right[labels == k], patients[labels == k])] for k in range(scores.shape[1])],
            }
        )
    OUT.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")


def coverage(rounds=2000):
    rng = np.random.default_rng(0)
    print("shares: patients, images of each, truth, correlation -> coverage")
    for patients in (10, 20, 40):
        for most, dependence in ((1, 0), (5, 0.5)):
            for truth in (0.6, 0.9, 0.97):
                held = 0
                for _ in range(rounds):
                    p = np.full(patients, truth)
                    if dependence:
                        p = rng.beta(truth * (1 / dependence - 1), (1 - truth) * (1 / dependence - 1), patients)
                    ids = np.repeat(np.arange(patients), rng.integers(1, most + 1, patients))
                    _, low, high = share((rng.random(len(ids)) < p[ids]).astype(float), ids)
                    held += low <= truth <= high
                print(patients, most, truth, dependence, held / rounds, flush=True)
    print("AUC: patients with, without, images of each, truth -> coverage, of the plain DeLong interval")
    for m, n in ((3, 3), (5, 20), (18, 52), (50, 50)):
        for truth in (0.7, 0.9, 0.98):
            for each in (1, 3):
                shift = np.sqrt(2) * stats.norm.ppf(truth)
                held = plain = 0
                for _ in range(rounds):
                    ids = np.repeat(np.arange(m + n), each)
                    label = (ids < m).astype(int)
                    spread = rng.normal(size=m + n)[ids] if each > 1 else 0
                    own = rng.normal(size=len(ids))
                    scores = (spread + own) / np.sqrt(2 if each > 1 else 1) + shift * label
                    _, low, high = area(scores[:, None], label[:, None], ids)
                    held += low <= truth <= high
                    auc, total, _ = components(scores, label, np.arange(len(ids)))
                    plain += abs(auc - truth) <= Z * np.sqrt((total**2).sum())
                print(m, n, each, truth, held / rounds, plain / rounds, flush=True)


if __name__ == "__main__":
    coverage() if "--coverage" in sys.argv else golden()
