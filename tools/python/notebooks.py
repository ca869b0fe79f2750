"""Jupytext percent sources of `python/notebooks` to `.ipynb`, without outputs.

    python tools/python/notebooks.py OUT [NAME ...]
    python tools/python/notebooks.py OUT --execute      # runs each, and fails on the first error

Needs nbformat; with `--execute` nbclient and ipykernel.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "python" / "notebooks"

#: Seconds that one cell may take.
CELL_TIMEOUT_S = 300

MARKER = re.compile(r"^# %%(?P<kind> \[markdown\])?\s*$", re.MULTILINE)


def notebook_of(text: str, name: str) -> nbformat.NotebookNode:
    """The cells behind the header; text of markdown cells is behind `# `."""
    marks = list(MARKER.finditer(text))
    if not marks:
        raise ValueError(f"{name}: has no line `# %%`")
    cells = []
    for mark, end in zip(marks, [*(mark.start() for mark in marks[1:]), len(text)], strict=True):
        source = text[mark.end() : end].strip("\n")
        if mark["kind"]:
            lines = source.splitlines()
            if bad := [line for line in lines if not re.match(r"#( |$)", line)]:
                raise ValueError(f"{name}: in a markdown cell, no comment: {bad[0]}")
            cell = new_markdown_cell("\n".join(line[2:] for line in lines))
        else:
            cell = new_code_cell(source)
        cell["id"] = f"cell-{len(cells)}"  # the same bytes each time
        cells.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return new_notebook(cells=cells, metadata={"kernelspec": kernel, "language_info": {"name": "python"}})


def execute(notebook: nbformat.NotebookNode, name: str) -> None:
    """Runs a copy, so that no output stays."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    copied = nbformat.from_dict(notebook)
    try:
        NotebookClient(copied, timeout=CELL_TIMEOUT_S, kernel_name="python3", resources={"metadata": {"path": str(SOURCES)}}).execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        sys.exit(f"{name}: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder for the notebooks")
    parser.add_argument("names", nargs="*", help="sources without `.py` [default: all]")
    parser.add_argument("--execute", action="store_true")
    args = parser.parse_args()

    args.out.mkdir(parents=True, exist_ok=True)
    for source in sorted(SOURCES.glob("*.py")) if not args.names else [SOURCES / f"{name}.py" for name in args.names]:
        notebook = notebook_of(source.read_text(encoding="utf-8"), source.name)
        nbformat.validate(notebook)
        nbformat.write(notebook, args.out / f"{source.stem}.ipynb")
        if args.execute:
            execute(notebook, source.name)
        print(args.out / f"{source.stem}.ipynb")


if __name__ == "__main__":
    main()
