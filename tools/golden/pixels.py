"""Writes crates/imaging/tests/golden: small image files with the pixels that Pillow makes of them, checksums of
Pillow's resizes, and tensors of timm's evaluation transforms.

    pip install -r tools/golden/pixels-requirements.txt
    python tools/golden/pixels.py

Sources are computed by `pattern`, here and in crates/imaging/tests/common/mod.rs alike, so that large ones need no file.
Pixels are compared by checksum (FNV-1a, 64 bits): they must be equal to the bit.
"""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from timm.data.transforms_factory import transforms_imagenet_eval

OUT = Path(__file__).parents[2] / "crates/imaging/tests/golden"


def pattern(width, height):
    """[height, width, 3] bytes: ramps, a grid of edges, and noise from a multiplicative hash."""
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(3), indexing="ij")
    ramp = x * (c + 1) + y * 2
    edges = ((x // 5 + y // 7) % 2) * 90
    noise = ((x * 73856093 ^ y * 19349663 ^ c * 83492791) & 0xFFFFFFFF) * 2654435761 % 2**32 >> 27
    return ((ramp + edges + noise) % 256).astype(np.uint8)


def fnv(data):
    value = 0xCBF29CE484222325
    for byte in bytes(data):
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def png(path, samples, kind):
    """A 16-bit PNG, which Pillow does not write; `kind` is the colour type."""
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    height, width = samples.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def tiff(path, samples, order, sample_format=1):
    """An uncompressed RGB TIFF in byte order "<" or ">", of samples that Pillow does not write."""
    height, width = samples.shape[:2]
    data = samples.astype(samples.dtype.newbyteorder(order)).tobytes()
    bits = samples.dtype.itemsize * 8
    short, long = (lambda v: struct.pack(order + "HH", v, 0)), (lambda v: struct.pack(order + "I", v))
    entries = [
        (256, 3, 1, short(width)), (257, 3, 1, short(height)), (258, 3, 3, long(8)), (259, 3, 1, short(1)),
        (262, 3, 1, short(2)), (273, 4, 1, long(20)), (277, 3, 1, short(3)), (278, 3, 1, short(height)),
        (279, 4, 1, long(len(data))), (339, 3, 3, long(14)),
    ]
    directory = struct.pack(order + "H", len(entries))
    directory += b"".join(struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries) + bytes(4)
    start = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 20 + len(data))
    path.write_bytes(start + struct.pack(order + "6H", *[bits] * 3, *[sample_format] * 3) + data + directory)


def files():
    """Image files, and for each that is to be read: `name width height checksum`."""
    rgb = pattern(33, 21)
    image, grey = Image.fromarray(rgb), Image.fromarray(rgb[..., 0])
    alpha = Image.fromarray(rgb[..., 2])
    rgba = Image.merge("RGBA", [*image.split(), alpha])
    deep = (rgb.astype(np.uint16) * 251 + np.roll(rgb, 1, 0)).astype(np.uint16)
    shallow = np.rint(deep / 257).astype(np.uint8)  # 65535 / 255 = 257
    expected = {}

    def save(name, image, **options):
        image.save(OUT / name, **options)
        expected[name] = np.asarray(Image.open(OUT / name).convert("RGB"))

    save("grey8.png", grey)
    save("grey_alpha8.png", Image.merge("LA", [grey, alpha]))
    save("rgb8.png", image)
    save("rgba8.png", rgba)
    save("palette.png", image.quantize(16), transparency=3)
    save("bilevel.png", grey.convert("1"))
    save("grey8.tif", grey)
    save("rgb8_lzw.tif", image, compression="tiff_lzw")
    save("rgb8_deflate.tif", image, compression="tiff_adobe_deflate")
    save("rgba8.tif", rgba)
    save("grey8.bmp", grey)
    save("rgb8.bmp", image)
    save("bilevel.bmp", grey.convert("1"))

    for name, samples, kind in [("rgb16.png", deep, 2), ("grey16.png", deep[..., 0], 0),
                                ("rgba16.png", np.dstack([deep, deep[..., :1]]), 6),
                                ("grey_alpha16.png", deep[..., :2], 4)]:
        png(OUT / name, samples, kind)
        expected[name] = shallow if kind & 2 else np.repeat(shallow[..., :1], 3, 2)
    Image.fromarray(deep[..., 0]).save(OUT / "grey16.tif")
    expected["grey16.tif"] = np.repeat(shallow[..., :1], 3, 2)
    for name, order in [("rgb16_little.tif", "<"), ("rgb16_big.tif", ">")]:
        tiff(OUT / name, deep, order)
        expected[name] = shallow

    for name, options in {
        "420": {}, "422": {"subsampling": "4:2:2"}, "444": {"subsampling": "4:4:4"}, "411": {"subsampling": "4:1:1"},
        "rgb": {"keep_rgb": True}, "420_restart": {"restart_marker_blocks": 2}, "420_progressive": {"progressive": True},
        "444_progressive_restart": {"subsampling": "4:4:4", "progressive": True, "restart_marker_rows": 1},
        "coarse": {"quality": 3}, "fine": {"quality": 100},
    }.items():
        save(f"{name}.jpg", image, **{"quality": 80, **options})
    save("grey.jpg", grey, quality=80)
    save("grey_progressive.jpg", grey, quality=80, progressive=True)
    exif = Image.Exif()
    exif[0x112] = 6  # orientation: turned by 90 degrees, and not to be turned back
    save("turned.jpg", image, quality=80, exif=exif)
    for width, height in [(1, 1), (2, 3), (3, 2), (5, 1), (16, 16), (17, 16), (8, 35)]:
        save(f"{width}x{height}.jpg", Image.fromarray(pattern(width, height)), quality=80)

    # A column per two pixels downwards only (4:4:0): a turned 4:2:2 has the tables and factors swapped.
    data = bytearray((OUT / "422.jpg").read_bytes())
    at = data.index(b"\xff\xc0") + 11
    assert data[at] == 0x21
    data[at] = 0x12
    header = at - 6
    data[header:header + 4] = struct.pack(">HH", 33, 24)  # 3 x 3 MCUs of 8 x 16, as 422.jpg has 3 x 3 of 16 x 8
    (OUT / "440.jpg").write_bytes(data)
    expected["440.jpg"] = np.asarray(Image.open(OUT / "440.jpg").convert("RGB"))

    expected |= formats(image, grey, alpha)
    lines = [f"{name} {p.shape[1]} {p.shape[0]} {fnv(p.tobytes())}" for name, p in sorted(expected.items())]
    (OUT / "files.txt").write_text("\n".join(lines) + "\n")

    tiff(OUT / "float.tif", rgb.astype(np.float32) / 255, "<", sample_format=3)


def formats(image, grey, alpha):
    """Further files, with the pixels that Pillow makes of them."""
    expected = {}

    def save(name, image, **options):
        image.save(OUT / name, **options)
        expected[name] = np.asarray(Image.open(OUT / name).convert("RGB"))

    save("cmyk.jpg", image.convert("CMYK"), quality=80)
    save("palette.tif", image.quantize(16))
    save("grey_alpha8.tif", Image.merge("LA", [grey, alpha]))
    save("bilevel.tif", grey.convert("1"))
    save("bilevel_g4.tif", grey.convert("1"), compression="group4")
    save("bilevel_g3.tif", grey.convert("1"), compression="group3")
    save("cmyk.tif", image.convert("CMYK"), compression="packbits")
    save("rgb8_jpeg.tif", image, compression="jpeg", quality=80)
    save("rgb8_zstd.tif", image, compression="zstd")
    save("turned.tif", image, tiffinfo={274: 8})
    save("lossless.webp", image, lossless=True)
    save("palette.gif", image.quantize(32))
    save("rgb8.jp2", image)
    save("rgba8.jp2", Image.merge("RGBA", [*image.split(), alpha]))
    return expected


def resizes():
    """`width height new_width new_height filter checksum` of Pillow's `Image.resize`."""
    sizes = [
        (640, 480, 331, 248), (480, 640, 248, 331), (7, 5, 224, 224), (256, 103, 248, 248), (103, 256, 248, 248),
        (1, 1, 224, 224), (1, 9, 3, 5), (600, 450, 331, 248), (1021, 767, 298, 224), (224, 224, 224, 248),
        (224, 224, 248, 224), (224, 224, 224, 224), (3, 3, 2, 2), (5, 400, 24, 24), (400, 5, 24, 24), (90, 200, 40, 90),
        # Columns first from height lost > 2 x width lost: below, at and above it.
        (50, 101, 40, 82), (50, 100, 40, 80), (50, 101, 40, 80), (50, 100, 60, 99),
    ]
    lines = []
    for width, height, new_width, new_height in sizes:
        image = Image.fromarray(pattern(width, height))
        for name, kind in [("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)]:
            resized = image.resize((new_width, new_height), kind)
            lines.append(f"{width} {height} {new_width} {new_height} {name} {fnv(resized.tobytes())}")
    (OUT / "resizes.txt").write_text("\n".join(lines) + "\n")


def transforms():
    """`width height mode size crop_pct filter statistics`, and each result, [3, size, size], in transforms.f32."""
    statistics = {
        "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    }
    cases = [
        (width, height, mode, size, crop_pct, interpolation, name)
        for mode in ["center", "squash", "border"]
        for width, height, size, crop_pct, interpolation, name in [
            (61, 43, 16, 0.9, "bicubic", "imagenet"), (43, 61, 15, 0.9, "bilinear", "half"),
            (300, 40, 16, 0.875, "bicubic", "half"), (5, 7, 16, 1.0, "bicubic", "imagenet"),
            (1, 1, 15, 0.95, "bilinear", "imagenet"), (31, 90, 16, 0.8, "bicubic", "half"),
        ]
    ]
    lines, tensors = [], []
    for width, height, mode, size, crop_pct, interpolation, name in cases:
        mean, std = statistics[name]
        transform = transforms_imagenet_eval(
            img_size=size, crop_pct=crop_pct, crop_mode=mode, interpolation=interpolation, mean=mean, std=std)
        tensors.append(transform(Image.fromarray(pattern(width, height))).numpy().astype("<f4").tobytes())
        lines.append(f"{width} {height} {mode} {size} {crop_pct} {interpolation} {name}")
    (OUT / "transforms.txt").write_text("\n".join(lines) + "\n")
    (OUT / "transforms.f32").write_bytes(b"".join(tensors))


OUT.mkdir(parents=True, exist_ok=True)
files()
resizes()
transforms()
