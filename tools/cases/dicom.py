"""DICOM against pydicom: apply_modality_lut, apply_voi_lut, scaled to 8 bits."""

from __future__ import annotations

import io

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEGBaseline8Bit

from common import Melo, Row
from pixels import Case, min_max, rows, scaled

SHAPE = (24, 40)


def ramp(least: int, most: int) -> np.ndarray:
    return np.linspace(least, most, SHAPE[0] * SHAPE[1]).round().astype(np.int64).reshape(SHAPE)


def image(stored: np.ndarray, bits=16, used=None, signed=False, implicit=False, photometric="MONOCHROME2", **attributes) -> FileDataset:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    set = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    set.SOPClassUID, set.SOPInstanceUID = meta.MediaStorageSOPClassUID, "1.2.3"
    set.Modality = "OT"
    set.SamplesPerPixel, set.PhotometricInterpretation = 1, photometric
    set.Rows, set.Columns = stored.shape[-2:]
    if stored.ndim == 3:
        set.NumberOfFrames = stored.shape[0]
    set.BitsAllocated, set.BitsStored, set.HighBit = bits, used or bits, (used or bits) - 1
    set.PixelRepresentation = int(signed)
    for name, value in attributes.items():
        setattr(set, name, value)
    kind = {8: "u1", 16: "<u2", 32: "<u4"}[bits]
    set.add_new(0x7FE00010, "OB" if bits == 8 else "OW", (stored & (2**bits - 1)).astype(kind).tobytes())
    return set


def table(first: int, entries, bits: int, vr="US") -> Dataset:
    item = Dataset()
    item.add_new(0x00283002, vr, [len(entries) % 65536, first, bits])
    item.add_new(0x00283006, "OW", np.asarray(entries).astype("<u2").tobytes())
    return item


def modality(item: Dataset) -> Dataset:
    item.ModalityLUTType = "US"
    return item


def cases_of(folder: Path) -> Iterator[Case]:
    counter = iter(range(1000))

    def saved(set: Dataset) -> Path:
        path = folder / f"case{next(counter)}.dcm"
        set.save_as(path, enforce_file_format=True)
        return path

    def by_pydicom(path: Path, white: float, frame=None) -> np.ndarray:
        set = pydicom.dcmread(path)
        stored = set.pixel_array if frame is None else set.pixel_array[frame]
        return scaled(apply_voi_lut(apply_modality_lut(stored, set), set), 0, white)

    def case(kind, name, set, white=None, expected=None, peer="pydicom", within=1, **options):
        path = saved(set)
        expected = by_pydicom(path, white) if expected is None else expected
        return Case(kind, path, expected, peer, name=name, within=within, **options)

    # Windows.
    for name, function in [("none", None), ("LINEAR", "LINEAR"), ("linear", "linear"), ("Linear, padded", "Linear "), ("LINEAR_EXACT", "LINEAR_EXACT"), ("linear_exact", "linear_exact"), ("SIGMOID", "SIGMOID"), ("sigmoid", "sigmoid")]:
        more = {} if function is None else {"VOILUTFunction": function}
        set = image(ramp(0, 4095), used=12, WindowCenter=1500, WindowWidth=2000, **more)
        yield case("Windows", f"function {name}", set, expected=scaled(apply_voi_lut(ramp(0, 4095).astype(np.uint16), image(ramp(0, 4095), used=12, WindowCenter=1500, WindowWidth=2000, VOILUTFunction=(function or "LINEAR").strip().upper())), 0, 4095))
    stored = ramp(0, 4095)
    for name, more in {
        "several windows": dict(WindowCenter=[1500, 40], WindowWidth=[2000, 400]), "rescaled": dict(WindowCenter=40, WindowWidth=400, RescaleSlope=1, RescaleIntercept=-1024),
    }.items():
        set = image(stored, used=12, **more)
        values = apply_modality_lut(stored, set).astype(float)
        center, width = np.atleast_1d(more["WindowCenter"])[0], np.atleast_1d(more["WindowWidth"])[0]
        yield case("Windows", name, set, expected=scaled((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1), peer="PS3.3 C.11.2.1.2.1")
    for name, more in {
        "width 0": dict(WindowCenter=40, WindowWidth=0), "width below 0": dict(WindowCenter=40, WindowWidth=-5), "centre without width": dict(WindowCenter=40),
        "width without centre": dict(WindowWidth=40), "no window": {},
    }.items():
        yield case("Windows", name, image(stored, used=12, **more), expected=min_max(stored), peer="no window")
    set = image(stored, used=12, RescaleSlope="0.0001", RescaleIntercept="0", WindowCenter="0.2", WindowWidth="0.1")
    yield case("Windows", "width below 1", set, expected=scaled((stored * 0.0001 - 0.2) / 0.1 + 0.5, 0, 1), peer="LINEAR_EXACT")
    for function in ["LINEAR_EXACT", "SIGMOID"]:
        set = image(stored, used=12, RescaleSlope="0.0001", RescaleIntercept="0", WindowCenter="0.2", WindowWidth="0.1", VOILUTFunction=function)
        values = (stored * 0.0001 - 0.2) / 0.1
        part = values + 0.5 if function == "LINEAR_EXACT" else 1 / (1 + np.exp(-4 * values))
        yield case("Windows", f"width below 1, {function}", set, expected=scaled(part, 0, 1), peer="PS3.3 C.11.2.1.3")
    raw = image(stored, used=12)
    raw.add_new(0x00281050, "DS", "1500")
    path = saved(raw)
    data = path.read_bytes().replace(b"\x28\x00\x50\x10DS\x04\x001500", b"\x28\x00\x50\x10DS\x06\x001500\\ \x28\x00\x51\x10DS\x06\x002000\\ ")
    path.write_bytes(data)
    yield Case("Windows", path, scaled((stored - 1499.5) / 1999 + 0.5, 0, 1), "the first of two", name="trailing backslashes", within=1)

    # Tables.
    signed = ramp(-2048, 2047)
    up = np.linspace(0, 65535, 4096).round()
    for implicit in [False, True]:
        writing = "implicit" if implicit else "explicit"
        set = image(stored, used=12, implicit=implicit, VOILUTSequence=[table(0, up, 16)])
        yield case("VOI tables", f"from 0, {writing}", set, white=65535)
        set = image(signed, used=12, signed=True, implicit=implicit, VOILUTSequence=[table(-2048, up, 16, "SS")])
        yield case("VOI tables", f"signed, from -2048, {writing}", set, white=65535)
        reach = np.linspace(0, 65535, 4096).round()
        set = image(signed, used=12, signed=True, implicit=implicit, ModalityLUTSequence=[modality(table(-2048, reach, 16, "SS"))], VOILUTSequence=[table(33000, np.linspace(0, 65535, 20000).round(), 16, "US")])
        looked = np.clip(apply_table(apply_table(signed, -2048, reach), 33000, np.linspace(0, 65535, 20000).round()), 0, 65535)
        yield case("VOI tables", f"from 33000 after a modality table, {writing}", set, expected=scaled(looked, 0, 65535), peer="PS3.3 C.11.2.1.1")
        set = image(stored, used=12, implicit=implicit, RescaleSlope=1, RescaleIntercept=-1024, VOILUTSequence=[table(-1024, up, 16, "SS")])
        yield case("VOI tables", f"from -1024 after a rescale, {writing}", set, expected=scaled(apply_table(stored - 1024, -1024, up), 0, 65535), peer="PS3.3 C.11.2.1.1")
    set = image(stored, used=12, RescaleSlope=1, RescaleIntercept=-1024, VOILUTSequence=[table(65536 - 1024, up, 16)])
    yield case("VOI tables", "from -1024 written as US 64512", set, expected=scaled(apply_table(stored - 1024, -1024, up), 0, 65535), peer="PS3.3 C.11.2.1.1")
    set = image(stored, used=12, RescaleSlope=1, RescaleIntercept=33000, VOILUTSequence=[table(33000 - 65536, up, 16, "SS")])
    yield case("VOI tables", "from 33000 written as SS -32536", set, expected=scaled(apply_table(stored + 33000, 33000, up), 0, 65535), peer="PS3.3 C.11.2.1.1")
    for used in [10, 12, 14]:
        entries = np.linspace(0, 2**used - 1, 4096).round()
        set = image(stored, used=12, VOILUTSequence=[table(0, entries, 16)])
        yield case("VOI tables", f"{used} bits stated as 16", set, expected=scaled(entries[stored], 0, 2**used - 1), peer="Cornerstone")
    eight = np.linspace(0, 255, 4096).round()
    packed = table(0, eight, 8)
    packed.LUTData = eight.astype("u1").tobytes()
    yield case("VOI tables", "8 bits", image(stored, used=12, VOILUTSequence=[packed]), expected=scaled(eight[stored], 0, 255), peer="the values meant")
    yield case("VOI tables", "8 bits in words", image(stored, used=12, VOILUTSequence=[table(0, eight, 8)]), expected=scaled(eight[stored], 0, 255), peer="the values meant")
    yield case("VOI tables", "8 bits in the high byte", image(stored, used=12, VOILUTSequence=[table(0, eight * 256, 8)]), expected=scaled(eight[stored], 0, 255), peer="the values meant")
    set = image(stored, used=12, WindowCenter=10, WindowWidth=5, VOILUTSequence=[table(0, up, 16)])
    yield case("VOI tables", "a table and a window", set, white=65535)
    for where in ["shared", "per frame"]:
        voi, group = Dataset(), Dataset()
        voi.VOILUTSequence = [table(0, up[::-1], 16)]
        group.FrameVOILUTSequence = [voi]
        for name, item in [("", group), (", bare", voi)]:
            set = image(stored, used=12)
            setattr(set, "SharedFunctionalGroupsSequence" if where == "shared" else "PerFrameFunctionalGroupsSequence", [item])
            yield case("VOI tables", f"{where} group{name}", set, expected=scaled(up[::-1][stored], 0, 65535), peer="PS3.3 C.7.6.16.2.10")
    set = image(signed, used=12, signed=True, ModalityLUTSequence=[modality(table(-2048, np.arange(4096), 16, "SS"))])
    yield case("Modality tables", "signed", set, expected=min_max(signed))
    set = image(stored, used=12, ModalityLUTSequence=[modality(table(0, np.arange(4096)[::-1], 16))])
    yield case("Modality tables", "falling", set, expected=255 - min_max(stored))

    # Palettes.
    index = ramp(0, 255)
    colours = [np.linspace(0, 255, 256).round(), np.linspace(255, 0, 256).round(), (np.arange(256) * 7) % 256]
    meant = np.dstack([colour[index] for colour in colours]).astype(np.uint8)

    def palette(bits, write) -> Dataset:
        set = image(index, bits=8, photometric="PALETTE COLOR")
        for name, tag, colour in zip(["Red", "Green", "Blue"], [0x00281201, 0x00281202, 0x00281203], colours):
            setattr(set, f"{name}PaletteColorLookupTableDescriptor", [256, 0, bits])
            set.add_new(tag, "OW", write(colour.astype(np.uint16)))
        return set

    for name, bits, write in [
        ("16 bits", 16, lambda c: (c * 257).astype("<u2").tobytes()), ("16 bits, high byte", 16, lambda c: (c << 8).astype("<u2").tobytes()),
        ("8 bits, bytes", 8, lambda c: c.astype("u1").tobytes()), ("8 bits in words", 8, lambda c: c.astype("<u2").tobytes()),
        ("8 bits in the high byte", 8, lambda c: (c << 8).astype("<u2").tobytes()), ("8 bits stated as 16", 16, lambda c: c.astype("<u2").tobytes()),
    ]:
        yield case("Palettes", name, palette(bits, write), expected=meant, peer="the colours meant", within=1)

    # Frames.
    frames = np.stack([ramp(0, 4000), ramp(0, 4000)[::-1], ramp(0, 4000)[:, ::-1]])
    path = saved(image(frames, used=12))
    for frame in range(3):
        yield Case("Frames", path, min_max(frames[frame]), "pydicom", ("--frame", frame + 1), f"frame {frame + 1} of 3", warns=True)
    set = image(ramp(0, 4000), used=12, NumberOfFrames=0)
    yield case("Frames", "NumberOfFrames 0", set, expected=min_max(ramp(0, 4000)), peer="pydicom takes it as 1")

    def jpeg(pixels) -> bytes:
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "JPEG", quality=95)
        return out.getvalue()

    pictures = [min_max(frame) for frame in frames]
    streams = [jpeg(picture) for picture in pictures]
    decoded = [np.asarray(Image.open(io.BytesIO(stream))) for stream in streams]
    for name, change in {
        "right": lambda data: data, "empty": None, "zero": lambda data: data[:8] + bytes(12) + data[20:],
        "off by two": lambda data: data[:8] + (np.frombuffer(data[8:20], "<u4") + 2).astype("<u4").tobytes() + data[20:],
        "the last beyond the end": lambda data: data[:16] + b"\xff\xff\xff\x7f" + data[20:],
    }.items():
        for pieces in [1, 2]:
            set = image(np.stack(pictures).astype(np.int64), bits=8, WindowCenter=127.5, WindowWidth=255, VOILUTFunction="LINEAR_EXACT")
            set.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
            data = encapsulate(streams, fragments_per_frame=pieces, has_bot=change is not None)
            set.PixelData = data if change is None else change(data)
            set["PixelData"].is_undefined_length = True
            set["PixelData"].VR = "OB"
            path = saved(set)
            for frame in [0, 2]:
                yield Case("Offset tables", path, decoded[frame], "Pillow", ("--frame", frame + 1), f"{name}, {pieces} a frame, frame {frame + 1}", within=1)

    # Inversion, and pictures that lose all.
    for photometric in ["MONOCHROME1", "MONOCHROME2"]:
        for shape in [None, "IDENTITY", "INVERSE"]:
            more = {} if shape is None else {"PresentationLUTShape": shape}
            expected = min_max(stored) if photometric == "MONOCHROME2" else 255 - min_max(stored)
            yield case("Inversion", f"{photometric}, shape {shape}", image(stored, used=12, photometric=photometric, **more), expected=expected, peer="the photometric interpretation")
    black = np.zeros(SHAPE, np.uint8)
    yield case("A constant picture", "a window beyond the values", image(stored, used=12, WindowCenter=50000, WindowWidth=10), expected=black, peer="pydicom, without a word", warns=True)
    yield case("A constant picture", "a table that holds none of the values", image(stored, used=12, VOILUTSequence=[table(9000, np.linspace(0, 65535, 256).round(), 16)]), expected=black, peer="pydicom, without a word", warns=True)


def apply_table(values, first, entries):
    return np.asarray(entries)[np.clip(np.asarray(values, np.int64) - first, 0, len(entries) - 1)]


def cases(folder: Path, melo: Melo) -> Iterator[Row]:
    yield from rows(cases_of(folder), folder, melo)
