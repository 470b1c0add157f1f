"""The input contract: how a photograph becomes the numbers that go into every model.

In: an image file. Out: uint8 [size, size, 3] RGB. Training, export, the runtimes' checks and the
phone kits all follow docs/input-contract.md; this module is that document in Python, to the byte.
Whatever a file holds, :func:`decode` returns its pixels or raises :class:`UnreadableImage`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import re
import stat
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import BmpImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

from melanoma_edge.errors import BadInput

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
"""File names that are taken for pictures; what a file really is, its first bytes decide."""

MAX_PIXELS = 100_000_000
"""Larger pictures are refused by their header, before anything is decoded."""

MAX_BYTES = 1 << 30
"""Larger files are refused unread (a picture of MAX_PIXELS at 16 bits and four channels fits)."""

# Named once: no other Pillow plugin ever sees a file. The imports above register these five.
_PLUGINS = (BmpImagePlugin, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin)
_SIGNATURE = re.compile(
    rb"(?P<JPEG>\xff\xd8\xff)|(?P<PNG>\x89PNG\r\n\x1a\n)|(?P<WEBP>RIFF.{4}WEBP)|(?P<BMP>BM)|(?P<TIFF>II[*+]\0|MM\0[*+])",
    re.DOTALL,
)
_SIGNATURE_BYTES = 16
BANDED, BAND = 1024, 128
"""Crops of a longer side than BANDED pixels are resized in bands of BAND rows, which fit a processor's cache."""

_A_PICTURE = "a JPEG, PNG, WebP, BMP or TIFF picture"

_ORIENTATION_TAG, _MAKE_TAG, _MODEL_TAG = 0x0112, 0x010F, 0x0110
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

_IGNORE_PILLOW = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
# Without a handler, Python's last resort would print Pillow's log lines to stderr.
logging.getLogger("PIL").addHandler(logging.NullHandler())


Fault = Literal["no access", "no picture", "empty", "too large", "unsupported", "truncated", "damaged"]
"""What can be wrong with a file: no access (permissions, a device, a name that is no text), no picture by its
first bytes, nothing in it, more pixels or bytes than are decoded, pixels without one right conversion,
ends too early, damaged otherwise."""


class UnreadableImage(BadInput):
    """A file is not a picture that the contract covers; the message is one line, `fault` the kind of defect."""

    fault: Fault = "damaged"


@dataclass(frozen=True)
class Picture:
    """A decoded picture, upright, and what its file said about it."""

    image: Image.Image
    """Mode RGB; smaller than width x height where a reduced decode was asked for."""
    width: int
    height: int
    """Full size in pixels, upright."""
    format: str
    """`JPEG`, `PNG`, `WEBP`, `BMP` or `TIFF`, by the file's first bytes."""
    mode: str
    """Pillow's name of the pixels in the file: `RGB`, `L`, `CMYK` ..."""
    orientation: int
    """EXIF orientation 1..8, which has been applied; 1 where there is none."""
    camera: str
    """Maker and model by EXIF; empty where there are none."""


def decode(path: Path) -> np.ndarray:
    """Return the picture in `path` upright and at full size: uint8 [height, width, 3], C-contiguous.

    Raises UnreadableImage, whatever is wrong with the file.
    """
    return np.array(open_picture(path, read(path)).image)


def read(path: Path) -> bytes:
    """Return the bytes of the file `path`; raises UnreadableImage when they do not begin as a picture's do."""
    try:
        # Not blocking, so that a pipe without a writer is refused instead of waited for.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _unreadable(path, "no access", "not an ordinary file", _A_PICTURE)
            if status.st_size > MAX_BYTES:
                raise _unreadable(path, "too large", f"{status.st_size} bytes", f"at most {MAX_BYTES}; shrink it first")
            _format(path, file.read(_SIGNATURE_BYTES))
            file.seek(0)
            return file.read(status.st_size)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else _line(error)
        raise _unreadable(path, "no access", f"cannot be read ({reason})", _A_PICTURE) from None


def open_picture(
    path: Path, content: bytes, *, at_least: int | None = None, admit: Callable[[int], None] = lambda pixels: None
) -> Picture:
    """Decode `content`, the bytes of the picture file `path`.

    With `at_least`, a JPEG may be decoded at a half, a quarter or an eighth of its size, as long as its
    shorter side keeps `at_least` pixels: quicker, and not what the input contract says. ``admit(pixels)`` is called
    before anything is decoded: a caller that bounds how many pixels are in memory at once waits there. Raises
    UnreadableImage, whatever is wrong with the file.
    """
    format_ = _format(path, content)
    _ignore_pillow_warnings()
    try:
        with Image.open(io.BytesIO(content), formats=[format_]) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise _unreadable(path, "too large", f"{width} x {height} pixels", f"at most {MAX_PIXELS}; shrink it first")
            mode, raw_mode = image.mode, image.tile[0].args if format_ == "PNG" and image.tile else None
            exif = image.info.get("exif")
            # Only EXIF turns a picture; Pillow would let XMP turn a TIFF file as well.
            image.info.pop("xmp", None)
            if at_least is not None and format_ == "JPEG":
                image.draft(None, (at_least, at_least))
            admit(image.size[0] * image.size[1])
            image.load()
            # Pillow has turned TIFF files itself by now.
            orientation = _orientation(exif) if format_ != "TIFF" else 1
            method = _TRANSPOSE.get(orientation)
            upright = _rgb(image if method is None else image.transpose(method), format_, raw_mode)
            if orientation >= 5:
                width, height = height, width
            if format_ == "TIFF":
                width, height = upright.size
            return Picture(upright, width, height, format_, mode, orientation, _camera(exif))
    except _Unsupported as error:
        raise _unreadable(path, "unsupported", str(error), "8-bit colour or grey, or 16-bit grey; convert it first") from None
    except Image.DecompressionBombError:
        raise _unreadable(path, "too large", f"far more than {MAX_PIXELS} pixels", f"at most {MAX_PIXELS}; shrink it first") from None
    except MemoryError:
        raise _unreadable(path, "too large", f"a {format_} file that needs more memory than there is", "a smaller one") from None
    except UnreadableImage:
        raise
    # Damaged files make Pillow raise almost anything: OSError, SyntaxError, struct.error, zlib.error...
    except Exception as error:
        found = f"a damaged or unsupported {format_} file ({_line(error)})"
        fault = "truncated" if re.search("truncated|not enough image data|unexpected end|incomplete", str(error), re.IGNORECASE) else "damaged"
        raise _unreadable(path, fault, found, "a whole, ordinary one; copy or convert it again, or remove it") from None


def to_input(pixels: np.ndarray, size: int) -> np.ndarray:
    """Return the centre square of `pixels` (uint8 [height, width, 3]) as uint8 [size, size, 3].

    The resampling is Pillow's 8-bit triangle filter, which docs/input-contract.md spells out.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise ValueError(f"pixels are {pixels.dtype} {list(pixels.shape)}: expected uint8 [height, width, 3]")
    return square(Image.fromarray(np.ascontiguousarray(pixels)), size)


def square(image: Image.Image, size: int) -> np.ndarray:
    """Return the centre square of an RGB `image` as uint8 [size, size, 3], as :func:`to_input` does."""
    width, height = image.size
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    if side > max(size, BANDED):
        # Pillow resizes rows first and columns then, with 8 bits in between. Done band by band, the rows give the
        # same bytes, and a large crop is never written to memory as a whole, which takes as long as resizing it.
        rows = Image.new("RGB", (size, side))
        for start in range(0, side, BAND):
            stop = min(start + BAND, side)
            band = image.crop((left, top + start, left + side, top + stop))
            rows.paste(band.resize((size, stop - start), Image.Resampling.BILINEAR), (0, start))
        image = rows
    elif width != height:
        image = image.crop((left, top, left + side, top + side))
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    return np.array(image)


def load(path: Path, size: int) -> np.ndarray:
    """Return the picture in `path` as a model's input: uint8 [size, size, 3]. Raises as :func:`decode` does."""
    return square(open_picture(path, read(path)).image, size)


def pixel_hash(pixels: np.ndarray) -> str:
    """Return the SHA-256 of a decoded picture: equal pixels, equal hash, whatever file held them.

    It is taken over the shape as little-endian 32-bit numbers and then over the bytes.
    """
    digest = hashlib.sha256(np.asarray(pixels.shape, "<u4").tobytes())
    digest.update(np.ascontiguousarray(pixels))
    return digest.hexdigest()


class _Unsupported(Exception):
    """The picture is whole but has no one right conversion to 8-bit RGB; the message says why."""


def _format(path: Path, content: bytes) -> str:
    """Return Pillow's name of the format that `content` begins as."""
    signature = _SIGNATURE.match(content)
    if signature is None:
        head = content[:_SIGNATURE_BYTES]
        if not head:
            raise _unreadable(path, "empty", "an empty file", f"{_A_PICTURE}; remove it")
        raise _unreadable(path, "no picture", f"no picture (it begins with {head!r})", f"{_A_PICTURE}; remove it")
    return signature.lastgroup


def _rgb(image: Image.Image, format_: str, raw_mode: str | None) -> Image.Image:
    """Return the loaded picture in mode RGB; transparency shows white."""
    mode = image.mode
    if mode in ("1", "L", "RGB"):
        key = image.info.pop("transparency", None)
        if key is None:
            return image if mode == "RGB" else image.convert("RGB")
        if raw_mode == "RGB;16B":
            raise _Unsupported("16-bit colour with a transparent colour, which 8 bits cannot tell from its neighbours")
        pixels = np.array(image.convert("RGB"))
        # PNG gives the key at the file's depth, Pillow the pixels stretched to 8 bits.
        key = np.asarray(key) * {"L;2": 85, "L;4": 17}.get(raw_mode, 1)
        pixels[(pixels == key).all(axis=2)] = 255
        return Image.fromarray(pixels)
    if mode in ("CMYK", "YCbCr", "RGBX"):
        return image.convert("RGB")
    if mode in ("P", "PA", "LA", "La", "RGBA", "RGBa"):
        if mode == "P" and not image.has_transparency_data:
            return image.convert("RGB")
        return Image.fromarray(_over_white(np.asarray((image.convert("LA") if mode == "La" else image).convert("RGBA"))))
    if mode.startswith("I"):
        return Image.fromarray(_grey(image, format_))
    if mode == "F":
        raise _Unsupported("floating-point pixels, of which no value is known to be white")
    raise _Unsupported(f"{mode} pixels")


def _over_white(rgba: np.ndarray) -> np.ndarray:
    """Lay `rgba` over white: (colour * alpha + 255 * (255 - alpha)) / 255, rounded."""
    if rgba[..., 3].min() == 255:
        return np.ascontiguousarray(rgba[..., :3])
    colour, alpha = rgba[..., :3].astype(np.uint16), rgba[..., 3:].astype(np.uint16)
    # At most 255 * 255 + 127, so 16 bits hold it.
    return ((colour * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def _grey(image: Image.Image, format_: str) -> np.ndarray:
    """Scale grey of more than 8 bits to 0..255, rounded, never clipped or cut."""
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise _Unsupported(f"32-bit pixels from {low} to {high}, of which no value is known to be white")
    full, inverted = 65535, False
    if format_ == "TIFF":
        if image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE) == (12,):
            full = 4095
        # Pillow turns "white is zero" round at 8 bits only.
        inverted = image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 0) == 0
    values = values.astype(np.uint32)
    grey = ((values * 255 + full // 2) // full).astype(np.uint8)
    if inverted:
        grey = 255 - grey
    key = image.info.get("transparency")
    if key is not None:
        grey[values == key] = 255
    return np.repeat(grey[:, :, None], 3, axis=2)


def _orientation(exif: bytes | None) -> int:
    """Return the orientation 1..8 that the EXIF block gives; 1 where it is absent or makes no sense."""
    value = None
    if exif:
        # A damaged EXIF block says nothing about the pixels: whatever Pillow raises, they are upright.
        with contextlib.suppress(Exception):
            block = Image.Exif()
            block.load(exif)
            value = block.get(_ORIENTATION_TAG)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _camera(exif: bytes | None) -> str:
    """Return maker and model of the camera as the EXIF block names them, in one line; empty where it does not."""
    names = []
    if exif:
        with contextlib.suppress(Exception):
            block = Image.Exif()
            block.load(exif)
            names = [str(block.get(tag, "")).replace("\0", "") for tag in (_MAKE_TAG, _MODEL_TAG)]
    return " ".join(" ".join(names).split())[:100]


def _ignore_pillow_warnings() -> None:
    """Keep Pillow's warnings about odd files from being printed (or raised, under `python -W error`).

    The filter is added once and stays: `warnings.catch_warnings` is not safe while threads decode.
    """
    if _IGNORE_PILLOW not in warnings.filters:
        warnings.filterwarnings("ignore", module=_IGNORE_PILLOW[3].pattern)


def _unreadable(path: Path, fault: Fault, found: str, expected: str) -> UnreadableImage:
    """Return the error for `path`, its message on one line whatever the path is made of."""
    shown = str(path)
    error = UnreadableImage(f"{shown if shown.isprintable() else repr(shown)}: {found}; expected {expected}")
    error.fault = fault
    return error


def _line(error: Exception) -> str:
    """Return what `error` says as one short line."""
    if isinstance(error, UnidentifiedImageError):
        # Pillow's own text names an object in memory.
        return "its header is not understood"
    return " ".join(str(error).split())[:200] or type(error).__name__
