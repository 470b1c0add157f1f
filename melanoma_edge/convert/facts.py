"""What a model file says about itself, wherever it goes: the one source of TFLite metadata and ONNX metadata_props.

In: what the export knows of an artifact. Out: short texts. Nothing here depends on time, host or folder, so the
same run gives the same bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from melanoma_edge import NOTICE, __version__
from melanoma_edge.contract import Precision

Head = Literal["logits", "probabilities"]
LABELS_FILE = "labels.txt"

_OUTPUTS = {
    "logits": "logits, one for each class in the order of the labels; probabilities are softmax(logits / temperature), "
    "with the temperature and the decision thresholds in the bundle's manifest.json",
    "probabilities": "calibrated probabilities, one for each class in the order of the labels",
}


@dataclass(frozen=True)
class Facts:
    """The facts of one model file."""

    name: str
    """The file's name without its extension: `default-int8`."""
    recipe: str
    precision: Precision
    classes: tuple[str, ...]
    """In the order of the outputs."""
    positive_class: str | None
    size: int
    """Side of the square input in pixels."""
    licence: str
    version: str
    """What tells two trainings apart: the beginning of the SHA-256 of the weights."""
    head: Head = "logits"
    layout: str = "NHWC"
    """Order of the input's axes."""
    mean: tuple[float, ...] | None = (0.0,)
    """What the network's input wants taken off each byte, one number or one a channel; None where that does not describe it."""
    std: tuple[float, ...] | None = (1.0,)
    """What it wants the rest divided by; None as for `mean`."""

    @property
    def author(self) -> str:
        """What made the file; who trained it is not known."""
        return f"melanoma-edge {__version__}"

    @property
    def description(self) -> str:
        """What the model does, with the notice: the text that model viewers show first."""
        return (
            f"{NOTICE} Sorts dermoscopic pictures of skin lesions into {len(self.classes)} classes "
            f"(recipe {self.recipe}, precision {self.precision}). It has seen dermoscopic pictures only."
        )

    @property
    def input(self) -> str:
        """What goes in."""
        taken = "0..255" if (set(self.mean), set(self.std)) == ({0.0}, {1.0}) else f"(0..255 - {_list(self.mean)}) / {_list(self.std)}"
        return f"{self.size} x {self.size} RGB, {taken}, {self.layout}"

    @property
    def output(self) -> str:
        """What comes out, in a sentence."""
        return _OUTPUTS[self.head]

    @property
    def labels(self) -> str:
        """The labels file: a class a line, in the order of the outputs."""
        return "\n".join(self.classes) + "\n"

    def properties(self) -> dict[str, str]:
        """Return the facts as {key: text}, for formats that carry such a table."""
        return {
            "name": self.name,
            "description": self.description,
            "notice": NOTICE,
            "licence": self.licence,
            "author": self.author,
            "version": self.version,
            "recipe": self.recipe,
            "precision": self.precision,
            "classes": "\n".join(self.classes),
            "positive_class": self.positive_class or "",
            "input": self.input,
            "output": self.head,
            "output_description": self.output,
        }


def _list(numbers: tuple[float, ...]) -> str:
    return "/".join(f"{number:g}" for number in numbers)
