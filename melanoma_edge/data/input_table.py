"""From picture bytes to the numbers that a model takes, by a table that any language can rebuild to the bit.

In: an input contract, and the type of a model's input tensor. Out: a table of 256 values for each channel, and
pictures looked up in it. Our own models take the bytes as they are; models of somebody else's want a range, a mean
and a standard deviation, another order of channels or another layout (docs/input-contract.md, "Declared contracts").
"""

from __future__ import annotations

import numpy as np

from melanoma_edge.contract import InputContract, Quantization
from melanoma_edge.errors import BadInput

LIMITS = {"uint8": (0, 255), "int8": (-128, 127)}
"""Lowest and highest number of each integer type."""
LEAST_LEVELS = 128
"""Different values that a quantized table has to keep; below that range and quantization do not belong together."""


def table(contract: InputContract, dtype: str = "float32", quantization: Quantization | None = None) -> np.ndarray:
    """Return what each byte becomes in each channel: `dtype` [3, 256], channels in the order of `contract.channels`.

    With low, high = `value_range`, byte b stands for ``((low + b * (high - low) / 255) - mean) / std``, computed from
    the left in float64 and rounded once, to the nearest float32, ties to even. For the integer types uint8 and int8
    that float64 x becomes ``floor(x / scale + 0.5) + zero_point`` within the limits of the type; without
    `quantization`, scale 1 and zero point 0. Raises BadInput where a number is too large for float32.
    """
    low, high = (np.float64(end) for end in contract.value_range)
    with np.errstate(over="ignore", invalid="ignore"):
        real = low + np.arange(256, dtype=np.float64) * (high - low) / np.float64(255)
        values = (real[None, :] - np.array(contract.mean, np.float64)[:, None]) / np.array(contract.std, np.float64)[:, None]
        if dtype in LIMITS:
            scale, zero_point = (quantization.scale, quantization.zero_point) if quantization else (1.0, 0)
            least, most = LIMITS[dtype]
            levels = np.floor(values / np.float64(scale) + 0.5) + zero_point
            if np.isfinite(levels).all():
                return np.clip(levels, least, most).astype(dtype)
        else:
            rounded = values.astype(np.float32)
            if np.isfinite(rounded).all():
                return rounded
    raise BadInput(
        f"the input contract gives numbers beyond float32 (range {low:g} to {high:g}, mean {list(contract.mean)}, std {list(contract.std)}): "
        "declare the range, mean and std that the model was trained with"
    )


def look_up(images: np.ndarray, values: np.ndarray, *, channels: str = "RGB", layout: str = "NHWC") -> np.ndarray:
    """Return `images`, uint8 RGB [N, H, W, 3], as the model takes them: [N, H, W, 3], or [N, 3, H, W] for layout NCHW.

    `values` is a :func:`table`, whose type the result has; with `channels` BGR the planes stand in that order.
    """
    ordered = images[..., ::-1] if channels == "BGR" else images
    planes = [values[channel][ordered[..., channel]] for channel in range(3)]
    return np.stack(planes, axis=1 if layout == "NCHW" else -1)


def refuse_coarse(values: np.ndarray, name: str) -> None:
    """Raise BadInput where a quantized table leaves so few different numbers that the contract cannot be meant."""
    kept = min(len(np.unique(channel)) for channel in values)
    if kept < LEAST_LEVELS:
        raise BadInput(
            f"{name} takes {values.dtype} numbers, and the declared input leaves only {kept} different ones of 256: "
            "declare the range that the file's own scale and zero point are for, with --input-range, --mean and --std"
        )
