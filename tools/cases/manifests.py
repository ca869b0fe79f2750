"""Manifests and folders as spreadsheets, contests and laboratories write them.

What cells hold is asked of pandas (of openpyxl for workbooks) under the separator and encoding with which the case was written; what a
folder of classes holds, of torchvision's rule: sorted folders, files that are images. Compared are images, classes or findings, images
of each, patients and splits of `melo data check --json`; what must be warned of is a kind of warning, named with its rows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from common import EQUAL, REFUSED, WARNED, WRONG, Answer, Melo, Row
from PIL import Image

LETTERS = "abcdefgh"


@dataclass
class Case:
    """A table, how pandas reads it, and which of its columns are what."""

    name: str
    table: str | bytes | pd.DataFrame
    file: str = "labels.csv"
    options: dict = field(default_factory=dict)  # of pandas.read_csv
    path: str = "path"
    label: str | None = "label"
    findings: list[str] = field(default_factory=list)
    one_hot: bool = False
    bars: bool = False  # findings between | in the column of labels
    patient: str | None = None
    split: str | None = None
    warns: str | None = None  # kind of the warning that is due
    refused: str | None = None  # words of the refusal that is due
    arguments: tuple[str, ...] = ()
    images: Callable[[str], str] = lambda name: name  # file of an image, in the folder
    missing: bool = False  # images are not there
    argument: str = ""  # what is checked, where it is not the table


def picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8)
    suffix = path.suffix.lower()
    Image.fromarray(noise).save(path, format="JPEG" if suffix in {".jpg", ".jpeg", ".jfif"} else "PNG")


def table_of(case: Case, path: Path) -> pd.DataFrame:
    if path.suffix == ".xlsx":
        return pd.read_excel(path, dtype=str, keep_default_na=False)
    return pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True, **case.options)


FLAGS = {"true": 1, "false": 0, "yes": 1, "no": 0}


def flag(text: str) -> int:
    return FLAGS[text.lower()] if text.lower() in FLAGS else int(float(text.replace(",", ".")))


def expected(case: Case, frame: pd.DataFrame) -> dict:
    """What `data check` should say, from the cells."""
    frame = frame.map(str.strip)
    frame = frame[frame[case.path] != ""]
    frame = frame[frame[case.path] != case.path]
    key = frame[case.path].str.replace("\\", "/", regex=False).str.removeprefix("./")
    if case.findings and not case.one_hot:
        flags = frame[case.findings].map(flag).groupby(key).max()
        counts = {name: int(flags[name].sum()) for name in case.findings}
    elif case.bars:
        none = {"no finding", ""}
        shown = [set(cell.split("|")) for cell in frame[case.label]]
        names = sorted({name for cell in shown for name in cell if name.lower() not in none})
        counts = {name: sum(name in cell for cell in shown) for name in names}
    else:
        labels = frame[case.findings].map(flag).idxmax(axis=1) if case.one_hot else frame[case.label]
        counts = dict(sorted(labels.groupby(key).first().value_counts().items()))
    said = {"images": int(key.nunique()), "counts": counts, "multi_label": bool(case.bars or (case.findings and not case.one_hot))}
    if case.patient:
        ids = frame[case.patient]
        said["patients"] = int(ids[ids != ""].nunique())
    if case.split:
        words = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}
        splits = frame[case.split].str.lower().replace(words).groupby(key).first()
        said["splits"] = dict(sorted(splits.value_counts().items()))
    return said


def found(report: dict) -> dict:
    counts = [sum(split["images_of"][index] for split in report["splits"]) for index in range(len(report["classes"]))]
    splits = {split["split"]: split["images"] for split in report["splits"]}
    return {
        "images": report["images"],
        "counts": dict(zip(report["classes"], counts, strict=True)),
        "multi_label": report["multi_label"],
        "patients": report["patients"],
        "splits": splits,
    }


def words(said: dict) -> str:
    kind = "findings" if said["multi_label"] else "classes"
    counts = ", ".join(f"{name} {count}" for name, count in said["counts"].items())
    more = "".join(f"; {said[part]} {part}" for part in ("patients",) if part in said)
    return f"{said['images']} images, {kind} {counts}{more}"


def judge(kind: str, name: str, said: dict | None, due: str | None, refused: str | None, answer: Answer, missing: bool) -> Row:
    peer = words(said) if said else "not a data set"
    if refused is not None:
        lines = [line for line in answer.err.splitlines() if line.startswith("melo: ")]
        right = answer.code != 0 and len(lines) == 1 and refused in lines[0]
        return Row(kind, name, peer, REFUSED if right else WRONG, lines[-1].removeprefix("melo: ")[-160:] if lines else answer.out[:160])
    if not answer.out.startswith("{"):
        return Row(kind, name, peer, WRONG, answer.err.strip()[-200:])
    report = json.loads(answer.out)
    seen = found(report)
    same = all(seen[part] == value for part, value in (said or {}).items())
    unreadable = [problem for problem in report["problems"] if problem["kind"] == "unreadable"]
    if not same or (unreadable and not missing):
        return Row(kind, name, peer, WRONG, f"{words(seen)}; {len(unreadable)} unreadable")
    if due:
        named = [warning for warning in report["warnings"] + report["notes"] if warning["kind"] == due]
        return Row(kind, name, peer, WARNED if named else WRONG, due.replace("_", " ") if named else f"no warning {due}")
    doubts = {"unassigned", "no_test", "class_absent", "single_example", "single_patient", "class_everywhere", "single_image"}
    other = [warning["kind"] for warning in report["warnings"] if warning["kind"] not in doubts]
    return Row(kind, name, peer, WRONG if other else EQUAL, ", ".join(other))


def of_table(kind: str, case: Case, folder: Path, melo: Melo) -> Row:
    folder.mkdir(parents=True)
    path = folder / case.file
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(case.table, pd.DataFrame):
        case.table.to_excel(path, index=False)
    else:
        path.write_bytes(case.table if isinstance(case.table, bytes) else case.table.encode())
    said = None
    if case.refused is None:
        frame = table_of(case, path)
        said = expected(case, frame)
        if not case.missing:
            for seed, name in enumerate(frame[case.path].map(str.strip)):
                if name and name != case.path:
                    picture(folder / case.images(name), seed)
    arguments = [argument.replace("{folder}", str(folder)) for argument in case.arguments]
    asked = folder / case.argument if case.argument else path
    answer = melo("data", "check", asked, "--json", *arguments)
    return judge(kind, case.name, said, case.warns, case.refused, answer, case.missing)


def lines(header: str, labels: list[str], separator: str = ",", extra: Callable[[int], list[str]] = lambda _: []) -> str:
    rows = [[f"img/{LETTERS[index % 8]}{index}.png", label, *extra(index)] for index, label in enumerate(labels)]
    return "\n".join([separator.join(header.split(","))] + [separator.join(row) for row in rows]) + "\n"


TWO = ["x", "y"] * 6
AGES = lambda index: [str(30 + index), "FM"[index % 2]]  # noqa: E731


def texts() -> Iterator[Case]:
    """Separators, encodings, line ends."""
    plain = lines("path,label", TWO)
    for name, separator in [("semicolons", ";"), ("tabs", "\t"), ("bars", "|")]:
        yield Case(f"separated by {name}", lines("path,label", TWO, separator), options={"sep": separator})
    yield Case("commas", plain)
    yield Case("tab-separated file .tsv", lines("path,label", TWO, "\t"), file="labels.tsv", options={"sep": "\t"})
    yield Case("sep=; on the first line", "sep=;\n" + lines("path,label", TWO, ";"), options={"sep": ";", "skiprows": 1})
    yield Case("UTF-8 with a mark", ("\ufeff" + plain).encode(), options={"encoding": "utf-8-sig"})
    umlauts = plain.replace(",x", ",Sjögren")
    yield Case("UTF-16 of Excel, tabs", umlauts.replace(",", "\t").encode("utf-16"), options={"sep": "\t", "encoding": "utf-16"})
    yield Case("UTF-16 big-endian", b"\xfe\xff" + umlauts.encode("utf-16-be"), options={"encoding": "utf-16"})
    yield Case("Latin-1", umlauts.encode("latin-1"), options={"encoding": "latin-1"}, warns="encoding")
    yield Case("Windows-1252 quotes", plain.replace(",x", ",“x”").encode("cp1252"), options={"encoding": "cp1252"}, warns="encoding")
    yield Case("CR LF", plain.replace("\n", "\r\n"))
    yield Case("CR alone", plain.replace("\n", "\r"))
    yield Case("blank lines at the end", plain + "\n\n\n")
    yield Case("lines of separators at the end", plain + ",\n,\n")
    yield Case("a separator after each line", plain.replace("\n", ",\n"), options={"index_col": False, "usecols": ["path", "label"]})
    yield Case("a quoted line end", plain.replace(",x", ',"two\nlines"'))
    yield Case("pandas' index without a name", pd.read_csv(__import__("io").StringIO(plain)).to_csv())
    yield Case("the header again inside", plain + plain.replace("img/", "img2/"))
    yield Case("text after an image's bytes", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", refused="binary data")


def columns() -> Iterator[Case]:
    """Columns beside and instead of the usual ones."""
    yield Case("age and sex beside label", lines("path,label,age,sex", TWO, extra=AGES))
    yield Case("decimal commas", lines("path,label,age", TWO, ";", lambda index: [f"{30 + index},5"]), options={"sep": ";"})
    yield Case("splits by other words", lines("path,label,Split", TWO, extra=lambda index: [["Training", "VAL", "testing"][index % 3]]), split="Split")
    patients = lambda index: [f"p{index // 2}"]  # noqa: E731
    yield Case("patient_id", lines("path,label,patient_id", TWO, extra=patients), patient="patient_id")
    for near in ["PatientID", "Patient Id", "patient", "subject_id", "case_id", "MRN"]:
        yield Case(f"patients in {near}", lines(f"path,label,{near}", TWO, extra=patients), warns="no_patient_column")
    named = ("--patient-column", "MRN", "--path-column", "Bild", "--label-column", "Befund")
    yield Case("columns named by flags", lines("Bild,Befund,MRN", TWO, extra=patients), path="Bild", label="Befund", patient="MRN", arguments=named)
    yield Case("a flag that names no column", lines("path,label", TWO), arguments=("--label-column", "Befund"), refused="Befund")
    yield Case("no column of images", "who,label\n1,x\n2,y\n", refused='no column "path"')
    flags = lambda values: lambda index: [values[index % len(values)], values[(index // 2) % len(values)]]  # noqa: E731
    for name, values in [("0 and 1", ["0", "1"]), ("0.0 and 1.0", ["0.0", "1.0"]), ("True and False", ["False", "True"])]:
        yield Case(f"findings of {name}", lines("path,scanner,Edema,Mass", ["GE"] * 12, extra=flags(values)), label=None, findings=["Edema", "Mass"])
    yield Case("a finding of -1", lines("path,sex,Edema,Mass", ["F"] * 12, extra=flags(["0", "-1", "1"])), refused="expected 0 or 1")
    yield Case("a column a class, as fractions (ISIC)", isic("1.0", "0.0"), path="image", findings=["MEL", "NV"], one_hot=True, label=None, images=lambda n: f"jpg/{n}.jpg", arguments=("--images", "{folder}/jpg"))
    yield Case("the same as whole numbers", isic("1", "0"), path="image", findings=["MEL", "NV"], label=None, images=lambda n: f"jpg/{n}.jpg", arguments=("--images", "{folder}/jpg"), warns="exactly_one")
    kaggle = "id_code,diagnosis\n" + "".join(f"{index:04x},{index % 5}\n" for index in range(15))
    yield Case("id_code, diagnosis (Kaggle)", kaggle, path="id_code", label="diagnosis", images=lambda n: f"train/{n}.png", arguments=("--images", "{folder}/train"))
    nih = "Image Index,Finding Labels,Patient ID\n" + "".join(f"{index:08}_000.png,{['No Finding', 'Mass', 'Edema|Mass'][index % 3]},{index}\n" for index in range(12))
    yield Case("findings between bars (NIH)", nih, path="Image Index", label="Finding Labels", bars=True, images=lambda n: f"images/{n}", arguments=("--images", "{folder}/images"), warns="no_patient_column")
    ham = "lesion_id,image_id,dx,dx_type,age,sex\n" + "".join(f"L{index},I{index},{['bkl', 'nv'][index % 2]},histo,80,male\n" for index in range(10))
    yield Case("HAM10000's columns", ham, path="image_id", label="dx", images=lambda n: f"jpg/{n}.jpg", arguments=("--images", "{folder}/jpg"), warns="no_patient_column")


def isic(one: str, zero: str) -> str:
    rows = [f"ISIC_{index:07},{one if index % 2 else zero},{zero if index % 2 else one}\n" for index in range(10)]
    return "image,MEL,NV\n" + "".join(rows)


def paths() -> Iterator[Case]:
    """Paths of other machines, and images on several lines."""
    plain = lines("path,label", TWO)
    tail = lambda name: "img/" + name.replace("\\", "/").rsplit("/", 1)[-1]  # noqa: E731
    yield Case("drive letters", plain.replace("img/", "C:\\data\\img\\"), images=tail, warns="elsewhere")
    yield Case("a server's share", plain.replace("img/", "\\\\nas\\x\\img\\"), images=tail, warns="elsewhere")
    yield Case("backslashes", plain.replace("img/", "img\\"), images=tail, warns="elsewhere")
    yield Case("absolute paths of another machine", plain.replace("img/", "/home/me/img/"), images=tail, warns="elsewhere")
    yield Case("paths from a project's root", plain.replace("img/", "data/set/img/"), images=tail, warns="elsewhere")
    yield Case("two paths that end alike", "path,label\nC:\\a\\1.png,x\nC:\\b\\1.png,y\n", missing=True)
    yield Case("a line twice", plain + plain.splitlines()[1] + "\n", warns="merged")
    yield Case("a line twice with another label", plain + "img/a0.png,y\n", refused="labelled")
    several = "path,Edema,Mass\n" + "".join(f"img/{index}.png,{index % 2},0\nimg/{index}.png,0,{index // 2 % 2}\n" for index in range(10))
    yield Case("a line a finding", several, label=None, findings=["Edema", "Mass"], warns="merged")


def doubts() -> Iterator[Case]:
    """Improbable text, for which a warning is due."""
    of = lambda word: lines("path,label", ["x", "y", word] * 4)  # noqa: E731
    for word in ["nan", "NA", "None", "null", "N/A", "<NA>", "-"]:
        yield Case(f"a class {word}", of(word), warns="missing_as_class")
    for name, pair in {
        "case": ("Nevus", "nevus"),
        "Unicode form": ("Sjögren", "Sjo\u0308gren"),
        "full width": ("NV", "ＮＶ"),
        "a ligature": ("effusion", "eﬀusion"),
        "two spaces": ("benign lesion", "benign  lesion"),
        "a kind of dash": ("grade-1", "grade–1"),
        "a space of no width": ("nevus", "nevus\u200b"),
        "a Cyrillic letter": ("caries", "cаries"),
    }.items():
        yield Case(f"classes that differ in {name}", lines("path,label", [*pair, "z"] * 4), warns="classes_alike")
    yield Case("a space after a class", lines("path,label", ["x", "y", "x ", "y"] * 3), warns="spaces_cut")
    for first, second in [("007", "7"), ("7.0", "7"), ("1.2E+05", "120000"), ("P-7", "p7"), ("p 7", "p7")]:
        ids = lambda index, first=first, second=second: [first if index == 0 else second if index == 11 else f"q{index}"]  # noqa: E731
        yield Case(f"patients {first} and {second}", lines("path,label,patient_id", TWO, extra=ids), patient="patient_id", warns="patients_alike")
    yield Case("a patient nan of many images", lines("path,label,patient_id", TWO, extra=lambda index: ["nan" if index % 3 else f"q{index}"]), patient="patient_id", warns="nobody_as_patient")
    yield Case("patients that Excel rounded", lines("path,label,patient_id", TWO, extra=lambda index: [f"1.2345{index % 2}E+11"]), patient="patient_id", warns="patients_rounded")
    for column in ["sex_male", "Gender", "age_over_60", "fold", "view", "is_test"]:
        table = f"path,Edema,{column}\n" + "".join(f"img/{index}.png,{index % 2},{index // 2 % 2}\n" for index in range(12))
        yield Case(f"findings beside {column}", table, label=None, findings=["Edema", column], warns="metadata_as_finding")
    yield Case("a class of one image", lines("path,label", [*TWO, "alone"]), warns="single_image")
    yield Case("classes that are dates", lines("path,label", ["2024-03-01", "2024-03-02"] * 4), warns="dates_as_classes")
    yield Case("classes that are long numbers", lines("path,label", ["1234567", "7654321"] * 4), warns="numbers_as_classes")
    yield Case("UTF-8 read as Latin-1 and saved again", lines("path,label", ["SjÃ¶gren", "y"] * 4), warns="garbled")
    yield Case("bars inside classes", lines("path,label", ["A|B", "A"] * 4), warns="several_in_one")


def workbooks() -> Iterator[Case]:
    """Workbooks of Excel, by openpyxl."""
    images = [f"img/{index}.png" for index in range(12)]
    frame = pd.DataFrame({"path": images, "label": TWO})
    yield Case("a workbook", frame, file="labels.xlsx")
    yield Case("with numbers, dates and empty cells", frame.assign(age=[None, 63.5] * 6, day=pd.Timestamp("2024-03-01"), n=range(12)), file="labels.xlsx")
    yield Case("with patients as numbers", frame.assign(patient_id=[index // 2 for index in range(12)]), file="labels.xlsx", patient="patient_id")
    yield Case("with patients as text", frame.assign(patient_id=[f"{index:03}" for index in range(12)]), file="labels.xlsx", patient="patient_id")
    yield Case("with findings as booleans", pd.DataFrame({"path": images, "Edema": [True, False] * 6, "Mass": [True, True, False] * 4}), file="labels.xlsx", label=None, findings=["Edema", "Mass"])
    yield Case("a workbook cut short", b"PK\x03\x04 cut", file="labels.xlsx", refused="labels.xlsx")


FOLDERS: list[tuple[str, list[str], list[str], str | None, str | None]] = [
    # name, images, other files, note or warning that is due, refusal that is due
    ("a folder a class", ["a/1.png", "a/2.jpg", "b/3.png", "b/4.jpeg"], [], None, None),
    ("Training, Validation, Testing", [f"{split}/{label}/{index}.png" for split in ("Training", "Validation", "Testing") for label in "ab" for index in range(3)], [], None, None),
    ("TRAIN and test", [f"{split}/{label}/{index}.png" for split in ("TRAIN", "test") for label in "ab" for index in range(3)], [], None, None),
    ("other files among the images", ["a/1.png", "a/2.png", "b/3.png", "b/4.png"], ["README", "a/notes.txt", "b/.DS_Store", "b/Thumbs.db"], "left_out", None),
    ("names without extension", ["a/IM0001", "a/IM0002", "b/IM0003", "b/1.2.840.3"], [], None, None),
    ("photo.jfif and PNG in capitals", ["a/1.jfif", "a/2.PNG", "b/3.jfif", "b/4.PNG"], [], None, None),
    ("an image beside the classes", ["a/1.png", "b/2.png", "3.png"], [], None, "3.png"),
    ("one class alone", ["a/1.png", "a/2.png"], [], None, "two classes"),
    ("an empty class", ["a/1.png", "b/2.png"], ["c/notes.txt"], None, '"c"'),
]


def of_folder(index: int, root: Path, melo: Melo) -> Row:
    name, images, others, due, refused = FOLDERS[index]
    folder = root / f"folder{index}"
    for seed, image in enumerate(images):
        picture(folder / image, seed)
    for other in others:
        (folder / other).parent.mkdir(parents=True, exist_ok=True)
        (folder / other).write_text("no image")
    said = None
    if refused is None:
        # torchvision's rule: the folder that an image lies in is its class, classes are sorted.
        classes = sorted({Path(image).parent.name for image in images})
        counts = {label: sum(Path(image).parent.name == label for image in images) for label in classes}
        said = {"images": len(images), "counts": counts, "multi_label": False}
    answer = melo("data", "check", folder, "--json")
    return judge("Folders", name, said, due, refused, answer, False)


def cases(folder: Path, melo: Melo) -> Iterator[Row]:
    kinds = {
        "Text of tables": texts,
        "Columns of tables": columns,
        "Paths and lines of tables": paths,
        "Improbable text": doubts,
        "Workbooks": workbooks,
    }
    number = 0
    for kind, family in kinds.items():
        for case in family():
            number += 1
            if case.name == "two paths that end alike":
                yield two_ends(kind, case, folder / str(number), melo)
            else:
                yield of_table(kind, case, folder / str(number), melo)
    for index in range(len(FOLDERS)):
        yield of_folder(index, folder, melo)
    held = Case("a folder that holds labels.csv", lines("path,label", TWO), warns="folder_holds", argument=".")
    yield of_table("Folders", held, folder / "held", melo)


def two_ends(kind: str, case: Case, folder: Path, melo: Melo) -> Row:
    """Two paths of which one file is the end: neither may be taken."""
    picture(folder / "1.png", 0)
    (folder / "labels.csv").write_text(str(case.table))
    answer = melo("data", "check", folder / "labels.csv", "--json")
    return judge(kind, case.name, None, None, "as \"C:", answer, False)
