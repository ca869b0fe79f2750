"""Renders DICOM files with pydicom, compares with melo's rendering, prints the table of docs/interop.md.

    pip install -r tools/golden/dicom-requirements.txt
    cargo build -p melo-imaging --example render
    python tools/golden/dicom.py target/debug/examples/render FOLDER > table.md
    python tools/golden/dicom.py --golden crates/imaging/tests/golden

The reference: stored values -> modality table or rescale -> value-of-interest table, else first window, else least to
largest value without padding -> 8 bits -> MONOCHROME1 inverted -> padding black; colour by pydicom's conversion to
RGB. Attributes of functional groups are first brought to the data set's root, where pydicom looks for them.
"""

import copy
import io
import pathlib
import subprocess
import sys
import tempfile
import warnings

import numpy as np
import pydicom
from PIL import Image
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array

warnings.filterwarnings("ignore")

GROUPS = ["PixelValueTransformationSequence", "FrameVOILUTSequence"]


def hoisted(ds, frame):
    """`ds` with what the functional groups of `frame` say of grey values."""
    ds = copy.copy(ds)
    own = ds.get("PerFrameFunctionalGroupsSequence")
    groups = list(ds.get("SharedFunctionalGroupsSequence") or []) + ([own[frame]] if own else [])
    for group in groups:
        for name in GROUPS:
            for item in group.get(name) or []:
                ds.update(item)
    return ds


def padding(ds, stored):
    """Where `stored` is padding."""
    if ds.get("PixelPaddingValue") is None:
        return np.zeros(stored.shape, bool)
    one = ds.PixelPaddingValue
    other = ds.get("PixelPaddingRangeLimit", one)
    return (stored >= min(one, other)) & (stored <= max(one, other))


def grey(ds, stored):
    ds = hoisted(ds, 0)
    for name in ("ModalityLUTSequence", "VOILUTSequence"):
        # Items whose attributes are all empty are no tables.
        if name in ds and ds[name].value[0].get("LUTDescriptor") is None:
            del ds[name]
    padded = padding(ds, stored)
    values = apply_modality_lut(stored, ds).astype(np.float64)
    if "VOILUTSequence" in ds:
        item = ds.VOILUTSequence[0]
        values = apply_voi_lut(apply_modality_lut(stored, ds), ds).astype(np.float64)
        low, high = 0.0, 2.0 ** (item.LUTDescriptor[2] or 16) - 1
    elif "WindowCenter" in ds:
        first = lambda value: float(value[0] if isinstance(value, pydicom.multival.MultiValue) else value)
        # PS3.3, C.11.2.1.2.1, written out: pydicom scales the result by the bits of the file.
        center, width = first(ds.WindowCenter), first(ds.WindowWidth)
        values = (values - (center - 0.5)) / (width - 1) + 0.5
        low, high = 0.0, 1.0
        check = apply_voi_lut(apply_modality_lut(stored, ds), ds, prefer_lut=False)
        span = check.max() - check.min()
        if values.min() <= 0 and values.max() >= 1 and span > 0:
            ours = np.clip(values, 0, 1)
            assert np.abs((check - check.min()) / span - ours).max() < 1 / 255, "pydicom's own window"
    else:
        kept = values[~padded]
        low, high = (kept.min(), kept.max()) if kept.size else (0.0, 0.0)
    if high > low:
        levels = np.clip(np.floor((values - low) / (high - low) * 255 + 0.5), 0, 255)
    else:
        levels = np.zeros(values.shape)
    if ds.PhotometricInterpretation == "MONOCHROME1":
        levels = 255 - levels
    levels[padded] = 0
    return np.repeat(levels[..., None], 3, axis=-1)


def reference(path):
    """8-bit RGB of the first frame."""
    data = pathlib.Path(path).read_bytes()
    # NEMA's 12-bit files state the coefficients 0 to 0 where a sequential scan has 0 to 63 (T.81, table B.3).
    if b"1.2.840.10008.1.2.4.51" in data[:1024]:
        data = data.replace(b"\xff\xda\0\x08\1\1\0\0\0\0", b"\xff\xda\0\x08\1\1\0\0\x3f\0")
    ds = pydicom.dcmread(io.BytesIO(data), force=True)
    for name in ("RescaleSlope", "RescaleIntercept", "WindowCenter"):
        if name in ds and ds[name].value is None:
            del ds[name]
    if "TransferSyntaxUID" not in ds.file_meta:
        ds.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    photometric = ds.PhotometricInterpretation
    array = pixel_array(ds, index=0)
    if photometric.startswith("MONOCHROME"):
        return grey(ds, array)
    if photometric == "PALETTE COLOR":
        if not ds.original_encoding[1]:
            # pydicom 3.0 reads tables in little endian whatever the file's encoding.
            for colour in ("Red", "Green", "Blue"):
                name = f"{colour}PaletteColorLookupTableData"
                if name in ds:
                    setattr(ds, name, np.frombuffer(ds[name].value, ">u2").astype("<u2").tobytes())
        array = apply_color_lut(array, ds)
        bits = array.dtype.itemsize * 8
    else:
        bits = ds.BitsStored
    return np.floor(array.astype(np.float64) * 255 / (2.0**bits - 1) + 0.5)


def main(program, folder):
    files = sorted(pathlib.Path(folder).glob("*.dcm"))
    rows, counts = [], {}
    with tempfile.TemporaryDirectory() as out:
        run = subprocess.run([program, out, *files], check=True, capture_output=True, text=True)
        said = dict(line.split("\t")[:2] for line in run.stdout.splitlines())
        for file in files:
            ds = pydicom.dcmread(file, force=True, stop_before_pixels=True)
            syntax = ds.file_meta.get("TransferSyntaxUID")
            syntax = syntax.name.split(" [")[0] if syntax else "none stated"
            try:
                expected, failed = reference(file), None
            except Exception as error:  # whatever a plug-in of pydicom raises
                expected, failed = None, f"{type(error).__name__}"
            if said[file.name] != "ok":
                result, kind = "refused: " + said[file.name], "refused"
            elif failed:
                result, kind = f"rendered; pydicom fails ({failed})", "rendered, pydicom fails"
            else:
                ours = np.asarray(Image.open(pathlib.Path(out) / f"{file.name}.png")).astype(np.float64)
                difference = np.abs(ours - expected)
                result = kind = f"{int(difference.max())}" if difference.shape == expected.shape else "other shape"
                if difference.max() > 1:
                    result += f" ({(difference > 1).any(axis=-1).mean():.2%} of pixels above 1)"
            counts[kind] = counts.get(kind, 0) + 1
            bits = f"{ds.BitsStored}/{ds.BitsAllocated}{'s' if ds.PixelRepresentation else ''}"
            frames = ds.get("NumberOfFrames", 1)
            rows.append(f"| {file.name[:44]} | {syntax} | {ds.PhotometricInterpretation} | {bits} | {frames} | {result} |")
    print("| file | transfer syntax | photometric | bits | frames | largest difference, grey levels of 255 |")
    print("|---|---|---|---|---|---|")
    print("\n".join(rows))
    print(f"\n{len(files)} files: " + ", ".join(f"{kind}: {count}" for kind, count in sorted(counts.items())))


def pattern(width, height, channels):
    """`pattern` of crates/imaging/tests/common, its first channels."""
    y, x, c = np.mgrid[:height, :width, :channels].astype(np.uint32)
    noise = (((x * 73856093) ^ (y * 19349663) ^ (c * 83492791)) * np.uint32(2654435761)) >> 27
    return (x * (c + 1) + y * 2 + (x // 5 + y // 7) % 2 * 90 + noise).astype(np.uint8)


def golden(folder):
    """Small streams of codecs that crates/imaging has no encoder for."""
    import imagecodecs
    import jpeg_ls

    folder = pathlib.Path(folder)
    grey, colour = pattern(37, 21, 1)[..., 0], pattern(37, 21, 3)
    wide = grey.astype(np.uint16) * 257
    for name, array, mode in (("grey8", grey, "L"), ("rgb8", colour, "RGB"), ("grey16", wide, "I;16")):
        image = Image.fromarray(array) if mode != "I;16" else Image.frombytes("I;16", (37, 21), array.tobytes())
        image.save(folder / f"{name}.j2k", irreversible=False, mct=int(mode == "RGB"), num_resolutions=3)
    for name, array in (("grey8", grey), ("rgb8", colour), ("grey16", wide)):
        (folder / f"{name}.j2c").write_bytes(imagecodecs.htj2k_encode(array, reversible=True))
    for name, array, near, interleave in (
        ("grey8", grey, 0, 0),
        ("grey8_near3", grey, 3, 0),
        ("grey16", wide, 0, 0),
        ("rgb8_line", colour, 0, 1),
        ("rgb8_sample", colour, 0, 2),
        ("rgb8_sample_near2", colour, 2, 2),
    ):
        stream = jpeg_ls.encode_array(array, lossy_error=near, interleave_mode=interleave or None)
        (folder / f"{name}.jls").write_bytes(bytes(stream))


if __name__ == "__main__":
    golden(sys.argv[2]) if sys.argv[1] == "--golden" else main(sys.argv[1], sys.argv[2])
