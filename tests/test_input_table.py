"""From bytes to a model's numbers: the table, against arithmetic done another way, and what cannot be meant."""

from __future__ import annotations

import hashlib
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melanoma_edge.contract import InputContract, Quantization
from melanoma_edge.data.input_table import look_up, refuse_coarse, table
from melanoma_edge.errors import BadInput

IMAGENET = {"value_range": (0, 1), "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
reasonable = st.floats(-300, 300, allow_nan=False)
positive = st.floats(0.01, 300)


def contract(**declared) -> InputContract:
    return InputContract(width=8, height=8, **declared)


def pictures(count: int = 4) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 8, 8, 3), np.uint8)


@st.composite
def contracts(draw) -> InputContract:
    low = draw(reasonable)
    high = draw(reasonable.filter(lambda value: value != low))
    return contract(value_range=(low, high), mean=draw(st.tuples(reasonable, reasonable, reasonable)), std=draw(st.tuples(positive, positive, positive)))


def test_raw_bytes_stay_what_they_are() -> None:
    for dtype in ("float32", "uint8"):
        found = table(contract(), dtype)
        assert found.dtype == dtype and (found == np.arange(256)).all() and found.shape == (3, 256)
    assert contract().raw and not contract(channels="BGR").raw and not contract(mean=(1.0, 0.0, 0.0)).raw


@given(contracts())
def test_every_number_is_the_exact_one_to_a_rounding_of_float32(declared: InputContract) -> None:
    """Held against fractions, which do not round at all."""
    found = table(declared)
    low, high = map(Fraction, declared.value_range)
    for channel in range(3):
        mean, std = Fraction(declared.mean[channel]), Fraction(declared.std[channel])
        for byte in (0, 1, 100, 254, 255):
            exact = (low + byte * (high - low) / 255 - mean) / std
            scale = max(abs(low), abs(high), abs(mean)) / std
            assert abs(Fraction(float(found[channel, byte])) - exact) <= abs(exact) * Fraction(1, 2**24) + scale * Fraction(1, 2**50) + Fraction(1, 2**140)


@given(contracts())
def test_brighter_bytes_give_numbers_that_are_never_on_the_other_side(declared: InputContract) -> None:
    steps = np.diff(table(declared).astype(np.float64), axis=1)
    assert (steps >= 0).all() if declared.value_range[1] > declared.value_range[0] else (steps <= 0).all()


@given(contracts(), st.floats(0.001, 10), st.integers(-128, 255), st.sampled_from(["uint8", "int8"]))
def test_quantized_numbers_are_the_nearest_that_there_are(declared: InputContract, scale: float, zero_point: int, dtype: str) -> None:
    info = np.iinfo(dtype)
    zero_point = int(np.clip(zero_point, info.min, info.max))
    found = table(declared, dtype, Quantization(scale=scale, zero_point=zero_point))
    assert found.dtype == dtype
    real = table(declared).astype(np.float64)
    nearest = np.clip(np.rint(real / scale) + zero_point, info.min, info.max)
    # One next to it only where the number lies halfway, which float32 may shift.
    off = np.abs(found - nearest)
    assert off.max() <= 1
    halfway = np.abs(np.abs(real / scale - np.rint(real / scale)) - 0.5) <= 1e-5 * (1 + np.abs(real / scale))
    assert halfway[off > 0].all()


def test_halves_are_rounded_up() -> None:
    found = table(contract(value_range=(0, 127.5)), "uint8", Quantization(scale=1.0, zero_point=0))
    assert found[0, :6].tolist() == [0, 1, 1, 2, 2, 3]
    below = table(contract(value_range=(-127.5, 0)), "int8", Quantization(scale=1.0, zero_point=0))
    assert below[0, -6:].tolist() == [-2, -2, -1, -1, 0, 0]


def test_torchvisions_normalisation_is_that_of_numpy() -> None:
    images = pictures()
    found = look_up(images, table(contract(**IMAGENET)), layout="NCHW")
    mean, std = (np.array(IMAGENET[key], np.float32) for key in ("mean", "std"))
    theirs = ((images.astype(np.float32) / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)  # ToTensor, then Normalize
    assert found.shape == (4, 3, 8, 8) and found.dtype == np.float32 and found.flags.c_contiguous
    np.testing.assert_allclose(found, theirs, rtol=0, atol=1e-6)


def test_channels_and_axes_go_where_they_are_declared() -> None:
    images = pictures()
    values = table(contract(mean=(103.939, 116.779, 123.68), channels="BGR"))  # Caffe's order and means
    found = look_up(images, values, channels="BGR")
    np.testing.assert_allclose(found, images[..., ::-1].astype(np.float64) - [103.939, 116.779, 123.68], atol=1e-5)
    assert (look_up(images, values, channels="BGR", layout="NCHW") == found.transpose(0, 3, 1, 2)).all()


@pytest.mark.parametrize("declared", [{"value_range": (0, 1e300)}, {"std": (1e-60, 1.0, 1.0)}, {"value_range": (-1.5e308, 1.5e308)}])
def test_numbers_beyond_float32_are_refused(declared: dict) -> None:
    for dtype in ("float32", "uint8"):
        if dtype == "uint8" and "std" in declared:
            continue  # large, finite, and clipped
        with pytest.raises(BadInput, match="beyond float32"):
            table(contract(**declared), dtype, Quantization(scale=1e-10, zero_point=0))


def test_a_range_that_does_not_belong_to_the_quantization_is_refused() -> None:
    quantization = Quantization(scale=1 / 255, zero_point=-128)
    refuse_coarse(table(contract(value_range=(0, 1)), "int8", quantization), "net.tflite")
    with pytest.raises(BadInput, match="only 2 different ones of 256: declare the range"):
        refuse_coarse(table(contract(), "int8", quantization), "net.tflite")


def test_the_golden_vectors_of_the_documentation_hold() -> None:
    """docs/input-contract.md gives these hashes to everyone who writes the table in another language."""
    text = (__import__("pathlib").Path(__file__).parents[1] / "docs" / "input-contract.md").read_text(encoding="utf-8")
    rows = {
        "torchvision": table(contract(**IMAGENET)),
        "minus one to one": table(contract(value_range=(-1, 1))),
        "int8": table(contract(value_range=(-1, 1)), "int8", Quantization(scale=float(np.float32(2 / 255)), zero_point=-1)),
    }
    for name, values in rows.items():
        assert hashlib.sha256(values.astype(values.dtype.newbyteorder("<")).tobytes()).hexdigest() in text, name
