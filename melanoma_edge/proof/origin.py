"""evidence/origin.json: the run or the model file that a bundle came from, for machines that still have it.

In: a bundle. Out: a path, or in words why there is none. Outside the seal, since paths are of one machine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from melanoma_edge.convert.bundle import EVIDENCE
from melanoma_edge.errors import BadInput
from melanoma_edge.files import read_json, to_json

ORIGIN_FILE = "origin.json"

Kind = Literal["run", "model"]
CALLED: dict[Kind, str] = {"run": "the run", "model": "the model file"}


def remember(bundle: Path, kind: Kind, path: Path) -> None:
    """Write down that the bundle in the folder `bundle` came from `path`."""
    (bundle / EVIDENCE).mkdir(exist_ok=True)
    (bundle / EVIDENCE / ORIGIN_FILE).write_text(to_json({kind: str(path.resolve())}), encoding="utf-8")


def remembered(bundle: Path, kind: Kind) -> Path | str:
    """Return where the bundle in the folder `bundle` came from, or in words why that is not known; the path need not exist."""
    file = bundle / EVIDENCE / ORIGIN_FILE
    if not file.is_file():
        return f"{CALLED[kind]} is not known"
    try:
        found = read_json(file, "the bundle's origin")
    except BadInput:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get(kind), str):
        return f"{EVIDENCE}/{ORIGIN_FILE} does not name {CALLED[kind]}"
    return Path(found[kind])
