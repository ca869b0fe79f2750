"""Writes crates/cli/tests/golden/sweep: every setting of `descriptions.py` on the weights it was first tried on, with the library's answer.

    python tools/cases/golden.py

The Rust test `sweep` then holds melo to it without any of the libraries.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import descriptions
from common import Answer, Melo, Row
from tiny import Right, write_pictures

OUT = Path(__file__).parents[2] / "crates/cli/tests/golden/sweep"


class Recorder(Melo):
    """Takes down what melo would have been asked, and answers nothing."""

    def __init__(self) -> None:
        super().__init__(Path())
        self.weights: dict[bytes, str] = {}
        self.asked: dict = {}

    def __call__(self, *arguments: object, cwd: Path | None = None) -> Answer:
        folder = Path(str(arguments[arguments.index("--backbone") + 1]))
        weights = (folder / "model.safetensors").read_bytes()
        files = {path.name: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
        self.asked = {"weights": self.weights.get(weights), "bytes": weights, "files": files}
        return Answer(0, "", "")

    def keep(self) -> str:
        """Weights that are tried as they were saved are kept; those of another shape are not."""
        name = f"{len(self.weights)}.safetensors"
        self.weights[self.asked["bytes"]] = name
        (OUT / name).write_bytes(self.asked["bytes"])
        return name


def difference(base: dict, files: dict) -> dict:
    """Files with other content than in `base`; `null` for one that is gone."""
    return {name: files.get(name) for name in base | files if base.get(name) != files.get(name)}


def main() -> None:
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    melo, kinds = Recorder(), []

    def record(kind: str, name: str, right: Right, _: Answer, names: tuple[str, ...] = (), __: tuple[str, ...] = ()) -> Row:
        files = melo.asked["files"]
        if not kinds or kinds[-1]["kind"] != kind and kind not in [known["kind"] for known in kinds]:
            kinds.append({"kind": kind, "weights": melo.asked["weights"] or melo.keep(), "files": files, "cases": []})
        own = next(known for known in kinds if known["kind"] == kind)
        if melo.asked["weights"] == own["weights"] or not own["cases"]:
            right_of = right.probabilities and [[round(p, 5) for p in row] for row in right.probabilities]
            # No number is no answer.
            right_of = None if right_of and any(p != p for row in right_of for p in row) else right_of
            own["cases"].append({"name": name, "names": names, "files": difference(own["files"], files), "right": right_of})
        return Row(kind, name, "", "")

    descriptions.judge = record
    with tempfile.TemporaryDirectory() as folder:
        for _ in descriptions.cases(Path(folder), melo):
            pass
    write_pictures(OUT)
    (OUT / "cases.json").write_text(json.dumps(kinds, separators=(",", ":")) + "\n")
    print(sum(len(kind["cases"]) for kind in kinds), "cases,", sum(path.stat().st_size for path in OUT.iterdir()), "bytes")


if __name__ == "__main__":
    main()
