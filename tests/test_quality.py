"""The quality of a picture: what is told of drawn ones made worse, and of real ones where they are here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from test_isic9 import FOLDER as ISIC9

from melanoma_edge.data import image, non_lesions, quality, samples


def kinds(picture: Image.Image) -> list[str]:
    """Return what a picture is warned of, in one word each."""
    return [warning.partition(":")[0] for warning in quality.measure(picture).warnings]


def lesion(number: int = 0, size: int = 240) -> Image.Image:
    """Return a drawn lesion with the fine grain that a sharp photograph of skin has."""
    pixels = samples.draw("nevus", size, (4, number)).astype(float)
    grain = np.random.default_rng(number).normal(0, 6, (size // 2, size // 2)).repeat(2, 0).repeat(2, 1)[..., np.newaxis]
    return Image.fromarray(np.clip(pixels + grain, 0, 249).astype(np.uint8))


def blurred(picture: Image.Image, share: float) -> Image.Image:
    """Return the picture blurred by a Gaussian whose deviation is a share of its side."""
    deviation = share * min(picture.size)
    return Image.fromarray(np.clip(ndimage.gaussian_filter(np.asarray(picture, float), (deviation, deviation, 0)) + 0.5, 0, 255).astype(np.uint8))


def exposed(picture: Image.Image, stops: float) -> Image.Image:
    """Return the picture as it were with more or less light: sRGB by IEC 61966-2-1."""
    values = np.arange(256) / 255
    light = np.clip(np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4) * 2.0**stops, 0, 1)
    shown = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    return picture.point((shown * 255 + 0.5).astype(int).tolist() * 3)


def test_each_fault_of_a_drawn_picture_is_named_and_no_other() -> None:
    for number in range(5):
        good = lesion(number)
        assert kinds(good) == []
        assert kinds(blurred(good, 0.02)) == ["blurred"]
        assert kinds(exposed(good, -5)) == ["under-exposed"]
        assert kinds(exposed(good, 3)) == ["over-exposed"]
        assert kinds(good.resize((100, 100))) == ["small"]


def test_the_size_of_the_file_and_its_corners_do_not_count() -> None:
    good = lesion()
    measured = quality.measure(good)
    assert quality.measure(good.resize((960, 960), Image.Resampling.NEAREST)).sharpness == pytest.approx(measured.sharpness, rel=0.1)
    pixels = np.array(good)
    rows, columns = np.indices(pixels.shape[:2]) + 0.5 - len(pixels) / 2
    pixels[np.hypot(rows, columns) > len(pixels) / 2 + 4] = 0  # the round field of a dermatoscope
    corners = quality.measure(Image.fromarray(pixels))
    assert (corners.dark, corners.clipped) == (measured.dark, measured.clipped) and corners.sharpness == pytest.approx(measured.sharpness)


def test_the_laplacian_is_that_of_another_library() -> None:
    cv2 = pytest.importorskip("cv2")
    pixels = image.square(lesion(), quality.SIDE)
    grey = pixels.astype(float) @ np.array(quality.GREY)
    axis = np.arange(quality.SIDE) + 0.5 - quality.SIDE / 2
    inside = np.hypot(axis[:, np.newaxis], axis) <= quality.SIDE / 2
    kept = inside.copy()
    kept[[0, -1]], kept[:, [0, -1]] = False, False
    expected = cv2.Laplacian(grey, cv2.CV_64F)[kept].std() / grey[inside].mean()
    assert quality.measure(lesion()).sharpness == pytest.approx(expected)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 50), st.sampled_from([0.005, 0.01, 0.02]))
def test_blurring_takes_sharpness_away(number: int, share: float) -> None:
    good = lesion(number, 160)
    assert quality.measure(blurred(good, share)).sharpness < quality.measure(good).sharpness


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (128, 90, 70)])
def test_plain_colours_have_a_quality_too(colour: tuple[int, int, int]) -> None:
    measured = quality.measure(Image.new("RGB", (200, 150), colour))
    assert measured.sharpness == 0.0 and measured.side == 150
    assert kinds(Image.new("RGB", (200, 150), colour)) == [{0: "under-exposed", 255: "over-exposed"}.get(colour[0], "blurred")]


def test_a_covered_lens_is_dark() -> None:
    assert kinds(Image.fromarray(non_lesions.draw("covered lens", 200, 0))) == ["under-exposed"]
    assert kinds(Image.new("RGB", (1, 1))) == ["small"]


@pytest.mark.skipif(not ISIC9.is_dir(), reason=f"{ISIC9} is not here")
def test_real_pictures_are_seldom_warned_of_and_spoilt_copies_mostly() -> None:
    """The figures of the module's docstring, on every eighth picture."""
    files: list[Path] = sorted(ISIC9.glob("*/*/*.jpg"))[::8]
    pictures = [image.open_picture(file, image.read(file)).image for file in files]
    spoilt = {"blurred": lambda p: blurred(p, 0.01), "under-exposed": lambda p: exposed(p, -4), "over-exposed": lambda p: exposed(p, 2)}
    assert len(pictures) > 200 and np.mean([bool(kinds(picture)) for picture in pictures]) < 0.02
    for kind, spoil in spoilt.items():
        assert np.mean([kind in kinds(spoil(picture)) for picture in pictures]) > 0.9, kind
