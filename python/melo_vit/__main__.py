"""The ``melo`` command."""

from __future__ import annotations

import sys


def main() -> None:
    from ._melo import main as run

    sys.exit(run(["melo", *sys.argv[1:]], [sys.executable, "-m", "melo_vit"]))


if __name__ == "__main__":
    main()
