"""A data set as it may come from strangers: sound pictures among files that are damaged, odd or malicious.

Every kind of file is one that a command once could have stumbled over. Tests write the folder and hold commands
to naming each bad file once and using each good one.
"""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from melanoma_edge.data.samples import draw

CLASSES = ("melanoma", "nevus")
GOOD = 8
"""Ordinary pictures of each class."""


@dataclass
class Hostile:
    """What :func:`write_hostile` wrote."""

    root: Path
    good: list[str] = field(default_factory=list)
    """Paths that any command must use."""
    bad: list[str] = field(default_factory=list)
    """Paths that any command must name as unreadable."""


def write_hostile(root: Path) -> Hostile:
    """Write the data set below `root`."""
    found = Hostile(root)
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for number in range(GOOD):
            _save(found, f"{name}/{number}.png", draw(name, 64, (4, number)))
    sound = io.BytesIO()
    Image.fromarray(draw("nevus", 96, (4, 100))).save(sound, "JPEG", quality=90)
    sound = sound.getvalue()

    # Odd, and yet pictures.
    for number, name in enumerate(("with space .jpg", "line\nbreak.jpg", "ﬁgürе №1 黑.jpg", "%s{0}\\'\"$(x);.jpg", "n" * 251 + ".jpg", "-rf.jpg", "UPPER.JPEG")):
        _save(found, f"nevus/{name}", draw("nevus", 64, (4, 200 + number)), "JPEG")
    _save(found, "melanoma/really a jpeg.png", draw("melanoma", 64, (4, 300)), "JPEG")
    _save(found, "melanoma/one pixel wide.png", np.arange(300, dtype=np.uint8).reshape(1, 100, 3).repeat(2, 0)[:, :1])
    (root / "Melanoma").mkdir(exist_ok=True)  # differs by case only
    _save(found, "Melanoma/other case.png", draw("melanoma", 64, (4, 301)))

    # No pictures, or broken ones.
    flipped = bytearray(sound)
    flipped[2:40] = bytes(byte ^ 0x5A for byte in flipped[2:40])
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("a.jpg", sound)
    for name, content in {
        "cut.jpg": sound[: len(sound) * 2 // 3],
        "flipped.jpg": bytes(flipped),
        "magic.png": b"\x89PNG\r\n\x1a\n" + sound,
        "zip.jpg": zipped.getvalue(),
        "empty.jpg": b"",
        "text.jpg": b"<html>404 not found</html>",
        "huge.png": png(60_000, 60_000),
        "wide.png": png(2**31 - 1, 1),
        "nothing.png": png(0, 7),
        "bomb.png": png(9_000, 9_000, data=zlib.compress(bytes(1000))),
        "deep.tif": b"II*\0" + b"\x08\0\0\0" * 500,
        "riff.webp": b"RIFF" + struct.pack("<I", 2**32 - 1) + b"WEBPVP8 " + bytes(50),
    }.items():
        (root / "nevus" / name).write_bytes(content)
        found.bad.append(f"nevus/{name}")
    (root / "nevus" / "gone.jpg").symlink_to(root / "nowhere.jpg")
    (root / "nevus" / "itself.jpg").symlink_to("itself.jpg")
    os.mkfifo(root / "nevus" / "pipe.jpg")
    found.bad += ["nevus/gone.jpg", "nevus/itself.jpg", "nevus/pipe.jpg"]
    # Links that lead round in circles, and things that are passed over.
    (root / "nevus" / "loop").symlink_to(root)
    (root / "round").symlink_to(root)
    (root / "nevus" / "notes.txt").write_text("x")
    (root / "nevus" / "phone.heic").write_bytes(b"ftypheic")
    (root / "nevus" / ".hidden.jpg").write_bytes(b"")
    (root / "nevus" / "folder.jpg").mkdir()
    return found


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """Return a PNG file that claims to be `width` x `height` pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data or zlib.compress(b"")) + chunk(b"IEND", b"")


def _save(found: Hostile, path: str, pixels: np.ndarray, kind: str = "PNG") -> None:
    Image.fromarray(pixels).save(found.root / path, kind)
    found.good.append(path)
