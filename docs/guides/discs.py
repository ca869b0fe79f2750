"""Bright discs in noise, as nnU-Net keeps a raw data set: python3 discs.py Dataset001_Discs"""

import json
import pathlib
import random
import struct
import sys
import zlib

SIDE, CASES = 96, 48


def png(rows):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + bytes(row) for row in rows))) + chunk(b"IEND", b"")


folder = pathlib.Path(sys.argv[1])
for part in ("imagesTr", "labelsTr"):
    (folder / part).mkdir(parents=True)
chance = random.Random(0)
for case in range(CASES):
    x, y, radius = chance.uniform(25, 70), chance.uniform(25, 70), chance.uniform(10, 22)
    inside = [[(column - x) ** 2 + (row - y) ** 2 < radius**2 for column in range(SIDE)] for row in range(SIDE)]
    film = [[min(255, max(0, round(chance.gauss(150 if disc else 90, 20)))) for disc in row] for row in inside]
    (folder / "imagesTr" / f"disc_{case:03}_0000.png").write_bytes(png(film))
    (folder / "labelsTr" / f"disc_{case:03}.png").write_bytes(png(inside))
about = {"channel_names": {"0": "grey"}, "labels": {"background": 0, "disc": 1}, "numTraining": CASES, "file_ending": ".png"}
(folder / "dataset.json").write_text(json.dumps(about))
