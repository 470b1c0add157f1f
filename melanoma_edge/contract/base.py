"""What every model of a file is built on: strict, frozen, without surprises in names, numbers and paths."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Model(BaseModel):
    """Base: frozen, no unknown keys, no silent conversions, no NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
CLASS_NAME_LENGTH = 200
ClassName = Annotated[str, Field(min_length=1, max_length=CLASS_NAME_LENGTH)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def is_plain_relative(path: str) -> bool:
    """Whether `path` is a relative POSIX path of ordinary names: no `..`, root, drive or backslash."""
    parts = path.split("/")
    return all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_. +-]*", part) is not None and not part.endswith((" ", ".")) for part in parts)
