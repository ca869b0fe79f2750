"""What the documents, docstrings and examples show runs as it stands there."""

from __future__ import annotations

import ast
import doctest
import importlib.util
import io
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import CLASSES, drawn

import melo_vit as melo
from melo_vit import _melo, statistics

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "python" / "examples"

#: What a document's block may import, and be skipped for where it is absent.
OPTIONAL = ("PIL", "dask", "joblib", "monai", "pandas", "peft", "pydicom", "ray", "sklearn", "timm", "torch")


def absent(code: str) -> list[str]:
    """The optional libraries that the code imports and that are not here."""
    names = set[str]()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return sorted(name for name in names if name in OPTIONAL and importlib.util.find_spec(name) is None)


def task_folder(folder: Path, first: int) -> None:
    """A manifest of a task with its images; splits by patient."""
    folder.mkdir()
    rows = ["path,split,label,patient_id"]
    for place in range(24):
        (folder / f"{place}.png").write_bytes(_melo.encode_png(drawn(first + place)))
        split = "train" if place < 12 else "val" if place < 18 else "test"
        rows.append(f"{place}.png,{split},{CLASSES[(first + place) % 2]},p{place // 2}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")


def dicom_of(image: Any) -> bytes:
    """The image as DICOM where pydicom is here; else as PNG, which is told by content just so."""
    if importlib.util.find_spec("pydicom") is None:
        return _melo.encode_png(image)
    import pydicom

    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = *image.shape[:2], 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = image[..., 0].tobytes()
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


@pytest.fixture(scope="module")
def prepared(folder: Path, backbone: melo.Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All files that any document asks for by name."""
    here = tmp_path_factory.mktemp("documents") / "here"
    here.mkdir()
    shutil.copy(folder / "vit.safetensors", here / "vit.safetensors")
    shutil.copy(folder / "vit.safetensors", here / "deit_tiny_patch16_224.safetensors")
    shutil.copy(folder / "chest_film.safetensors", here / "cxr.safetensors")
    for name in ("film", "a", "smear"):
        shutil.copy(folder / "film.png", here / f"{name}.png")
    (here / "b.dcm").write_bytes(dicom_of(drawn(2, 80)))
    task_folder(here / "wbc", 100)
    task_folder(here / "cxr", 201)
    rows = (here / "wbc" / "labels.csv").read_text().splitlines()
    (here / "fundus.csv").write_text("\n".join([rows[0], *(f"wbc/{row}" for row in rows[1:])]) + "\n")
    linear = melo.train(backbone, here / "cxr" / "labels.csv", task="chest_film", method="linear", epochs=1, progress=False)
    shutil.copy(folder / "chest_film.safetensors", here)
    # A classifier alone changes no weight, so that this is the backbone as timm saves it.
    linear.to_timm(here / "vit")
    assert melo.Backbone.load(here / "vit").digest == backbone.digest
    return here


class Document:
    """The blocks of a document, each run once, in order, in one namespace and one folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8")
        self.blocks = [
            (self.text.count("\n", 0, found.start(1)), found.group(1))
            for found in re.finditer(r"^```python\n(.*?)^```$", self.text, re.MULTILINE | re.DOTALL)
        ]
        self.namespace: dict[str, Any] = {"__name__": path.stem}
        self.ran = 0

    def run(self, place: int) -> None:
        while self.ran <= place:
            line, code = self.blocks[self.ran]
            self.ran += 1
            if absent(code):
                if self.ran > place:
                    pytest.skip(f"needs {', '.join(absent(code))}")
                continue
            exec(compile("\n" * line + code, str(self.path), "exec", dont_inherit=True), self.namespace)


DOCUMENTS = {name: Document(ROOT / name) for name in ("README.md", "python/README.md", "docs/python.md")}
BLOCKS = [(name, place) for name, document in DOCUMENTS.items() for place in range(len(document.blocks))]


@pytest.fixture(scope="module")
def folders(prepared: Path) -> dict[str, Path]:
    """A copy for each document, since they write files."""
    of = {name: prepared.parent / name.replace("/", "-") for name in DOCUMENTS}
    for folder in of.values():
        shutil.copytree(prepared, folder)
    return of


@pytest.mark.parametrize(("name", "place"), BLOCKS, ids=[f"{name}:{DOCUMENTS[name].blocks[place][0] + 1}" for name, place in BLOCKS])
def test_blocks_of_documents_run(name: str, place: int, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folders[name])
    DOCUMENTS[name].run(place)


def test_lines_that_are_said_are_counted() -> None:
    text = DOCUMENTS["docs/python.md"].text

    def block(mark: str) -> str:
        found = re.search(rf"<!-- {mark} -->\n```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        assert found is not None
        return found.group(1)

    def lines(code: str) -> int:
        return sum(bool(line.strip()) for line in code.splitlines())

    theirs = block("peft")
    names = ("Apart", "temperature", "interval")
    apart = [ast.get_source_segment(theirs, node) or "" for node in ast.parse(theirs).body if getattr(node, "name", "") in names]
    assert len(apart) == len(names)
    said = f"{lines(theirs)} lines against {lines(block('melo'))}, without blank ones; {sum(map(lines, apart))} of them are"
    assert said in text


@pytest.mark.parametrize("module", [melo, statistics], ids=lambda module: module.__name__)
def test_docstrings_show_what_happens(module: ModuleType, prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(prepared)
    outcome = doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert outcome.attempted > 0 and outcome.failed == 0


@pytest.mark.parametrize(
    ("example", "libraries", "options"),
    [
        ("dask_bag", ["dask"], ["--jobs", "2", "--batch", "2"]),
        ("joblib_map", ["joblib"], ["--jobs", "2", "--batch", "2"]),
        ("monai_inferer", ["monai", "PIL"], []),
        ("ray_data", ["ray"], ["--actors", "1", "--batch", "2"]),
        ("torch_logits", ["torch", "timm", "PIL"], []),
    ],
)
def test_examples_run(example: str, libraries: list[str], options: list[str], folder: Path, plugin: melo.Plugin, tmp_path: Path) -> None:
    for library in libraries:
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"needs {library}")
    plugin.save(tmp_path / "spots.safetensors")
    given = ["--backbone", "vit.safetensors", "--plugin", tmp_path / "spots.safetensors", *options, *(f"{number}.png" for number in range(4))]
    command = [sys.executable, EXAMPLES / f"{example}.py", *given]
    done = subprocess.run([str(word) for word in command], cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    if example == "torch_logits":
        assert "4 images" in done.stdout
        return
    expected = melo.Predictor(plugin.backbone, plugin).predict([folder / f"{number}.png" for number in range(4)]).probabilities()[:, 0]
    pattern = {"ray_data": r'"spots": \[([^,]+),', "monai_inferer": r"'spots': \[([^,]+),"}.get(example, r'"p_empty": ([^,]+),')
    assert [float(p) for p in re.findall(pattern, done.stdout)] == pytest.approx(expected.tolist(), abs=1e-6), done.stdout


def test_every_example_is_run() -> None:
    marks: Any = test_examples_run.pytestmark[0]  # type: ignore[attr-defined]
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {example for example, _, _ in marks.args[1]}
