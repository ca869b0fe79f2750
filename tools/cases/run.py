"""Tries all generated inputs and writes their table: python tools/cases/run.py --melo target/release/melo [--only images,dicom]"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from collections import Counter
from pathlib import Path

from common import WRONG, Melo, Row

MODULES = ["images", "dicom", "arrays", "checkpoints", "descriptions", "adapters", "manifests"]


def table(rows: list[Row]) -> str:
    counts = Counter(row.verdict for row in rows)
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    lines = [f"{len(rows)} inputs: {said}."]
    for kind in dict.fromkeys(row.kind for row in rows):
        lines += ["", f"## {kind}", "", "| input | the other tool | melo |", "|---|---|---|"]
        for row in (row for row in rows if row.kind == kind):
            words = row.verdict + (f": {row.said}" if row.said else "")
            lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in (row.name, row.peer, words)) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--melo", type=Path, required=True)
    parser.add_argument("--only", default=",".join(MODULES))
    parser.add_argument("--write", type=Path, help="page to write; its lines above the first count are kept")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for module in arguments.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            rows += importlib.import_module(module).cases(Path(folder), Melo(arguments.melo.resolve()))
    wrong = [row for row in rows if row.verdict == WRONG]
    text = table(rows)
    if arguments.write:
        head = arguments.write.read_text().split("\n\n<!-- cases -->\n")[0] if arguments.write.exists() else "# Cases"
        arguments.write.write_text(f"{head}\n\n<!-- cases -->\n{text}")
    else:
        print(text)
    for row in wrong:
        print(f"WRONG: {row.kind}: {row.name}: {row.peer}: {row.said}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
