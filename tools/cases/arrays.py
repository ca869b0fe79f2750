"""NumPy arrays and NIfTI volumes: shapes, kinds and orders, against NumPy and nibabel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np

from common import Melo, Row
from pixels import Case, min_max, rows


def cases_of(folder: Path) -> Iterator[Case]:
    y, x, c = np.meshgrid(np.arange(30), np.arange(44), np.arange(4), indexing="ij")
    colours = ((x * (c + 1) * 3 + y * 5) % 256).astype(np.uint8)
    grey, colour = colours[..., 0], colours[..., :3]

    def case(kind, name, array, expected, peer="NumPy", fragment="", **options):
        path = folder / f"{name.replace(' ', '-').replace(',', '')}.npy"
        np.save(path, array)
        return Case(kind, f"{path}{fragment}", expected, peer, name=name, **options)

    first = np.moveaxis
    yield case("Shapes", "h w", grey, grey)
    yield case("Shapes", "h w 1", grey[..., None], grey)
    yield case("Shapes", "h w 3", colour, colour)
    yield case("Shapes", "h w 4", colours, colour)
    yield case("Shapes", "1 h w", grey[None], grey)
    yield case("Shapes", "1 h w 3", colour[None], colour)
    yield case("Shapes", "7 h w", np.stack([grey] + [grey.T.reshape(30, 44)] * 6), grey, warns=True)
    yield case("Shapes", "7 h w, the third", np.stack([grey] * 2 + [255 - grey] + [grey] * 4), 255 - grey, fragment="#2")
    yield case("Shapes", "2 h w 3", np.stack([colour, 255 - colour]), colour, warns=True)
    yield case("Shapes", "n 1 h w", np.stack([grey[None], 255 - grey[None]]), grey, warns=True)
    for channels, array in [(3, colour), (4, colours)]:
        planes = first(array, -1, 0)
        yield case("Open shapes", f"{channels} h w", planes, None, "–")
        yield case("Open shapes", f"{channels} h w, chw", planes, colour, flags=("--layout", "chw"))
        yield case("Open shapes", f"{channels} h w, in the path", planes, colour, fragment="#layout=chw")
        yield case("Open shapes", f"{channels} h w, nhw", planes, array[..., 0], flags=("--layout", "nhw"), warns=True)
        yield case("Open shapes", f"{channels} h w, the second", planes, array[..., 1], fragment="#1")
        yield case("Open shapes", f"2 {channels} h w", np.stack([planes, planes]), None, "–")
        yield case("Open shapes", f"2 {channels} h w, chw", np.stack([planes, planes]), colour, flags=("--layout", "chw"), warns=True)
        yield case("Open shapes", f"h w {channels}, hwc", array, colour, flags=("--layout", "hwc"))
    yield case("Open shapes", "h w 2", colours[..., :2], None, "–")
    yield case("Open shapes", "h w 2, hwc", colours[..., :2], grey, flags=("--layout", "hwc"))
    yield case("Open shapes", "h w as chw", grey, None, "–", flags=("--layout", "chw"))
    yield case("Open shapes", "h w 5", np.concatenate([colours, colours[..., :1]], -1)[:, :, :5].astype(np.uint8)[:2], None, "–", flags=("--layout", "hwc"))
    yield case("Open shapes", "five axes", grey.reshape(1, 1, 1, 30, 44), None, "–")
    yield case("Open shapes", "one axis", grey.reshape(-1), None, "–")

    yield case("Kinds", "bool", grey > 100, (grey > 100).astype(np.uint8) * 255)
    yield case("Kinds", "bool h w 3", colour > 100, (colour > 100).astype(np.uint8) * 255)
    yield case("Kinds", "bytes of 0 and 1", (grey > 100).astype(np.uint8), (grey > 100).astype(np.uint8), warns=True)
    yield case("Kinds", "bytes of 0 and 1, minmax", (grey > 100).astype(np.uint8), (grey > 100).astype(np.uint8) * 255, flags=("--window", "minmax"))
    for kind in ["i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]:
        for order in "<>":
            if kind == "i1" and order == ">":
                continue
            values = (grey.astype(float) / 2 - (60 if kind[0] in "if" else 0)).astype(kind)
            yield case("Kinds", f"{order}{kind}".replace("<", "little ").replace(">", "big "), values.astype(order + kind), min_max(values))
    yield case("Kinds", "reals from 0 to 1", colour / 255, min_max(colour / 255))
    yield case("Kinds", "reals from 0 to 255", colour.astype("f4"), min_max(colour))
    yield case("Kinds", "reals with nan", np.where(grey > 250, np.nan, grey.astype("f4")), min_max(np.where(grey > 250, np.nan, grey.astype(float))))
    yield case("Kinds", "complex", grey.astype("c8"), None, "–")
    yield case("Kinds", "text", np.array([["a", "b"], ["c", "d"]]), None, "–")
    for name, array, expected in [("h w", grey, grey), ("h w 3", colour, colour), ("h w 4", colours, colour)]:
        yield case("Orders", f"Fortran, {name}", np.asfortranarray(array), expected)
    yield case("Orders", "Fortran, 7 h w, the third", np.asfortranarray(np.stack([grey] * 2 + [255 - grey] + [grey] * 4)), 255 - grey, fragment="#2")
    yield case("Orders", "Fortran, big endian", np.asfortranarray(grey.astype(">f8")), min_max(grey))
    yield case("A constant picture", "a window beyond the values", grey.astype("f4"), np.full_like(grey, 255), flags=("--window", "center=-900,width=10"), warns=True)
    path = folder / "several.npz"
    np.savez(path, one=grey, two=colour)
    yield Case("Archives", path, None, "–", name="two arrays, none named")
    yield Case("Archives", f"{path}#two", colour, "NumPy", name="two arrays, one named")

    volume = np.arange(20 * 24 * 9).reshape(20, 24, 9).astype(np.int16)
    for name, affine in {"right, front, head": np.diag([1, 1, 1, 1]), "left, front, head": np.diag([-1, 1, 1, 1]), "left, back, head": np.diag([-1, -1, 1, 1])}.items():
        image = nibabel.Nifti1Image(volume, affine.astype(float))
        path = folder / f"{name.replace(', ', '-')}.nii.gz"
        nibabel.save(image, path)
        body = nibabel.as_closest_canonical(image).get_fdata()
        shown = {"axial": body[::-1, ::-1, 4].T, "coronal": body[::-1, 12, ::-1].T, "sagittal": body[10, ::-1, ::-1].T}
        yield Case("Volumes", path, min_max(shown["axial"]), "nibabel", name=f"{name}, the middle", warns=True)
        for plane, slice, expected in [("axial", 4, shown["axial"]), ("coronal", 12, shown["coronal"]), ("sagittal", 10, shown["sagittal"])]:
            yield Case("Volumes", f"{path}#slice={plane}:{slice}", min_max(expected), "nibabel", name=f"{name}, {plane}")


def cases(folder: Path, melo: Melo) -> Iterator[Row]:
    yield from rows(cases_of(folder), folder, melo)
