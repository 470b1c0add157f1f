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
from pathlib import Path

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
_A_PICTURE = "a JPEG, PNG, WebP, BMP or TIFF picture"

_ORIENTATION_TAG = 0x0112
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


class UnreadableImage(BadInput):
    """A file is not a picture that the contract covers; the message is one line."""


def decode(path: Path) -> np.ndarray:
    """Return the picture in `path` upright and at full size: uint8 [height, width, 3], C-contiguous.

    Raises UnreadableImage, whatever is wrong with the file.
    """
    format_, content = _read(path)
    _ignore_pillow_warnings()
    try:
        with Image.open(io.BytesIO(content), formats=[format_]) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise _unreadable(path, f"{width} x {height} pixels", f"at most {MAX_PIXELS}; shrink it first")
            raw_mode = image.tile[0].args if format_ == "PNG" and image.tile else None
            # Only EXIF turns a picture; Pillow would let XMP turn a TIFF file as well.
            image.info.pop("xmp", None)
            image.load()
            # Pillow has turned TIFF files itself by now.
            method = None if format_ == "TIFF" else _TRANSPOSE.get(_orientation(image.info.get("exif")))
            return _rgb(image if method is None else image.transpose(method), format_, raw_mode)
    except _Unsupported as error:
        raise _unreadable(path, str(error), "8-bit colour or grey, or 16-bit grey; convert it first") from None
    except Image.DecompressionBombError:
        raise _unreadable(path, f"far more than {MAX_PIXELS} pixels", f"at most {MAX_PIXELS}; shrink it first") from None
    except MemoryError:
        raise _unreadable(path, f"a {format_} file that needs more memory than there is", "a smaller one") from None
    except UnreadableImage:
        raise
    # Damaged files make Pillow raise almost anything: OSError, SyntaxError, struct.error, zlib.error...
    except Exception as error:
        found = f"a damaged or unsupported {format_} file ({_line(error)})"
        raise _unreadable(path, found, "a whole, ordinary one; copy or convert it again, or remove it") from None


def to_input(pixels: np.ndarray, size: int) -> np.ndarray:
    """Return the centre square of `pixels` (uint8 [height, width, 3]) as uint8 [size, size, 3].

    The resampling is Pillow's 8-bit triangle filter, which docs/input-contract.md spells out.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise ValueError(f"pixels are {pixels.dtype} {list(pixels.shape)}: expected uint8 [height, width, 3]")
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = np.ascontiguousarray(pixels[top : top + side, left : left + side])
    if side == size:
        return square.copy()
    return np.array(Image.fromarray(square).resize((size, size), Image.Resampling.BILINEAR))


def load(path: Path, size: int) -> np.ndarray:
    """Return the picture in `path` as a model's input: uint8 [size, size, 3]. Raises as :func:`decode` does."""
    return to_input(decode(path), size)


def pixel_hash(pixels: np.ndarray) -> str:
    """Return the SHA-256 of a decoded picture: equal pixels, equal hash, whatever file held them.

    It is taken over the shape as little-endian 32-bit numbers and then over the bytes.
    """
    digest = hashlib.sha256(np.asarray(pixels.shape, "<u4").tobytes())
    digest.update(np.ascontiguousarray(pixels))
    return digest.hexdigest()


class _Unsupported(Exception):
    """The picture is whole but has no one right conversion to 8-bit RGB; the message says why."""


def _read(path: Path) -> tuple[str, bytes]:
    """Return Pillow's name of the file's format, and the file's bytes."""
    try:
        # Not blocking, so that a pipe without a writer is refused instead of waited for.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise _unreadable(path, "not an ordinary file", _A_PICTURE)
            if status.st_size > MAX_BYTES:
                raise _unreadable(path, f"{status.st_size} bytes", f"at most {MAX_BYTES}; shrink it first")
            head = file.read(_SIGNATURE_BYTES)
            signature = _SIGNATURE.match(head)
            if signature is None:
                found = f"no picture (it begins with {head!r})" if head else "an empty file"
                raise _unreadable(path, found, f"{_A_PICTURE}; remove it")
            file.seek(0)
            return signature.lastgroup, file.read(status.st_size)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else _line(error)
        raise _unreadable(path, f"cannot be read ({reason})", _A_PICTURE) from None


def _rgb(image: Image.Image, format_: str, raw_mode: str | None) -> np.ndarray:
    """Return the loaded picture as uint8 [height, width, 3]; transparency shows white."""
    mode = image.mode
    if mode in ("1", "L", "RGB"):
        key = image.info.pop("transparency", None)
        pixels = np.array(image.convert("RGB"))
        if key is not None:
            if raw_mode == "RGB;16B":
                raise _Unsupported("16-bit colour with a transparent colour, which 8 bits cannot tell from its neighbours")
            # PNG gives the key at the file's depth, Pillow the pixels stretched to 8 bits.
            key = np.asarray(key) * {"L;2": 85, "L;4": 17}.get(raw_mode, 1)
            pixels[(pixels == key).all(axis=2)] = 255
        return pixels
    if mode in ("CMYK", "YCbCr", "RGBX"):
        return np.array(image.convert("RGB"))
    if mode in ("P", "PA", "LA", "La", "RGBA", "RGBa"):
        if mode == "P" and not image.has_transparency_data:
            return np.array(image.convert("RGB"))
        return _over_white(np.asarray((image.convert("LA") if mode == "La" else image).convert("RGBA")))
    if mode.startswith("I"):
        return _grey(image, format_)
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


def _ignore_pillow_warnings() -> None:
    """Keep Pillow's warnings about odd files from being printed (or raised, under `python -W error`).

    The filter is added once and stays: `warnings.catch_warnings` is not safe while threads decode.
    """
    if _IGNORE_PILLOW not in warnings.filters:
        warnings.filterwarnings("ignore", module=_IGNORE_PILLOW[3].pattern)


def _unreadable(path: Path, found: str, expected: str) -> UnreadableImage:
    """Return the error for `path`, its message on one line whatever the path is made of."""
    shown = str(path)
    return UnreadableImage(f"{shown if shown.isprintable() else repr(shown)}: {found}; expected {expected}")


def _line(error: Exception) -> str:
    """Return what `error` says as one short line."""
    if isinstance(error, UnidentifiedImageError):
        # Pillow's own text names an object in memory.
        return "its header is not understood"
    return " ".join(str(error).split())[:200] or type(error).__name__
