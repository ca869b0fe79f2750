"""A drawn chest film as DICOM: python3 film.py film.dcm [MODALITY]

512 x 512 pixels of 12 bits, explicit VR little endian (PS3.5, 7.1.2). Nothing in it comes from a patient.
"""

import math
import struct
import sys

SIDE = 512
INSTANCE, SERIES, STUDY = (f"2.25.32980073569858729462969564197851150617291{n}" for n in (1, 2, 3))
DIGITAL_X_RAY = "1.2.840.10008.5.1.4.1.1.1.1"


def element(group, number, kind, value):
    if isinstance(value, int):
        value = struct.pack("<H", value)
    elif isinstance(value, str):
        value = value.encode("ascii")
    value += (b"\0" if kind in ("UI", "OB") else b" ") * (len(value) % 2)
    size = struct.pack("<xxI", len(value)) if kind in ("OB", "OW") else struct.pack("<H", len(value))
    return struct.pack("<HH", group, number) + kind.encode() + size + value


def grey(row, column):
    x, y = column / SIDE - 0.5, row / SIDE - 0.5
    lungs = sum(math.exp(-(((x - side) / 0.13) ** 2) - (y / 0.27) ** 2) for side in (-0.19, 0.19))
    ribs = 0.06 * math.sin(60 * (y + x * x)) * min(lungs, 1)
    heart = 0.35 * math.exp(-(((x - 0.06) / 0.13) ** 2) - ((y - 0.13) / 0.15) ** 2)
    return round(4095 * min(max(0.75 - 0.6 * lungs + ribs + heart, 0), 1))


modality = sys.argv[2] if len(sys.argv) > 2 else "DX"
if modality != "DX":
    INSTANCE += "9"
meta = b"".join([
    element(2, 0x01, "OB", b"\0\1"), element(2, 0x02, "UI", DIGITAL_X_RAY), element(2, 0x03, "UI", INSTANCE),
    element(2, 0x10, "UI", "1.2.840.10008.1.2.1"), element(2, 0x12, "UI", "2.25.1"),
])
pixels = b"".join(struct.pack(f"<{SIDE}H", *(grey(row, column) for column in range(SIDE))) for row in range(SIDE))
body = b"".join([
    element(8, 0x16, "UI", DIGITAL_X_RAY), element(8, 0x18, "UI", INSTANCE), element(8, 0x20, "DA", "20260102"), element(8, 0x30, "TM", "101500"),
    element(8, 0x50, "SH", "A1"), element(8, 0x60, "CS", modality), element(8, 0x68, "CS", "FOR PRESENTATION"), element(8, 0x90, "PN", ""),
    element(0x10, 0x10, "PN", "Nobody^Drawn"), element(0x10, 0x20, "LO", "DRAWN-1"), element(0x10, 0x30, "DA", ""), element(0x10, 0x40, "CS", "O"),
    element(0x18, 0x15, "CS", "CHEST"), element(0x18, 0x5101, "CS", "PA"),
    element(0x20, 0x0D, "UI", STUDY), element(0x20, 0x0E, "UI", SERIES), element(0x20, 0x10, "SH", "1"), element(0x20, 0x11, "IS", "1"), element(0x20, 0x13, "IS", "1"),
    element(0x28, 0x02, "US", 1), element(0x28, 0x04, "CS", "MONOCHROME2"), element(0x28, 0x10, "US", SIDE), element(0x28, 0x11, "US", SIDE),
    element(0x28, 0x100, "US", 16), element(0x28, 0x101, "US", 12), element(0x28, 0x102, "US", 11), element(0x28, 0x103, "US", 0),
    element(0x7FE0, 0x10, "OW", pixels),
])
with open(sys.argv[1], "wb") as file:
    file.write(bytes(128) + b"DICM" + element(2, 0, "UL", struct.pack("<I", len(meta))) + meta + body)
