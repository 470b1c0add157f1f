"""What a TFLite file made from somebody else's model says about itself: what was declared of it, and nothing more.

In: the declared input contract, classes and licence, and what the converted file takes and gives. Out: :class:`Facts` for
:mod:`melanoma_edge.convert.tflite_metadata`. They claim neither dermoscopic pictures nor a training by us.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from melanoma_edge import NOTICE, __version__
from melanoma_edge.contract import InputContract, Precision, Tensor
from melanoma_edge.convert.facts import Facts, Head
from melanoma_edge.data import input_table

OUTPUTS: dict[Head, str] = {
    "logits": "logits, one for each class in the order of the labels; probabilities are softmax(logits / temperature), with the temperature in the "
    "bundle's manifest.json",
    "probabilities": "probabilities as the model gives them, one for each class in the order of the labels; nothing calibrated them",
}
STEPS = 1
"""A scale that was measured to cover -1..1 has its zero point at 127 or 128, where it should be 127.5: half the bytes are one step off."""


@dataclass(frozen=True)
class ForeignFacts(Facts):
    """The facts of a file that was converted from a model of somebody else's."""

    source: str = ""
    """Name of the model file that it was made from."""
    declared: str = ""
    """The declared input in words."""

    @property
    def author(self) -> str:
        """Who converted it; who made the model is not known."""
        return f"converted by melanoma-edge {__version__}; who made and trained the model is not known"

    @property
    def description(self) -> str:
        """What is known of the file, with the notice."""
        taken = "" if self.mean is not None else f" Its input has no normalization that such readers know: {self.declared}."
        return (
            f"{NOTICE} Converted from {self.source} (precision {self.precision}) for {len(self.classes)} classes that were named by its owner. "
            f"On what pictures the model was trained is not known.{taken}"
        )

    @property
    def input(self) -> str:
        """What goes in, as it was declared."""
        return self.declared

    @property
    def output(self) -> str:
        """What comes out, in a sentence."""
        return OUTPUTS[self.head]


def foreign_facts(said: dict, contract: InputContract, taken: Tensor, name: str, precision: Precision, ends_in: str | None) -> ForeignFacts:
    """Return the facts of the TFLite file called `name`, which takes `taken` and ends in `ends_in` (softmax, sigmoid or None).

    `said` holds `source`, `version`, `classes`, `positive`, `output` (logits, probabilities or None) and `licence`.
    """
    normalization = mean_and_std(contract, taken)
    return ForeignFacts(
        name=name.removesuffix(".tflite"),
        recipe="",
        precision=precision,
        classes=tuple(said["classes"]),
        positive_class=said["positive"],
        size=contract.width,
        licence=said["licence"],
        version=said["version"],
        head=said["output"] or ("probabilities" if ends_in == "softmax" else "logits"),
        mean=None if normalization is None else normalization[0],
        std=None if normalization is None else normalization[1],
        source=said["source"],
        declared=f"{in_words(contract)}, NHWC",
    )


def mean_and_std(contract: InputContract, taken: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return mean and std for bytes 0..255, one number or one a channel, so that (byte - mean) / std is what the contract says.

    With low, high = `value_range`: mean' = (mean - low) * 255 / (high - low), std' = std * 255 / (high - low). None where the fields
    NormalizationOptions of TFLite metadata cannot say the same: for blue first, for a range that falls, for numbers beyond float32, and for
    a whole-number input whose scale makes other numbers of the bytes, by more than STEPS: readers put bytes in as they are.
    """
    low, high = map(float, contract.value_range)
    if contract.channels != "RGB" or high < low:
        return None
    if taken.dtype != "float32":
        values = input_table.table(contract, taken.dtype, taken.quantization)
        if taken.dtype != "uint8" or np.abs(values.astype(int) - np.arange(256)).max() > STEPS:
            return None
    with np.errstate(all="ignore"):
        mean = tuple(float(np.float32((value - low) * 255 / (high - low))) for value in contract.mean)
        std = tuple(float(np.float32(value * 255 / (high - low))) for value in contract.std)
    if not np.isfinite([*mean, *std]).all() or min(std) <= 0:
        return None
    one = len(set(mean)) == 1 and len(set(std)) == 1
    return (mean[:1], std[:1]) if one else (mean, std)


def in_words(contract: InputContract) -> str:
    """Return the declared input as one line, without its layout."""
    low, high = contract.value_range
    return f"{contract.width} x {contract.height} {contract.channels}, bytes as {low:g}..{high:g}, mean {list(contract.mean)}, std {list(contract.std)}"
