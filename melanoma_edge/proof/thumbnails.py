"""Small pictures of flips, kept beside the gates: photographs of people, so only where they were asked for.

In: what `verify` compared on, and its gates. Out: evidence/thumbnails.json, which the report shows. It belongs to one
verification, by its hash, and the next one without thumbnails removes it. Nothing else of a bundle holds
photographs; who passes evidence/ on passes these on.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from pydantic import ValidationError

from melanoma_edge.contract import Model
from melanoma_edge.errors import BadInput
from melanoma_edge.files import explained, to_json, write_text
from melanoma_edge.proof import page
from melanoma_edge.proof.parity_model import Gate, Parity

FILE = "thumbnails.json"
SIDE = 128
"""Pixels; the network's input made smaller, never larger."""
QUALITY = 80
JPEG = b"\xff\xd8\xff"


class Thumbnails(Model):
    """The whole of evidence/thumbnails.json."""

    schema_version: Literal[1] = 1
    note: str = "Photographs from the folder given to verify --data --thumbnails: mind their terms and the people in them before passing this on."
    pictures: dict[str, str]
    """{name of the picture among the flips: JPEG in base64}."""


def refuse(asked: bool, data: Path | None) -> None:
    """Raise BadInput where thumbnails were asked for and there are no pictures to make them of."""
    if asked and data is None:
        raise BadInput("--thumbnails makes small pictures of --data, and none was given: add --data DIR, or leave out --thumbnails")


def write(folder: Path, gates: Iterable[Gate], pictures: Mapping[str, np.ndarray]) -> str:
    """Write thumbnails of the flips that `gates` list to `folder` and return the file's SHA-256.

    `pictures` maps names to network inputs, uint8 [side, side, 3]; flips of other pictures (golden ones) get none.
    """
    names = dict.fromkeys(flip.picture for gate in gates for flip in gate.flips if flip.picture in pictures)
    made = {name: base64.b64encode(_jpeg(pictures[name])).decode("ascii") for name in names}
    content = to_json(Thumbnails(pictures=made).model_dump(mode="json"))
    write_text(folder / FILE, content)
    return hashlib.sha256(content.encode("utf-8")).hexdigest()


def remove(folder: Path) -> None:
    """Remove what an earlier verification left."""
    with explained(folder / FILE):
        (folder / FILE).unlink(missing_ok=True)


def read(folder: Path, parity: Parity) -> dict[str, str] | str:
    """Return {name: data: URI} of the thumbnails that belong to `parity`, or in words why there are none."""
    if parity.thumbnails_sha256 is None:
        return "without pictures: verify was not asked for --thumbnails"
    try:
        content = (folder / FILE).read_bytes()
        if hashlib.sha256(content).hexdigest() != parity.thumbnails_sha256:
            return f"without pictures: {FILE} does not belong to these gates"
        held = Thumbnails.model_validate_json(content)
        decoded = {name: base64.b64decode(text, validate=True) for name, text in held.pictures.items()}
    except (OSError, ValidationError, binascii.Error, json.JSONDecodeError):
        return f"without pictures: {FILE} is not here or cannot be read"
    return {name: page.uri(picture, "jpeg") for name, picture in decoded.items() if picture.startswith(JPEG)}


def _jpeg(pixels: np.ndarray) -> bytes:
    picture = Image.fromarray(pixels)
    if picture.width > SIDE:
        picture = picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return page.jpeg(picture, QUALITY)
