"""Statistics as functions, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import melo_vit as melo
from melo_vit import statistics

RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 2, 200)
SCORES = TRUTH + RNG.normal(size=200)
OTHER = RNG.normal(size=200)


def test_areas_are_those_of_pairs() -> None:
    pairs = [(a > b) + (a == b) / 2 for a in SCORES[TRUTH == 1] for b in SCORES[TRUTH == 0]]
    found = statistics.delong(SCORES, TRUTH)
    assert found["auc"] == pytest.approx(np.mean(pairs), abs=1e-6)
    assert found["low"] < found["auc"] < found["high"]
    assert statistics.auc(SCORES, TRUTH).value == pytest.approx(found["auc"])
    paired = statistics.delong_paired(SCORES, OTHER, TRUTH)
    assert paired["auc_a"] == found["auc"] and paired["difference"] > 0 and 0 <= paired["p"] < 0.05


def test_patients_widen_an_interval() -> None:
    groups = np.repeat(np.arange(50), 4)
    twice = np.repeat(SCORES[::4], 4), np.repeat(TRUTH[::4], 4)
    of_cases, of_patients = statistics.auc(*twice), statistics.auc(*twice, groups=groups)
    assert of_patients.high - of_patients.low > of_cases.high - of_cases.low
    missing: list[Any] = [None, float("nan")] * 100
    assert statistics.auc(SCORES, TRUTH, groups=missing) == statistics.auc(SCORES, TRUTH)


def test_draws_depend_on_the_seed_alone() -> None:
    def mean(values: Any) -> float:
        return float(values.mean())

    one = statistics.bootstrap(mean, SCORES, replicates=300, seed=1)
    assert one == statistics.bootstrap(mean, SCORES, replicates=300, seed=1)
    assert one != statistics.bootstrap(mean, SCORES, replicates=300, seed=2)
    assert one.low < one.value < one.high


def test_calibration_and_shares() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.7, 0.3]])
    found = statistics.calibration(probabilities, [0, 1, 1, 0], bins=10)
    assert found["brier"] == pytest.approx(np.mean([0.02, 0.08, 0.72, 0.18]), abs=1e-6)
    assert 0 <= found["ece"] <= 1 and sum(count for _, _, count, _, _ in found["bins"]) == 4
    low, high = statistics.wilson(8, 10)
    assert 0.4 < low < 0.8 < high < 1


@pytest.mark.parametrize(
    "call",
    [
        lambda: statistics.delong([1, 2], [1]),
        lambda: statistics.delong([1, 2], [1, 1]),
        lambda: statistics.delong([np.nan, 2], [0, 1]),
        lambda: statistics.delong([1, 2], [0, 2]),
        lambda: statistics.delong([1, 2], [0, 1], level=2),
        lambda: statistics.delong(["a"], [1]),
        lambda: statistics.auc(SCORES, TRUTH, groups=[1]),
        lambda: statistics.bootstrap(np.mean),
        lambda: statistics.bootstrap(np.mean, [1, 2], [1]),
        lambda: statistics.bootstrap(np.mean, [1, 2], level=2),
        lambda: statistics.bootstrap(np.mean, [1, 2], seed=-1),
        lambda: statistics.bootstrap(lambda x: float("nan"), [1, 2], replicates=5),
        lambda: statistics.calibration([0.5, 0.5], [0, 1]),
        lambda: statistics.calibration([[0.5, 0.5]], [7]),
        lambda: statistics.calibration([[0.5, 0.5]], [-1]),
        lambda: statistics.calibration([[0.5, 0.5]], [0], bins=0),
        lambda: statistics.wilson(3, 2),
        lambda: statistics.wilson(-1, 2),
        lambda: statistics.wilson(0, 0),
    ],
)
def test_what_cannot_be_is_refused_by_name(call: Any) -> None:
    with pytest.raises((melo.DataError, melo.SettingError)):
        call()
