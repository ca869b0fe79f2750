"""Which class is called where classes are uneven (decision 0038): by the rule of `melo train`, and by two simpler ones; and what its defaults changed.

    python tools/seven/calls.py RUN [METHOD] [--before RUN]

RUN is the folder of a finished `melo study`: its cells hold the logits of validation and test. Of the cells of METHOD (lora) prints the figures of the test
split under three rules: the most probable class; where validation is uneven, the highest probability over its mean there; and melo's, that one only where it
raises validation's balanced accuracy. With `--before`, a study by other defaults: its figures with the most probable class against those of RUN by melo's rule.
Of findings AUCs alone. Differences are means over tasks with a 95 % interval of Student's t over tasks. Needs numpy, scipy and scikit-learn.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from scipy import stats
from sklearn.metrics import roc_auc_score

#: As `melo_train::UNEVEN`.
UNEVEN = 1.5
RULES = ["most probable", "over its mean", "melo's"]
FIGURES = ["macro AUC", "AUC of the rarest", "balanced accuracy", "sensitivity of the rarest", "accuracy"]


def probabilities(split, temperature):
    logits = np.array(split["logits"]).reshape(-1, split["classes"]) / temperature
    if split["kind"] == "multi_label":
        return 1 / (1 + np.exp(-logits))
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def truth(split):
    labels = np.array(split["labels"])
    return labels.reshape(-1, split["classes"]) if split["kind"] == "multi_label" else np.eye(split["classes"], dtype=int)[labels]


def of_calls(called, labels, rarest):
    sensitivities = [np.mean(called[labels == c] == c) for c in np.unique(labels)]
    return [np.mean(sensitivities), np.mean(called[labels == rarest] == rarest), np.mean(called == labels)]


def figures(result):
    """The rarest class, and figures [rule, figure]."""
    val, test = (probabilities(result[split], result["temperature"]) for split in ["val", "test"])
    val_truth, test_truth = truth(result["val"]), truth(result["test"])
    counts = val_truth.sum(0)
    rarest, uneven, means = counts.argmin(), counts.max() >= UNEVEN * counts.min(), val.mean(0)
    aucs = [roc_auc_score(test_truth[:, c], test[:, c]) for c in range(test.shape[1])]
    found = [[np.mean(aucs), aucs[rarest]]] * len(RULES)
    if result["val"]["kind"] == "multi_label":
        return result["classes"][rarest], [of_rule + [np.nan] * 3 for of_rule in found]
    labels = test_truth.argmax(1)
    raised = of_calls((val / means).argmax(1), val_truth.argmax(1), rarest)[0] > of_calls(val.argmax(1), val_truth.argmax(1), rarest)[0]
    plain, shifted = test.argmax(1), (test / means).argmax(1)
    called = [plain, shifted if uneven else plain, shifted if uneven and raised else plain]
    return result["classes"][rarest], [of_rule + of_calls(c, labels, rarest) for of_rule, c in zip(found, called)]


def cells(run, method):
    """By task, the rarest class and the means over seeds."""
    found = {}
    for path in sorted(run.glob(f"cells/*/*/{method}/*/result.json")):
        rarest, of_seed = figures(json.loads(path.read_text()))
        found.setdefault((path.parts[-5], rarest), []).append(of_seed)
    return {task: np.mean(seeds, axis=0) for task, seeds in found.items()}


def show(tasks, names):
    """A row a task and name; `tasks` to [name, figure]. Then the differences to the first name."""
    print("| task (its rarest) | | " + " | ".join(FIGURES) + " |\n|---|---" + "|---" * len(FIGURES) + "|")
    cell = lambda x: "–" if np.isnan(x) else f"{x:.3f}"
    for (task, rarest), values in tasks.items():
        for name, of_name in zip(names, values):
            print(f"| {task} ({rarest}) | {name} | " + " | ".join(map(cell, of_name)) + " |")
    values = np.array(list(tasks.values()))
    for place in range(1, len(names)):
        row = []
        for figure in range(len(FIGURES)):
            difference = values[:, place, figure] - values[:, 0, figure]
            difference = difference[~np.isnan(difference)]
            half = stats.t.ppf(0.975, len(difference) - 1) * stats.sem(difference)
            row.append(f"{difference.mean():+.3f} [{difference.mean() - half:+.3f}, {difference.mean() + half:+.3f}]")
        print(f"| mean difference | {names[place]} | " + " | ".join(row) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("method", nargs="?", default="lora")
    parser.add_argument("--before", type=Path)
    args = parser.parse_args()
    now = cells(args.run, args.method)
    show(now, RULES)
    if args.before:
        before = cells(args.before, args.method)
        print()
        show({task: np.array([before[task][0], now[task][-1]]) for task in now}, ["before", "now"])


if __name__ == "__main__":
    main()
