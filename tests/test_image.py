"""The input contract: decoding, conversion, orientation, crop and resize, and hostile files."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import resize_reference
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from melanoma_edge.data import image
from melanoma_edge.data.image import MAX_PIXELS, SUFFIXES, UnreadableImage, decode, load, pixel_hash, to_input
from melanoma_edge.errors import BadInput

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "input-contract.md"


def noise(height: int, width: int, channels: int = 3, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def smooth(height: int, width: int) -> np.ndarray:
    """A picture that lossy compression hardly changes."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 200 // width + 20, y * 200 // height + 20, (x + y) * 200 // (width + height) + 20], axis=2).astype(np.uint8)


def saved(picture: Image.Image, path: Path, **options) -> Path:
    picture.save(path, **options)
    return path


def as_stored(path: Path) -> np.ndarray:
    """What the decoder makes of the file, unturned."""
    with Image.open(path) as picture:
        return np.array(picture)


def encoded(picture: Image.Image, format_: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format_, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file made by hand, for what Pillow does not write; each row is unfiltered."""
    stride = (width * depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] + 7) // 8
    data = b"".join(b"\0" + rows[i : i + stride] for i in range(0, len(rows), stride))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )


def written(content: bytes, path: Path) -> Path:
    path.write_bytes(content)
    return path


def check_pixels(pixels: np.ndarray) -> None:
    assert pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3
    assert pixels.flags.c_contiguous and pixels.flags.writeable


def refused(path: Path | str) -> str:
    """Return the one line with which `path` is refused."""
    with pytest.raises(UnreadableImage) as caught:
        decode(path)
    message = str(caught.value)
    assert message.isprintable() and "; expected " in message
    shown = str(path) if str(path).isprintable() else repr(str(path))
    assert message.startswith(f"{shown}: ")
    assert caught.value.exit_code == 2
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return message.removeprefix(f"{shown}: ")


# Orientation.

# Where the upright pixel (y, x) stands in a stored picture of `h` rows and `w` columns.
STORED_AT = {
    1: lambda y, x, h, w: (y, x),
    2: lambda y, x, h, w: (y, w - 1 - x),
    3: lambda y, x, h, w: (h - 1 - y, w - 1 - x),
    4: lambda y, x, h, w: (h - 1 - y, x),
    5: lambda y, x, h, w: (x, y),
    6: lambda y, x, h, w: (h - 1 - x, y),
    7: lambda y, x, h, w: (h - 1 - x, w - 1 - y),
    8: lambda y, x, h, w: (x, w - 1 - y),
}


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    h, w = stored.shape[:2]
    y, x = np.mgrid[0 : (w if orientation > 4 else h), 0 : (h if orientation > 4 else w)]
    return stored[STORED_AT[orientation](y, x, h, w)]


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".png", {}),
        (".webp", {"lossless": True}),
        (".tif", {}),
        (".tiff", {"compression": "tiff_lzw"}),
        (".jpg", {"quality": 100, "subsampling": 0}),
    ],
)
def test_orientation(tmp_path, suffix, options, orientation):
    stored = noise(5, 8)
    path = saved(Image.fromarray(stored), tmp_path / f"a{suffix}", exif=exif(orientation), **options)
    if suffix == ".jpg":
        stored = as_stored(path)
    pixels = decode(path)
    check_pixels(pixels)
    np.testing.assert_array_equal(pixels, upright(stored, orientation))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_the_first_letter(tmp_path, orientation):
    """The table of the EXIF standard, by where the stored first row and column belong."""
    first_row, first_column = {
        1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
        5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
    }[orientation]  # fmt: skip
    sides = {"top": np.s_[0, 1:-1], "bottom": np.s_[-1, 1:-1], "left": np.s_[1:-1, 0], "right": np.s_[1:-1, -1]}
    stored = np.zeros((7, 9, 3), np.uint8)
    stored[0], stored[1:, 0] = (250, 0, 0), (0, 250, 0)
    pixels = decode(saved(Image.fromarray(stored), tmp_path / "a.png", exif=exif(orientation)))
    assert (pixels[sides[first_row]] == (250, 0, 0)).all()
    assert (pixels[sides[first_column]] == (0, 250, 0)).all()


@pytest.mark.parametrize("mode", ["L", "I;16", "RGBA", "P", "1", "LA"])
def test_orientation_of_other_modes(tmp_path, mode):
    stored = Image.fromarray(noise(5, 8))
    stored = Image.fromarray(np.arange(40, dtype=np.uint16).reshape(5, 8) * 1600) if mode == "I;16" else stored.convert(mode)
    plain = decode(saved(stored, tmp_path / "plain.png"))
    np.testing.assert_array_equal(decode(saved(stored, tmp_path / "turned.png", exif=exif(6))), upright(plain, 6))


@pytest.mark.parametrize("block", [b"", b"Exif\0\0", b"Exif\0\0II*\0", b"Exif\0\0garbage" * 9, b"Exif\0\0MM\0*\0\0\0\x08\0\xff"])
def test_damaged_exif_is_ignored(tmp_path, block, recwarn):
    stored = smooth(6, 9)
    for suffix in (".jpg", ".png", ".webp"):
        path = saved(Image.fromarray(stored), tmp_path / f"a{suffix}", exif=block)
        assert decode(path).shape == stored.shape
    assert not recwarn.list


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_impossible_orientation_is_ignored(tmp_path, value):
    stored = noise(5, 8)
    np.testing.assert_array_equal(decode(saved(Image.fromarray(stored), tmp_path / "a.png", exif=exif(value))), stored)


def test_xmp_does_not_turn_a_picture(tmp_path):
    stored = noise(5, 8)
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    np.testing.assert_array_equal(decode(saved(Image.fromarray(stored), tmp_path / "a.webp", xmp=xmp, lossless=True)), stored)
    path = saved(Image.fromarray(stored), tmp_path / "a.tif", tiffinfo={700: xmp})
    np.testing.assert_array_equal(decode(path), stored)


# Conversion to 8-bit RGB.


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.webp", "wrong.jpg", "none", "a.PNG"])
def test_rgb_comes_back_as_it_is(tmp_path, name):
    pixels = noise(7, 5)
    format_ = {".bmp": "BMP", ".tif": "TIFF", ".webp": "WEBP"}.get(Path(name).suffix, "PNG")
    options = {"lossless": True} if format_ == "WEBP" else {}
    path = saved(Image.fromarray(pixels), tmp_path / name, format=format_, **options)
    decoded = decode(path)
    check_pixels(decoded)
    np.testing.assert_array_equal(decoded, pixels)
    np.testing.assert_array_equal(decode(str(path)), pixels)


def test_jpeg_is_decoded_at_full_size(tmp_path):
    pixels = smooth(60, 90)
    decoded = decode(saved(Image.fromarray(pixels), tmp_path / "a.jpeg", quality=95))
    check_pixels(decoded)
    assert np.abs(decoded.astype(int) - pixels).max() <= 6


def test_grey(tmp_path):
    grey = noise(6, 7, 1)[:, :, 0]
    for name in ("a.png", "a.bmp", "a.tif"):
        np.testing.assert_array_equal(decode(saved(Image.fromarray(grey), tmp_path / name)), grey[:, :, None].repeat(3, 2))
    decoded = decode(saved(Image.fromarray(smooth(20, 20)[:, :, 0]), tmp_path / "a.jpg"))
    assert (decoded == decoded[:, :, :1]).all()


def test_one_bit(tmp_path):
    bits = noise(6, 11, 1)[:, :, 0] > 127
    for name in ("a.png", "a.bmp", "a.tif"):
        decoded = decode(saved(Image.fromarray(bits), tmp_path / name))
        np.testing.assert_array_equal(decoded, np.where(bits, 255, 0)[:, :, None].repeat(3, 2))


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Exact rounding in integers; a half never occurs because 255 is odd."""
    return (2 * (colour.astype(int) * alpha + 255 * (255 - alpha.astype(int))) + 255) // 510


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.webp"])
def test_rgba_over_white(tmp_path, name):
    rgba = noise(16, 16, 4)
    options = {"lossless": True, "exact": True} if name == "a.webp" else {}
    decoded = decode(saved(Image.fromarray(rgba), tmp_path / name, **options))
    check_pixels(decoded)
    np.testing.assert_array_equal(decoded, over_white(rgba[..., :3], rgba[..., 3:]))


def test_every_colour_and_alpha_over_white(tmp_path):
    colour, alpha = np.mgrid[0:256, 0:256].astype(np.uint8)
    decoded = decode(saved(Image.fromarray(np.stack([colour, colour, colour, alpha], 2)), tmp_path / "a.png"))
    np.testing.assert_array_equal(decoded[..., 0], over_white(colour, alpha))
    np.testing.assert_array_equal(decoded[..., 0], np.rint((colour / 255 * (alpha / 255) + 1 - alpha / 255) * 255))


def test_opaque_alpha_is_dropped(tmp_path):
    rgba = noise(5, 5, 4)
    rgba[..., 3] = 255
    decoded = decode(saved(Image.fromarray(rgba), tmp_path / "a.png"))
    check_pixels(decoded)
    np.testing.assert_array_equal(decoded, rgba[..., :3])


def test_grey_with_alpha(tmp_path):
    pair = noise(9, 8, 2)
    picture = Image.merge("LA", [Image.fromarray(np.ascontiguousarray(pair[..., i])) for i in (0, 1)])
    for name in ("a.png", "a.tif"):
        np.testing.assert_array_equal(decode(saved(picture, tmp_path / name)), over_white(pair[..., :1], pair[..., 1:]).repeat(3, 2))


def paletted(indices: np.ndarray, palette: np.ndarray) -> Image.Image:
    picture = Image.fromarray(indices).convert("P")
    picture.frombytes(indices.tobytes())
    picture.putpalette(palette.tobytes())
    return picture


def test_palette(tmp_path):
    palette, indices = noise(256, 1)[:, 0], noise(9, 9, 1)[:, :, 0]
    for name in ("a.png", "a.bmp", "a.tif"):
        np.testing.assert_array_equal(decode(saved(paletted(indices, palette), tmp_path / name)), palette[indices])


def test_palette_with_alpha(tmp_path):
    palette, indices, alpha = noise(256, 1)[:, 0], noise(9, 9, 1)[:, :, 0], noise(256, 1, 1, seed=2)[:, 0]
    decoded = decode(saved(paletted(indices, palette), tmp_path / "a.png", transparency=alpha.tobytes()))
    np.testing.assert_array_equal(decoded, over_white(palette, alpha)[indices])


def test_palette_with_one_transparent_index(tmp_path):
    palette, indices = noise(256, 1)[:, 0], noise(40, 40, 1)[:, :, 0]
    decoded = decode(saved(paletted(indices, palette), tmp_path / "a.png", transparency=17))
    palette[17] = 255
    np.testing.assert_array_equal(decoded, palette[indices])


def test_palette_alpha_plane(tmp_path):
    palette, indices, alpha = noise(256, 1)[:, 0], noise(9, 9, 1)[:, :, 0], noise(9, 9, 1, seed=3)
    picture = paletted(indices, palette).convert("PA")
    picture.putalpha(Image.fromarray(alpha[:, :, 0]))
    np.testing.assert_array_equal(decode(saved(picture, tmp_path / "a.tif")), over_white(palette[indices], alpha))


def test_transparent_colour(tmp_path):
    pixels = noise(6, 6)
    decoded = decode(saved(Image.fromarray(pixels), tmp_path / "a.png", transparency=tuple(map(int, pixels[2, 3]))))
    pixels[2, 3] = 255
    np.testing.assert_array_equal(decoded, pixels)
    grey = np.arange(36, dtype=np.uint8).reshape(6, 6)
    decoded = decode(saved(Image.fromarray(grey), tmp_path / "b.png", transparency=7))
    grey[1, 1] = 255
    np.testing.assert_array_equal(decoded[..., 0], grey)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_transparent_grey_of_few_bits(tmp_path, depth):
    """The transparent grey is written at the file's depth, not at the 8 bits that Pillow makes of it."""
    full = 2**depth - 1
    levels = np.arange(16) % (full + 1)
    rows = np.packbits((levels[:, None] >> np.arange(depth - 1, -1, -1) & 1).astype(np.uint8))
    path = written(png(16, 1, depth, 0, rows.tobytes(), (b"tRNS", struct.pack(">H", full - 1))), tmp_path / "a.png")
    np.testing.assert_array_equal(decode(path)[0, :, 0], np.where(levels == full - 1, 255, levels * 255 // full))


def test_cmyk_tiff(tmp_path):
    cmyk = np.zeros((4, 2, 4), np.uint8)
    cmyk[1, :, 0] = cmyk[2, :, 3] = 255
    cmyk[3] = (51, 102, 153, 0)
    decoded = decode(saved(Image.fromarray(cmyk, "CMYK"), tmp_path / "a.tif"))
    np.testing.assert_array_equal(decoded[:, 0], [(255, 255, 255), (0, 255, 255), (0, 0, 0), (204, 153, 102)])


def test_cmyk_jpeg_as_adobe_writes_it(tmp_path):
    """Adobe stores ink upside down in JPEG; a reader that forgets it shows a negative."""
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[..., 1] = ink[..., 2] = 200
    path = saved(Image.fromarray(ink, "CMYK"), tmp_path / "a.jpg", quality=100)
    assert b"Adobe" in path.read_bytes()
    assert np.abs(decode(path).astype(int) - (255, 55, 55)).max() <= 3


def test_ycbcr_tiff(tmp_path):
    pixels = smooth(16, 16)
    picture = Image.fromarray(pixels).convert("YCbCr")
    for options, tolerance in (({}, 4), ({"compression": "jpeg", "quality": 100}, 12)):
        path = saved(picture, tmp_path / "a.tif", **options)
        assert np.abs(decode(path).astype(int) - pixels).max() <= tolerance


GRADIENT = np.arange(65536, dtype=np.uint16).reshape(256, 256)


@pytest.mark.parametrize("order", ["<u2", ">u2"])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_sixteen_bit_grey_is_scaled(tmp_path, name, order):
    picture = Image.frombytes("I;16" if order == "<u2" else "I;16B", (256, 256), GRADIENT.astype(order).tobytes())
    decoded = decode(saved(picture, tmp_path / name))
    check_pixels(decoded)
    np.testing.assert_array_equal(decoded, np.rint(GRADIENT / 257)[:, :, None].repeat(3, 2))
    assert decoded[0, 0, 0] == 0 and decoded[-1, -1, 0] == 255


def test_sixteen_bit_grey_tiff_with_white_as_zero(tmp_path):
    content = bytearray(encoded(Image.fromarray(GRADIENT), "TIFF"))
    at = content.index(struct.pack("<HHIH", 262, 3, 1, 1))
    content[at + 8] = 0
    np.testing.assert_array_equal(decode(written(content, tmp_path / "a.tif"))[..., 0], 255 - np.rint(GRADIENT / 257))


def test_twelve_bit_grey_tiff(tmp_path):
    """Twelve bits end at 4095: taken for sixteen, the picture would come out nearly black."""
    values = np.arange(4096, dtype=np.uint16)
    packed = np.stack([values[::2] >> 4, (values[::2] & 15) << 4 | values[1::2] >> 8, values[1::2] & 255], 1).astype(np.uint8).tobytes()
    tags = [(256, 64), (257, 64), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 64), (279, len(packed))]
    entries = b"".join(struct.pack("<HHII", tag, 4 if tag in (273, 279) else 3, 1, value) for tag, value in tags)
    content = struct.pack("<2sHI", b"II", 42, 8 + len(packed)) + packed + struct.pack("<H", len(tags)) + entries + bytes(4)
    decoded = decode(written(content, tmp_path / "a.tif"))
    np.testing.assert_array_equal(decoded[..., 0].ravel(), np.rint(values / 4095 * 255))


def test_thirty_two_bit_grey_within_sixteen_bits(tmp_path):
    decoded = decode(saved(Image.fromarray(GRADIENT.astype(np.int32)), tmp_path / "a.tif"))
    np.testing.assert_array_equal(decoded[..., 0], np.rint(GRADIENT / 257))


@pytest.mark.parametrize("value", [-1, 65536, 2**31 - 1])
def test_thirty_two_bit_grey_beyond_sixteen_bits_is_refused(tmp_path, value):
    values = np.zeros((4, 4), np.int32)
    values[1, 2] = value
    assert "white" in refused(saved(Image.fromarray(values), tmp_path / "a.tif"))


def test_floating_point_is_refused(tmp_path):
    assert "floating-point" in refused(saved(Image.fromarray(np.ones((4, 4), np.float32)), tmp_path / "a.tif"))


def test_lab_is_refused(tmp_path):
    picture = Image.fromarray(smooth(8, 8))
    lab = ImageCms.profileToProfile(picture, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB")
    assert refused(saved(lab, tmp_path / "a.tif")).startswith("LAB pixels")


def test_sixteen_bit_colour_keeps_the_high_byte(tmp_path):
    values = np.random.default_rng(1).integers(0, 65536, (4, 4, 3), np.uint16)
    path = written(png(4, 4, 16, 2, values.astype(">u2").tobytes()), tmp_path / "a.png")
    np.testing.assert_array_equal(decode(path), values >> 8)
    # Eight bits stretched to sixteen come back as they were.
    eight = noise(4, 4)
    path = written(png(4, 4, 16, 2, (eight.astype(">u2") * 257).tobytes()), tmp_path / "b.png")
    np.testing.assert_array_equal(decode(path), eight)


@pytest.mark.parametrize(("colour", "channels"), [(4, 2), (6, 4)])
def test_sixteen_bit_alpha_keeps_the_high_byte(tmp_path, colour, channels):
    values = np.random.default_rng(1).integers(0, 65536, (4, 4, channels), np.uint16)
    path = written(png(4, 4, 16, colour, values.astype(">u2").tobytes()), tmp_path / "a.png")
    high = (values >> 8).astype(np.uint8)
    expected = over_white(high[..., :-1], high[..., -1:])
    np.testing.assert_array_equal(decode(path), np.broadcast_to(expected, (4, 4, 3)))


def test_sixteen_bit_transparent_colour_is_refused(tmp_path):
    content = png(1, 1, 16, 2, b"\1\2\3\4\5\6", (b"tRNS", b"\1\2\3\4\5\6"))
    assert "16-bit colour with a transparent colour" in refused(written(content, tmp_path / "a.png"))


def test_sixteen_bit_transparent_grey(tmp_path):
    content = png(3, 1, 16, 0, struct.pack(">HHH", 1000, 1001, 1002), (b"tRNS", struct.pack(">H", 1001)))
    assert decode(written(content, tmp_path / "a.png"))[0, :, 0].tolist() == [4, 255, 4]


def test_first_frame(tmp_path):
    first, second = noise(6, 7, seed=1), noise(6, 7, seed=2)
    frames = [Image.fromarray(first), Image.fromarray(second)]
    for name, options in (("a.webp", {"lossless": True}), ("a.tif", {}), ("b.tif", {"compression": "tiff_lzw"}), ("a.png", {})):
        path = saved(frames[0], tmp_path / name, save_all=True, append_images=frames[1:], **options)
        np.testing.assert_array_equal(decode(path), first)
    path = saved(frames[0], tmp_path / "a.jpg", format="MPO", save_all=True, append_images=frames[1:], quality=100, subsampling=0)
    np.testing.assert_array_equal(decode(path), as_stored(path))


def test_interlaced_png_and_progressive_jpeg(tmp_path):
    pixels = smooth(30, 40)
    plain = decode(saved(Image.fromarray(pixels), tmp_path / "a.jpg"))
    np.testing.assert_array_equal(decode(saved(Image.fromarray(pixels), tmp_path / "b.jpg", progressive=True)), plain)


# Crop and resize.


def test_resize_equals_the_reference_at_real_sizes():
    for height, width, size in ((600, 450, 180), (480, 640, 224), (181, 179, 180), (96, 96, 180), (768, 1024, 96), (2000, 1, 180)):
        pixels = noise(height, width, seed=height)
        result = to_input(pixels, size)
        check_pixels(result)
        np.testing.assert_array_equal(result, resize_reference.to_input(pixels, size))


@settings(max_examples=200, deadline=None, database=None)
@given(
    height=st.integers(1, 60),
    width=st.one_of(st.integers(1, 60), st.integers(1000, 1200)),
    size=st.integers(1, 60),
    seed=st.integers(0, 99),
    hard=st.booleans(),
)
def test_resize_equals_the_reference(height, width, size, seed, hard):
    pixels = noise(height, width, seed=seed)
    if hard:
        pixels = np.where(pixels > 127, np.uint8(255), np.uint8(0))
    result = to_input(pixels, size)
    assert result.shape == (size, size, 3) and result.dtype == np.uint8
    np.testing.assert_array_equal(result, resize_reference.to_input(pixels, size))


@settings(max_examples=100, deadline=None, database=None)
@given(
    height=st.integers(1, 400),
    width=st.integers(1, 400),
    size=st.integers(1, 300),
    colour=st.tuples(*[st.integers(0, 255)] * 3),
)
def test_a_constant_picture_stays_constant(height, width, size, colour):
    assert (to_input(np.full((height, width, 3), colour, np.uint8), size) == colour).all()


@pytest.mark.parametrize(("height", "width", "top", "left"), [(5, 5, 0, 0), (5, 8, 0, 1), (9, 5, 2, 0), (4, 5, 0, 0), (1, 1, 0, 0)])
def test_crop_without_resize(height, width, top, left):
    pixels = noise(height, width)
    before = pixels.copy()
    side = min(height, width)
    result = to_input(pixels, side)
    np.testing.assert_array_equal(result, pixels[top : top + side, left : left + side])
    result[:] = 0
    np.testing.assert_array_equal(pixels, before)


def test_layout_in_memory_does_not_matter():
    pixels = noise(40, 30)
    np.testing.assert_array_equal(to_input(np.asfortranarray(pixels), 16), to_input(pixels, 16))
    assert pixel_hash(np.asfortranarray(pixels)) == pixel_hash(pixels)


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)],
)
def test_what_is_not_pixels_is_a_programming_error(pixels):
    with pytest.raises(ValueError, match="expected uint8"):
        to_input(pixels, 8)


def test_load(tmp_path):
    pixels = noise(50, 70)
    path = saved(Image.fromarray(pixels), tmp_path / "a.png")
    np.testing.assert_array_equal(load(path, 32), to_input(pixels, 32))


def test_the_worked_example_of_the_document():
    """The numbers in docs/input-contract.md are what Pillow computes."""
    text = DOCUMENT.read_text(encoding="utf-8")
    row = np.array([10, 20, 40, 80, 160], np.uint8)
    for size, expected in ((2, [24, 94]), (3, [14, 44, 126])):
        line = np.array(Image.fromarray(row[None]).resize((size, 1), Image.Resampling.BILINEAR))[0]
        assert line.tolist() == expected
        for (first, weights), value in zip(resize_reference.weights(5, size), expected, strict=True):
            total = (1 << 21) + sum(weight * int(row[first + i]) for i, weight in enumerate(weights))
            assert total >> 22 == value
            if size == 2:
                assert f"[{', '.join(map(str, weights))}]" in text and f"{total} >> 22 = {value}" in text
    picture = np.array([[[(31 * y + 17 * x + 80 * c) % 256 for c in range(3)] for x in range(9)] for y in range(7)], np.uint8)
    result = to_input(picture, 4)
    assert hashlib.sha256(result.tobytes()).hexdigest() in text
    assert ", ".join(map(str, result[0].ravel())) in re.sub(r"\s+", " ", text)


# Hashes.


def test_pixel_hash_is_of_the_pixels_only(tmp_path):
    pixels = noise(6, 9)
    picture = Image.fromarray(pixels)
    hashes = {
        pixel_hash(decode(saved(picture, tmp_path / "a.png", exif=exif(1)))),
        pixel_hash(decode(saved(picture, tmp_path / "a.bmp"))),
        pixel_hash(decode(saved(picture, tmp_path / "a.tif", compression="tiff_lzw"))),
        pixel_hash(pixels),
    }
    assert hashes == {hashlib.sha256(struct.pack("<III", 6, 9, 3) + pixels.tobytes()).hexdigest()}


def test_pixel_hash_tells_shapes_and_pixels_apart():
    pixels = noise(6, 4)
    other = pixels.copy()
    other[5, 3, 2] ^= 1
    assert len({pixel_hash(pixels), pixel_hash(pixels.reshape(4, 6, 3)), pixel_hash(other)}) == 3


# Hostile files.


def corpus() -> dict[str, bytes]:
    """Small files of every kind that decode() reads."""
    rgb, rgba = Image.fromarray(noise(20, 24)), Image.fromarray(noise(20, 24, 4))
    flat = Image.fromarray(smooth(20, 24))
    turned = exif(6)
    return {
        "png": encoded(rgb, "PNG", exif=turned),
        "png palette": encoded(flat.convert("P"), "PNG", transparency=bytes(range(200))),
        "png 16 bit": encoded(Image.fromarray(GRADIENT[:20, :24].copy()), "PNG"),
        "png animated": encoded(rgba, "PNG", save_all=True, append_images=[rgba]),
        "jpeg": encoded(flat, "JPEG", exif=turned),
        "jpeg progressive cmyk": encoded(flat.convert("CMYK"), "JPEG", progressive=True),
        "mpo": encoded(flat, "MPO", save_all=True, append_images=[rgb]),
        "webp": encoded(flat, "WEBP", exif=turned),
        "webp lossless": encoded(rgba, "WEBP", lossless=True),
        "webp animated": encoded(flat, "WEBP", save_all=True, append_images=[rgb]),
        "bmp": encoded(rgb, "BMP"),
        "bmp palette": encoded(flat.convert("P"), "BMP"),
        "tiff": encoded(rgb, "TIFF", exif=turned),
        "tiff 16 bit": encoded(Image.fromarray(GRADIENT[:20, :24].copy()), "TIFF"),
        "tiff lzw": encoded(rgba, "TIFF", compression="tiff_lzw"),
        "tiff jpeg": encoded(flat, "TIFF", compression="jpeg"),
        "tiff pages": encoded(flat, "TIFF", save_all=True, append_images=[rgb], compression="tiff_adobe_deflate"),
    }


CORPUS = corpus()


def survives(path: Path, content: bytes) -> bool:
    """Whether `content` was decoded; anything but a picture or UnreadableImage fails the test."""
    path.write_bytes(content)
    try:
        pixels = decode(path)
    except UnreadableImage as error:
        assert str(error).startswith(f"{path}: ") and str(error).isprintable()
        return False
    check_pixels(pixels)
    return True


def check_silence(kind: str, capfd, recwarn) -> None:
    out, err = capfd.readouterr()
    assert out == "" and not recwarn.list
    # The C library of compressed TIFF files prints to stderr, and Pillow gives no way to stop it.
    assert err == "" or (kind.startswith("tiff ") and "Traceback" not in err)


@pytest.mark.parametrize("kind", CORPUS)
def test_truncated_files(tmp_path, kind, capfd, recwarn):
    content = CORPUS[kind]
    assert survives(tmp_path / "a", content)
    decoded = [survives(tmp_path / "a", content[: len(content) * i // 40]) for i in range(40)]
    assert not any(decoded[:10]), "a quarter of a file is no picture"
    check_silence(kind, capfd, recwarn)


@pytest.mark.parametrize("kind", CORPUS)
def test_flipped_bytes(tmp_path, kind, capfd, recwarn):
    generator = np.random.default_rng(sorted(CORPUS).index(kind))
    content = np.frombuffer(CORPUS[kind], np.uint8)
    for i in range(60):
        damaged = content.copy()
        # Every other time in the header, where the lengths and offsets are.
        end = min(len(content), 120) if i % 2 else len(content)
        where = generator.integers(0, end, generator.integers(1, 6))
        damaged[where] = generator.integers(0, 256, len(where))
        survives(tmp_path / "a", damaged.tobytes())
    check_silence(kind, capfd, recwarn)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0", b"\0" * 5000, b"hello, this is text", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"BM is how this text begins, too",
        b"II*\0", b"MM\0*\0\0\0\x08", b"II+\0\x08\0\0\0", b"RIFF\x10\0\0\0WEBPVP8 ", b"RIFF\x10\0\0\0WEBPjunk", b"RIFF\x10\0\0\0WAVEfmt ",
        b"GIF89a\1\0\1\0\0\0\0;", b"P6\n1 1\n255\n\0\0\0", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"8BPS\0\1", b"<svg/>",
    ],
)  # fmt: skip
def test_no_pictures(tmp_path, content):
    for name in ("a.jpg", "a.png", "a.eps"):
        refused(written(content, tmp_path / name))


def test_messages_say_what_was_found(tmp_path):
    assert refused(written(b"", tmp_path / "a.jpg")).startswith("an empty file; expected a JPEG")
    assert refused(written(b"hello", tmp_path / "b.jpg")).startswith("no picture (it begins with b'hello'); expected a JPEG")
    assert refused(written(CORPUS["png"][:300], tmp_path / "c.jpg")).startswith("a damaged or unsupported PNG file (")
    assert refused(tmp_path / "gone.png").startswith("cannot be read (No such file or directory); expected")
    assert "0x" not in refused(written(b"\xff\xd8\xff", tmp_path / "d.jpg")), "no address in memory"


def test_other_formats_of_pillow_are_not_opened(tmp_path):
    for format_ in ("GIF", "PPM", "ICO", "TGA", "PCX", "JPEG2000", "SGI"):
        assert refused(written(encoded(Image.fromarray(noise(16, 16)), format_), tmp_path / "a.png")).startswith("no picture")


def test_bombs_are_refused_by_their_header(tmp_path, capfd, recwarn):
    bomb = png(60000, 60000, 8, 2, b"")
    assert f"more than {MAX_PIXELS} pixels" in refused(written(bomb, tmp_path / "a.png"))
    # Where Pillow would only warn.
    assert "12000 x 10000 pixels; expected at most 100000000" in refused(written(png(12000, 10000, 8, 2, b""), tmp_path / "b.png"))
    assert "10001 x 10000 pixels" in refused(written(png(10001, 10000, 1, 0, b""), tmp_path / "c.png"))
    # Allowed, but without pixels.
    assert refused(written(png(10000, 10000, 1, 0, b""), tmp_path / "d.png")).startswith("a damaged or unsupported PNG")
    bmp = bytearray(encoded(Image.new("RGB", (1, 1)), "BMP"))
    bmp[18:26] = struct.pack("<II", 60000, 60000)
    assert "pixels" in refused(written(bmp, tmp_path / "a.bmp"))
    webp = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\xff\0\xff\xff\0"
    refused(written(webp, tmp_path / "a.webp"))
    tags = b"".join(struct.pack("<HHII", *tag) for tag in ((256, 4, 1, 60000), (257, 4, 1, 60000), (258, 3, 1, 8), (262, 3, 1, 1), (273, 4, 1, 8)))
    assert "pixels" in refused(written(struct.pack("<2sHIH", b"II", 42, 8, 5) + tags + bytes(4), tmp_path / "a.tif"))
    assert capfd.readouterr() == ("", "") and not recwarn.list


def test_no_warning_is_raised_under_w_error(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "12000 x 10000" in refused(written(png(12000, 10000, 8, 2, b""), tmp_path / "a.png"))
        path = saved(Image.fromarray(noise(4, 4)), tmp_path / "b.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\xff")
        assert decode(path).shape == (4, 4, 3)


def test_long_files_are_refused_unread(tmp_path):
    with open(tmp_path / "a.png", "wb") as file:
        file.write(CORPUS["png"])
        file.truncate(image.MAX_BYTES + 1)
    assert f"at most {image.MAX_BYTES}" in refused(tmp_path / "a.png")


def test_bytes_after_the_end_are_ignored(tmp_path):
    path = written(CORPUS["jpeg"] + b"\0" * 1000, tmp_path / "a.jpg")
    np.testing.assert_array_equal(decode(path), decode(written(CORPUS["jpeg"], tmp_path / "b.jpg")))


@pytest.mark.parametrize("name", ["with space.png", "with\nnewline.png", "čumák 皮膚 🩺.png", "tab\t.png", "bell\a.png", "'quote\".png"])
def test_awkward_names(tmp_path, name):
    path = saved(Image.fromarray(noise(3, 4)), tmp_path / name)
    assert decode(path).shape == (3, 4, 3)
    refused(written(b"no picture", path))
    path.unlink()
    refused(path)


def test_names_that_are_not_text(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.png")
    saved(Image.fromarray(noise(3, 4)), Path(path))
    assert decode(Path(path)).shape == (3, 4, 3)
    refused(written(b"no picture", Path(path)))


def test_paths_that_are_no_files(tmp_path):
    (tmp_path / "x.png").mkdir()
    assert "Is a directory" in refused(tmp_path / "x.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    refused(tmp_path / "loop.png")
    (tmp_path / "dangling.png").symlink_to("nowhere.png")
    refused(tmp_path / "dangling.png")
    written(CORPUS["png"], tmp_path / "file.png")
    refused(tmp_path / "file.png" / "below.png")
    refused(tmp_path / ("n" * 5000))
    refused(f"{tmp_path}/nul\0.png")
    refused("\ud800.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert refused(tmp_path / "pipe.png").startswith("not an ordinary file")
    assert refused("/dev/zero").startswith("not an ordinary file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path):
    path = written(CORPUS["png"], tmp_path / "a.png")
    path.chmod(0)
    assert "Permission denied" in refused(path)


def test_errors_of_the_operating_system(tmp_path, monkeypatch):
    path = written(CORPUS["png"], tmp_path / "a.png")
    for number in (errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE):

        def broken(*_, number=number):
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(image.os, "open", broken)
        assert refused(path).startswith(f"cannot be read ({os.strerror(number)})")


@pytest.mark.parametrize(
    "error",
    [
        OSError("broken data stream\nwith a second line"), SyntaxError("broken PNG file"), ValueError(), struct.error("unpack"), zlib.error("-3"),
        MemoryError(), OverflowError(), EOFError(), IndexError(), KeyError(5), TypeError(), RecursionError(), AssertionError(),
        Image.DecompressionBombError("pixels"), AttributeError(), NotImplementedError(), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"),
    ],
)  # fmt: skip
def test_whatever_pillow_raises(tmp_path, monkeypatch, error):
    path = written(CORPUS["png"], tmp_path / "a.png")

    def broken(*_, **__):
        raise error

    monkeypatch.setattr(image.Image, "open", broken)
    assert isinstance(error, (MemoryError, Image.DecompressionBombError)) or refused(path).startswith("a damaged or unsupported PNG file (")
    refused(path)


def test_the_person_can_still_stop_it(tmp_path, monkeypatch):
    path = written(CORPUS["png"], tmp_path / "a.png")

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(image.Image, "open", stopped)
    with pytest.raises(KeyboardInterrupt):
        decode(path)


def test_no_file_stays_open(tmp_path):
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc")
    (tmp_path / "x.png").mkdir()
    good, bad = written(CORPUS["tiff lzw"], tmp_path / "a.tif"), written(CORPUS["tiff lzw"][:400], tmp_path / "b.tif")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        decode(good)
        refused(bad)
        refused(tmp_path / "x.png")
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_error_is_a_users_error():
    assert issubclass(UnreadableImage, BadInput)
    assert {suffix.lower() for suffix in SUFFIXES} == SUFFIXES and all(suffix.startswith(".") for suffix in SUFFIXES)
