"""Labelled images as Python has them, to the native module's."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from . import _melo
from ._errors import DataError, SettingError

#: How a table is read: `melo.data.ReadOptions`.
OPTIONS = (
    "path_column", "label_columns", "patient_column", "split_column", "kind", "grades",
    "mask_column", "mask_classes", "mask_values", "bag_column", "bag_plane",
)  # fmt: skip


def data(
    data: Any,
    y: Any = None,
    *,
    groups: Any = None,
    splits: Any = None,
    weights: Any = None,
    classes: Sequence[str] | None = None,
    kind: str | None = None,
    images: str | os.PathLike[str] | None = None,
    layout: str | None = None,
    value_range: tuple[float, float] | None = None,
    reading: Mapping[str, Any] | None = None,
) -> _melo.Data:
    """A manifest's path, a table (pandas, polars, a dictionary of columns), or images with ``y``."""
    options: dict[str, Any] = {name: listed(name, value) for name, value in (reading or {}).items() if value is not None}
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise SettingError(f"{unknown[0]}: expected one of {', '.join(OPTIONS)}", "Setting", {"setting": unknown[0]})
    if kind is not None:
        options["kind"] = kind
    folder = None if images is None else os.fspath(images)
    if y is None:
        for name, value in (("groups", groups), ("splits", splits), ("weights", weights), ("classes", classes), ("layout", layout)):
            if value is not None:
                raise SettingError(f"{name}: belongs to images with y; a table says it in its columns", "Setting", {"setting": name})
        if isinstance(data, (str, os.PathLike)):
            return _melo.Data.read(os.fspath(data), plain(options), folder)
        columns = columns_of(data)
        if columns is not None:
            return _melo.Data.table(text_of(columns), "frame", plain(options), folder or os.getcwd())
        raise DataError(f"found {type(data).__name__}: expected a manifest's path, a table, or images with y", "Data")
    if options.keys() - {"kind"} or folder is not None:
        raise SettingError("reading: is for tables; images with y need none", "Setting", {"setting": "reading"})
    labels, names, kind = labels_of(y, classes, kind)
    whose, where = patients(groups), texts(splits)
    refuse_leaks(whose, where)
    return _melo.Data.arrays(data, labels, names, kind, whose, where, numbers(weights), layout, value_range)


def plain(value: Any) -> str:
    """JSON, of NumPy's numbers and of paths too."""

    def other(value: Any) -> Any:
        if isinstance(value, (np.generic, np.ndarray)):
            return value.tolist()
        if isinstance(value, os.PathLike):
            return os.fspath(cast("os.PathLike[str]", value))
        raise SettingError(f"found {value!r}, which is no setting", "Setting")

    return json.dumps(value, default=other)


def listed(name: str, value: Any) -> Any:
    """One column where several may be named."""
    return [value] if isinstance(value, str) and name in ("label_columns", "grades", "mask_classes") else value


def missing(value: Any) -> bool:
    return value is None or type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, (float, np.floating)) and np.isnan(value))


def texts(values: Any) -> list[str] | None:
    return None if values is None else [str(value) for value in values]


def patients(values: Any) -> list[str | None] | None:
    """Whose each image is; of a missing name its own."""
    return None if values is None else [None if missing(value) else str(value) for value in values]


def refuse_leaks(groups: list[str | None] | None, splits: list[str] | None) -> None:
    """No patient is in two splits."""
    found: dict[str, str] = {}
    for group, split in zip(groups or [], splits or [], strict=False):
        if group is not None and found.setdefault(group, split) != split:
            raise DataError(f"groups: {group!r} is in the splits {found[group]} and {split}", "Leak", {"group": group})


def numbers(values: Any) -> list[float] | None:
    return None if values is None else [float(value) for value in values]


def columns_of(table: Any) -> dict[str, list[Any]] | None:
    """The columns of a dictionary or a data frame; none of anything else."""
    if isinstance(table, Mapping):
        columns = {str(name): list(values) for name, values in table.items()}
    elif hasattr(table, "columns") and hasattr(table, "__getitem__"):
        columns = {str(name): list(table[name]) for name in table.columns}
    else:
        return None
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"columns of different lengths: {lengths}", "Lengths")
    return columns


def cell(value: Any) -> str:
    if missing(value) or value is np.ma.masked:
        return ""
    if isinstance(value, (bool, np.bool_)):
        return str(int(value))
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def text_of(columns: Mapping[str, Sequence[Any]]) -> str:
    """The table as CSV."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(columns)
    table.writerows([cell(value) for value in row] for row in zip(*columns.values(), strict=True))
    return text.getvalue()


def labels_of(y: Any, classes: Sequence[str] | None, kind: str | None) -> tuple[list[list[float]], list[str], str]:
    """Labels as numbers, names of the classes, and the kind of task."""
    values = np.asarray(list(y) if not hasattr(y, "__array__") and isinstance(y, Iterable) else y)
    if values.dtype == object:
        values = np.asarray([str(value) if isinstance(value, str) else value for value in values.tolist()])
    if values.ndim not in (1, 2) or values.size == 0 or values.dtype == object:
        raise DataError(f"y: found an array of shape {values.shape} and {values.dtype}, expected [n] or [n, classes]", "Labels")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise DataError("y: holds NaN or an infinity", "Labels")
    if values.ndim == 2:
        findings = values.dtype.kind in "buif" and bool(np.isin(values, (0, 1)).all())
        kind = kind or ("multi_label" if findings else None)
        if kind not in ("multi_label", "regression") or (kind == "multi_label" and not findings):
            raise DataError("y: of two axes holds 0 and 1 for findings; numbers need kind='regression'", "Labels")
        names = [str(name) for name in (classes if classes is not None else range(values.shape[1]))]
        if len(names) != values.shape[1]:
            raise DataError(f"y: has {values.shape[1]} columns, but there are {len(names)} classes", "Labels")
        return values.astype(np.float64).tolist(), names, kind
    if kind == "regression":
        if values.dtype.kind not in "buif":
            raise DataError(f"y: holds {values.dtype}, expected numbers", "Labels")
        return values.astype(np.float64)[:, None].tolist(), [str(name) for name in classes or ["value"]], kind
    if values.dtype.kind == "f" and not np.equal(values, np.rint(values)).all():
        raise DataError("y: holds fractions; numbers need kind='regression'", "Labels")
    if values.dtype.kind == "f":
        values = values.astype(np.int64)
    if kind == "ordinal" and classes is None and values.dtype.kind not in "buif":
        raise DataError("y: names of grades have no order; say classes=, the lowest first", "Labels")
    found = np.unique(values)
    if len(found) < 2 and classes is None:
        raise DataError(f"y: every image has the same label, {str(found[0])!r}", "OneClass")
    texts_found = [str(value) for value in found.tolist()]
    names = [str(name) for name in classes] if classes is not None else texts_found
    places = {name: place for place, name in enumerate(names)}
    strange = [name for name in texts_found if name not in places]
    positions = values.dtype.kind in "ui" and not any(name.lstrip("-").isdigit() for name in names)
    if strange and positions and 0 <= int(found[0]) and int(found[-1]) < len(names):
        places = {str(place): place for place in range(len(names))}
    elif strange:
        raise DataError(f"y: has {strange[0]!r}, which is none of the classes {names}", "Labels")
    return [[float(places[str(value)])] for value in values.tolist()], names, kind or "single_label"
