"""PNG, JPEG, TIFF, WebP, GIF and JPEG 2000, against Pillow; 16 bits and more against the rule of docs/interop.md."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageOps

from common import Melo, Row
from pixels import Case, min_max, rows, scaled


def picture(width=45, height=34, channels=3) -> np.ndarray:
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(channels), indexing="ij")
    return ((x * (c + 2) * 2 + y * 3 + (x // 5 + y // 7) % 2 * 70) % 256).astype(np.uint8)


def by_pillow(path: Path) -> np.ndarray:
    # Of a path it maps grey and palette TIFFs into memory, and then does not turn them.
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        return np.asarray(image.convert("RGB"))


def modes() -> dict[str, Image.Image]:
    colour = Image.fromarray(picture())
    grey = colour.getchannel(0)
    return {
        "1": grey.convert("1"), "L": grey, "LA": Image.merge("LA", [grey, colour.getchannel(1)]), "P": colour.quantize(40),
        "RGB": colour, "RGBA": Image.merge("RGBA", [*colour.split(), grey]), "CMYK": colour.convert("CMYK"),
    }


def directory(fields: dict[int, tuple[int, list[int]]], strip: bytes, order="<") -> bytes:
    """A TIFF of one strip; fields by tag: type (3 SHORT, 4 LONG) and values."""
    fields = {**fields, 273: (4, [8]), 279: (4, [len(strip)])}
    body = strip + b"\0" * (len(strip) % 2)
    start = 8 + len(body)
    behind = start + 2 + 12 * len(fields) + 4
    entries, values = b"", b""
    for tag, (kind, numbers) in sorted(fields.items()):
        raw = struct.pack(order + {3: "H", 4: "I"}[kind] * len(numbers), *numbers)
        entries += struct.pack(order + "HHI", tag, kind, len(numbers))
        if len(raw) <= 4:
            entries += raw.ljust(4, b"\0")
        else:
            entries += struct.pack(order + "I", behind + len(values))
            values += raw
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    return head + body + struct.pack(order + "H", len(fields)) + entries + bytes(4) + values


def png16(samples: np.ndarray, kind: int, chunks: bytes = b"") -> bytes:
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = samples.shape[:2]
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunks + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


def tiffs(folder: Path) -> Iterator[Case]:
    images = modes()
    for orientation in range(1, 9):
        for mode in ["L", "RGB", "P", "1"]:
            path = folder / f"orientation{orientation}-{mode}.tif"
            images[mode].save(path, tiffinfo={274: orientation})
            yield Case("TIFF orientation", path, by_pillow(path))
    for mode, image in images.items():
        for compression in ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd"]:
            path = folder / f"{mode}-{compression}.tif"
            image.save(path, compression=compression)
            yield Case("TIFF compression", path, by_pillow(path))
    for compression in ["group3", "group4"]:
        path = folder / f"1-{compression}.tif"
        images["1"].save(path, compression=compression)
        yield Case("TIFF compression", path, by_pillow(path))
    for mode in ["L", "RGB", "CMYK"]:
        for quality in [30, 90]:
            path = folder / f"{mode}-jpeg{quality}.tif"
            images[mode].save(path, compression="jpeg", quality=quality)
            yield Case("TIFF compression", path, by_pillow(path))

    colour = picture()
    writing = {
        "planar": dict(planarconfig="separate", photometric="rgb"),
        "tiles": dict(tile=(16, 32), photometric="rgb"),
        "tiles-planar-lzw": dict(tile=(16, 16), planarconfig="separate", photometric="rgb", compression="lzw"),
        "predictor": dict(photometric="rgb", compression="lzw", predictor=True),
        "predictor-deflate": dict(photometric="rgb", compression="zlib", predictor=True),
        "rows": dict(photometric="rgb", rowsperstrip=5),
        "bigtiff": dict(photometric="rgb", bigtiff=True),
        "big-endian": dict(photometric="rgb", byteorder=">"),
        "jpeg-ycbcr-420": dict(photometric="ycbcr", compression="jpeg", subsampling=(2, 2)),
        "jpeg-ycbcr-422": dict(photometric="ycbcr", compression="jpeg", subsampling=(2, 1)),
        "jpeg-ycbcr-444": dict(photometric="ycbcr", compression="jpeg", subsampling=(1, 1)),
        "jpeg-ycbcr-tiles": dict(photometric="ycbcr", compression="jpeg", subsampling=(2, 2), tile=(16, 16)),
        "jpeg-rgb": dict(photometric="rgb", compression="jpeg"),
    }
    for name, options in writing.items():
        path = folder / f"{name}.tif"
        data = np.ascontiguousarray(colour.transpose(2, 0, 1)) if options.get("planarconfig") else colour
        options = dict(options)
        byteorder, big = options.pop("byteorder", "<"), options.pop("bigtiff", False)
        with tifffile.TiffWriter(path, byteorder=byteorder, bigtiff=big) as writer:
            writer.write(data, **options)
        yield Case("TIFF layout", path, by_pillow(path))

    for extra in [0, 1, 2]:
        path = folder / f"rgba-extra{extra}.tif"
        data = np.dstack([colour, colour[..., :1]])
        path.write_bytes(directory({256: (3, [45]), 257: (3, [34]), 258: (3, [8] * 4), 262: (3, [2]), 277: (3, [4]), 338: (3, [extra])}, data.tobytes()))
        yield Case("TIFF alpha", path, by_pillow(path))
    for bits in [1, 2, 4]:
        for photometric in [0, 1]:
            for fill in [1, 2]:
                path = folder / f"grey{bits}-photometric{photometric}-fill{fill}.tif"
                wide = 48 * bits // 8
                data = picture(wide, 34, 1).tobytes()
                path.write_bytes(directory({256: (3, [48]), 257: (3, [34]), 258: (3, [bits]), 262: (3, [photometric]), 266: (3, [fill])}, data))
                yield Case("TIFF bits", path, by_pillow(path))
    grey = picture(48, 34, 1)[..., 0].astype(np.int64)
    deep = {
        "uint16": (grey * 257, "u2", 1, lambda v: scaled(v, 0, 65535)),
        "int16": (grey * 200 - 20000, "i2", 2, min_max), "uint32": (grey * 10**6, "u4", 1, min_max),
        "int32": (grey * 10**6 - 10**8, "i4", 2, min_max), "float32": (grey / 255 - 0.3, "f4", 3, min_max),
        "float64": (grey * 3.5, "f8", 3, min_max),
    }
    for name, (values, dtype, kind, rule) in deep.items():
        for order in "<>":
            path = folder / f"{name}-{'little' if order == '<' else 'big'}.tif"
            data = values.astype(order + dtype)
            bits = data.dtype.itemsize * 8
            path.write_bytes(directory({256: (3, [48]), 257: (3, [34]), 258: (3, [bits]), 262: (3, [1]), 339: (3, [kind])}, data.tobytes(), order))
            yield Case("TIFF of more than 8 bits", path, rule(values.astype(dtype)), "the rule")
    twelve = grey * 16
    packed = bytearray()
    for one, two in twelve.reshape(-1, 2):
        packed += bytes([one >> 4, (one & 15) << 4 | two >> 8, two & 255])
    path = folder / "uint12.tif"
    path.write_bytes(directory({256: (3, [48]), 257: (3, [34]), 258: (3, [12]), 262: (3, [1])}, bytes(packed)))
    yield Case("TIFF of more than 8 bits", path, scaled(twelve, 0, 4095), "the rule")
    path = folder / "white-is-zero16.tif"
    path.write_bytes(directory({256: (3, [48]), 257: (3, [34]), 258: (3, [16]), 262: (3, [0])}, (grey * 257).astype("<u2").tobytes()))
    yield Case("TIFF of more than 8 bits", path, 255 - scaled(grey * 257, 0, 65535), "the rule")
    path = folder / "float-predictor.tif"
    tifffile.imwrite(path, (grey / 255).astype("f4"), compression="zlib", predictor=True)
    yield Case("TIFF of more than 8 bits", path, min_max((grey / 255).astype("f4")), "the rule")

    path = folder / "pages.tif"
    images["L"].save(path, save_all=True, append_images=[ImageOps.invert(images["L"]), images["RGB"]])
    yield Case("Several images", path, by_pillow(path), warns=True)
    with Image.open(path) as pages:
        for page in [1, 2]:
            pages.seek(page)
            yield Case("Several images", path, np.asarray(pages.convert("RGB")), flags=("--frame", page + 1), name=f"pages.tif, page {page + 1}", warns=True)
    for name, fields in {
        "lab.tif": {262: (3, [8]), 258: (3, [8] * 3), 277: (3, [3])}, "complex.tif": {262: (3, [1]), 258: (3, [64]), 339: (3, [6])},
        "lzma.tif": {262: (3, [1]), 258: (3, [8]), 259: (3, [34925])}, "old-jpeg.tif": {262: (3, [6]), 258: (3, [8] * 3), 277: (3, [3]), 259: (3, [6])},
    }.items():
        path = folder / name
        path.write_bytes(directory({256: (3, [8]), 257: (3, [8]), **fields}, bytes(1024)))
        yield Case("TIFF not read", path, None, "–")


def others(folder: Path) -> Iterator[Case]:
    images = modes()

    def saved(kind, name, image, within=0, warns=False, **options):
        path = folder / name
        image.save(path, **options)
        return Case(kind, path, by_pillow(path), within=within, warns=warns)

    exif = Image.Exif()
    exif[0x112] = 6
    for mode in ["1", "L", "LA", "P", "RGB", "RGBA"]:
        yield saved("PNG", f"{mode}.png", images[mode])
    yield saved("PNG", "transparent-palette.png", images["P"], transparency=3)
    yield saved("PNG", "exif-orientation.png", images["RGB"], exif=exif)
    for mode in ["L", "RGB", "CMYK"]:
        yield saved("JPEG", f"{mode}.jpg", images[mode], quality=85)
        yield saved("JPEG", f"{mode}-progressive.jpg", images[mode], quality=85, progressive=True)
    yield saved("JPEG", "exif-orientation.jpg", images["RGB"], exif=exif)
    # Four components that are no longer CMYK: Adobe's transform 2, YCCK.
    data = bytearray((folder / "CMYK.jpg").read_bytes())
    at = data.find(b"Adobe")
    if at > 0:
        data[at + 11] = 2
        path = folder / "YCCK.jpg"
        path.write_bytes(data)
        yield Case("JPEG", path, by_pillow(path))
    for mode in ["RGB", "RGBA"]:
        yield saved("WebP", f"{mode}-lossless.webp", images[mode], lossless=True, exact=True)
        yield saved("WebP", f"{mode}-lossy.webp", images[mode], quality=80, within=2)
    yield saved("WebP", "exif-orientation.webp", images["RGB"], lossless=True, exif=exif)
    yield saved("Several images", "animated.webp", images["RGB"], save_all=True, append_images=[images["CMYK"].convert("RGB").rotate(180)], lossless=True, warns=True)
    for mode in ["1", "L", "P"]:
        yield saved("GIF", f"{mode}.gif", images[mode])
    yield saved("GIF", "transparent.gif", images["P"], transparency=5)
    yield saved("GIF", "interlaced.gif", images["P"], interlace=True)
    path = folder / "animated.gif"
    images["P"].save(path, save_all=True, append_images=[images["P"].rotate(180), images["P"].transpose(Image.Transpose.FLIP_LEFT_RIGHT)])
    with Image.open(path) as frames:
        for frame in range(3):
            frames.seek(frame)
            yield Case("Several images", path, np.asarray(frames.convert("RGB")), flags=("--frame", frame + 1), name=f"animated.gif, frame {frame + 1}", warns=True)
    for mode in ["L", "LA", "RGB", "RGBA"]:
        yield saved("JPEG 2000", f"{mode}.jp2", images[mode])
    yield saved("JPEG 2000", "RGB.j2k", images["RGB"])
    yield saved("JPEG 2000", "lossy.jp2", images["RGB"], irreversible=True, quality_layers=[20], within=1)
    yield saved("BMP", "RGB.bmp", images["RGB"])
    yield saved("BMP", "P.bmp", images["P"])

    deep = picture(45, 34, 3).astype(np.uint16) * 257
    for kind, samples in [(0, deep[..., 0]), (2, deep), (6, np.dstack([deep, deep[..., :1]])), (4, deep[..., :2])]:
        path = folder / f"sixteen{kind}.png"
        path.write_bytes(png16(samples, kind))
        shown = deep[..., 0] if kind in (0, 4) else deep
        yield Case("16 bits", path, scaled(shown, 0, 65535), "the rule")
    for bits in [10, 12, 14]:
        values = picture(45, 34, 1)[..., 0].astype(np.uint16) * (2**bits - 1) // 255
        path = folder / f"{bits}-in-16.png"
        path.write_bytes(png16(values, 0))
        yield Case("Little of the range", path, scaled(values, 0, 65535), "the rule", warns=True)
        yield Case("Little of the range", path, min_max(values), "NumPy", flags=("--window", "minmax"), name=f"{bits}-in-16.png, minmax")
        low, high = np.percentile(values, [5, 95])
        yield Case("Little of the range", path, scaled(values, low, high), "NumPy", flags=("--window", "percentile=5,95"), name=f"{bits}-in-16.png, percentile", within=1)
        path = folder / f"{bits}-in-16.tif"
        Image.fromarray(values).save(path)
        yield Case("Little of the range", path, scaled(values, 0, 65535), "the rule", warns=True)
        yield Case("Little of the range", path, min_max(values), "NumPy", flags=("--window", "minmax"), name=f"{bits}-in-16.tif, minmax")
    path = folder / "outside.png"
    path.write_bytes(png16(deep[..., 0], 0))
    yield Case("A constant picture", path, np.full((34, 45), 255, np.uint8), "the rule", flags=("--window", "center=-5000,width=10"), warns=True)
    yield Case("A window on bytes", folder / "RGB.png", by_pillow(folder / "RGB.png"), flags=("--window", "minmax"), warns=True)


def cases(folder: Path, melo: Melo) -> Iterator[Row]:
    yield from rows(tiffs(folder), folder, melo)
    yield from rows(others(folder), folder, melo)
