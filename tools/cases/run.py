"""Tries all generated inputs and writes their table: python tools/cases/run.py --melo target/release/melo [--only images,dicom]"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from common import EQUAL, REFUSED, WARNED, WRONG, Melo, Row

BEGIN, END = "<!-- cases -->", "<!-- /cases -->"
MODULES = ["images", "dicom", "arrays", "checkpoints", "descriptions", "adapters", "manifests"]


# Kinds with more rows than this are a line with their counts, and what is not simply equal or refused.
MOST_ROWS = 80
VERDICTS = [EQUAL, REFUSED, WARNED, WRONG]


def line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def summary(rows: list[Row]) -> list[str]:
    """A line a kind, and one for all."""
    lines = [line(["kind", "inputs", *VERDICTS]), "|---|" + "---|" * (len(VERDICTS) + 1)]
    kinds = {kind: [row for row in rows if row.kind == kind] for kind in dict.fromkeys(row.kind for row in rows)}
    for kind, own in [*kinds.items(), ("all", rows)]:
        counts = Counter(row.verdict for row in own)
        lines.append(line([kind, str(len(own)), *(str(counts[verdict]) for verdict in VERDICTS)]))
    return lines


def each(rows: list[Row]) -> list[str]:
    lines = []
    for kind in dict.fromkeys(row.kind for row in rows):
        own = [row for row in rows if row.kind == kind]
        if len(own) > MOST_ROWS:
            own = [row for row in own if row.verdict in (WARNED, WRONG)]
        if own:
            lines += ["", f"### {kind}", "", line(["input", "the other tool", "melo"]), "|---|---|---|"]
            lines += [line([row.name, row.peer, row.verdict + (f": {row.said}" if row.said else "")]) for row in own]
    return lines


def write(page: Path, lines: list[str]) -> None:
    """Replaces what stands between the page's two marks."""
    before, rest = page.read_text().split(f"{BEGIN}\n")
    _, after = rest.split(END)
    page.write_text("\n".join([before + BEGIN, *lines, END]) + after)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--melo", type=Path, required=True)
    parser.add_argument("--only", default=",".join(MODULES))
    parser.add_argument("--summary", type=Path, help=f"page with {BEGIN} and {END}, between which the counts are written")
    parser.add_argument("--write", type=Path, help="page with the same marks, between which the rows are written")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for module in arguments.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            found = importlib.import_module(module).cases(Path(folder), Melo(arguments.melo.resolve()))
            rows += [replace(row, said=row.said.replace(f"{folder}/", "")) for row in found]
    wrong = [row for row in rows if row.verdict == WRONG]
    if arguments.summary:
        write(arguments.summary, summary(rows))
    if arguments.write:
        write(arguments.write, each(rows))
    print("\n".join(summary(rows)))
    for row in wrong:
        print(f"WRONG: {row.kind}: {row.name}: {row.peer}: {row.said}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
