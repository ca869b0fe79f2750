"""The stubs say what the module is, and the package passes type checkers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: str) -> None:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_stubs_are_the_module() -> None:
    pytest.importorskip("mypy")
    run("mypy.stubtest", "melo_vit._melo")


def test_the_package_passes_mypy() -> None:
    pytest.importorskip("mypy")
    run("mypy", "python/melo_vit")


def test_package_and_examples_pass_pyright() -> None:
    pytest.importorskip("pyright")
    if shutil.which("node") is None:
        pytest.skip("pyright runs on Node.js")
    run("pyright", "--pythonpath", sys.executable)
