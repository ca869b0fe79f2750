"""Writes crates/eval/tests/golden/decision_curve.json: probabilities, labels, and the net benefit that dcurves makes of them.

    pip install -r tools/golden/decision_curve-requirements.txt
    python tools/golden/decision_curve.py

Deterministic: running it again changes nothing. All data are drawn here.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from dcurves import dca

OUT = Path(__file__).parents[2] / "crates/eval/tests/golden/decision_curve.json"
THRESHOLDS = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9]


def case(rng, images, share, digits):
    truth = (rng.random(images) < share).astype(int)
    logit = 1.5 * truth + rng.normal(size=images) - 1.5
    # Few digits make ties, and probabilities that are thresholds.
    probability = np.round(1 / (1 + np.exp(-logit)), digits)
    found = dca(data=pd.DataFrame({"truth": truth, "model": probability}), outcome="truth", modelnames=["model"], thresholds=np.array(THRESHOLDS))
    of = lambda name: [float(found[(found.model == name) & np.isclose(found.threshold, at)].net_benefit.iloc[0]) for at in THRESHOLDS]
    return {"probabilities": probability.tolist(), "positive": truth.astype(bool).tolist(), "model": of("model"), "all": of("all")}


rng = np.random.default_rng(20)
cases = [case(rng, 40, 0.5, 2), case(rng, 120, 0.1, 4), case(rng, 60, 0.3, 1)]
OUT.write_text(json.dumps({"thresholds": THRESHOLDS, "cases": cases}) + "\n")
