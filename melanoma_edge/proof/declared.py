"""What people say about a model file of theirs: its classes, and what it takes and gives.

In: a file of labels and the values of options. Out: a checked :class:`Declared`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from melanoma_edge.contract import CLASS_NAME_LENGTH, InputContract
from melanoma_edge.data.classes import class_names
from melanoma_edge.errors import BadInput

POSITIVE = "melanoma"
"""The positive class where a model has it and none was named."""


@dataclass(frozen=True)
class Declared:
    """What cannot be read from a model file."""

    classes: tuple[str, ...]
    """In the order of the model's output."""
    positive: str | None = POSITIVE
    """None for no positive class."""
    value_range: tuple[float, float] = (0, 255)
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    channels: Literal["RGB", "BGR"] = "RGB"
    size: int | None = None
    """Side of the input, for files that take any."""
    output: Literal["logits", "probabilities"] | None = None
    """None: as the file's last operator says."""

    def contract(self, size: int) -> InputContract:
        """Return the input contract for an input of this side; raises BadInput for values that make none."""
        try:
            return InputContract(width=size, height=size, value_range=self.value_range, mean=self.mean, std=self.std, channels=self.channels)
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in problem["loc"]) or "the input"
            raise BadInput(f"the declared input cannot be ({where}: {problem['msg']}): correct --input-range, --mean or --std") from None


def read_classes(file: Path) -> tuple[str, ...]:
    """Return the classes in the text file `file`, one a line in the order of the model's output, spelt as data sets are.

    Raises BadInput for a missing file, empty lines, fewer than two classes, and one that stands twice.
    """
    try:
        lines = Path(file).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise BadInput(f"{file} cannot be read as a list of classes ({reason}): expected one class a line, in the order of the model's output") from None
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, 1):
        if not line.strip() or len(line.strip()) > CLASS_NAME_LENGTH or not line.strip().isprintable():
            raise BadInput(f"line {number} of {file} is no name of a class (empty, too long or not printable): expected one class a line")
    spelt = [line.strip() for line in lines]
    names = class_names(dict.fromkeys(spelt, 1))
    classes = tuple(names[name] for name in spelt)
    for name in classes:
        if classes.count(name) > 1:
            raise BadInput(f"the class {name!r} stands twice in {file} (in one spelling or several): expected every class once")
    if len(classes) < 2:
        raise BadInput(f"{file} names {len(classes)} classes: expected at least 2, one a line; a model with one output for two classes needs one for each")
    return classes


def positive_class(named: str | None, classes: tuple[str, ...]) -> str | None:
    """Return the class that `named` (an option's value; empty for none, None for not given) means; raises BadInput for one that the model has not."""
    if named is None:
        return POSITIVE if POSITIVE in classes else None
    if not named:
        return None
    found = class_names({**dict.fromkeys(classes, 2), named: 1})[named]
    if found not in classes:
        raise BadInput(f"the positive class {named!r} is not among the classes: expected one of {', '.join(classes)}")
    return found
