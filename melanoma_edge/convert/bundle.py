"""The sealed bundle: reading one with every check done first.

In: a bundle folder. Out: a :class:`Bundle` whose files are known to be the ones that were exported.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from melanoma_edge.contract import BUNDLE_SCHEMA_VERSION, Artifact, Manifest
from melanoma_edge.errors import BadInput
from melanoma_edge.files import read_json, sha256_file

MANIFEST = "manifest.json"
EVIDENCE = "evidence"
GOLDEN = "golden/golden.json"
SEEN = "seen.txt"


class GoldenPicture(BaseModel):
    """One golden picture: its file, and the SHA-256 of the bytes that the input contract makes of it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    file: str
    input_sha256: str


class Golden(BaseModel):
    """golden/golden.json: pictures, and the logits that each model gave for them at export.

    `logits` maps an artifact's name (or `keras-float`, `keras-qat`) to [pictures][classes] float32.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    schema_version: Literal[1]
    pictures: tuple[GoldenPicture, ...]
    logits: dict[str, tuple[tuple[float, ...], ...]]

    def expected(self, name: str) -> np.ndarray | None:
        """Return the expected logits of `name`, float32 [pictures, classes], or None."""
        rows = self.logits.get(name)
        return None if rows is None else np.asarray(rows, np.float32)


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: its folder, its manifest and its golden set, all checked."""

    path: Path
    manifest: Manifest
    golden: Golden

    def file(self, artifact: Artifact) -> Path:
        """Return the path of the artifact's model file."""
        return self.path / artifact.path

    def artifact(self, name: str) -> Artifact:
        """Return the artifact called `name`; raises BadInput that lists what there is."""
        found = self.manifest.artifact(name)
        if found is None:
            names = ", ".join(artifact.name for artifact in self.manifest.artifacts)
            raise BadInput(f"the bundle {self.path} has no artifact {name!r}: expected one of {names}")
        return found

    def default_artifact(self) -> Artifact:
        """Return what a phone would run: int8, before int8 quantized after training, before the others; TFLite before ONNX."""
        rank = {"int8": 0, "int8-ptq": 1}
        return min(self.manifest.artifacts, key=lambda a: (rank.get(a.precision, len(rank)), a.format != "tflite"))

    def seen_hashes(self) -> frozenset[str]:
        """Return the keys of every picture that training, calibration or fitting used: hashes of files, of lesion and patient ids, and fingerprints."""
        return frozenset((self.path / SEEN).read_text(encoding="utf-8").split())


def open_bundle(path: Path) -> Bundle:
    """Open the bundle folder `path` after checking its schema version and the hash of every file.

    Raises BadInput when something is missing, altered, added under golden/, or of a newer schema.
    """
    path = Path(path)
    if not os.path.isdir(path):
        raise BadInput(f"{path} is not a bundle: expected a folder with {MANIFEST}; make one with `melanoma-edge export`")
    raw = read_json(path / MANIFEST, "a bundle manifest")
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if isinstance(version, int) and version > BUNDLE_SCHEMA_VERSION:
        raise BadInput(
            f"{path / MANIFEST} has schema version {version}: this melanoma-edge reads up to {BUNDLE_SCHEMA_VERSION}; "
            "upgrade with `pip install --upgrade melanoma-edge`"
        )
    try:
        manifest = Manifest.model_validate_json((path / MANIFEST).read_bytes())
    except ValidationError as error:
        raise BadInput(f"{path / MANIFEST} is not a valid manifest: {_first(error)}; export the bundle again") from None
    for name, expected in manifest.files.items():
        file = path / name
        if file.is_symlink() or not file.is_file() or not file.resolve().is_relative_to(path.resolve()):
            raise BadInput(f"{file} is missing or not a plain file: the bundle is incomplete; export it again")
        try:
            found = sha256_file(file)
        except OSError as error:
            raise BadInput(f"{file} cannot be read ({error.strerror}): make it readable or export it again") from None
        if found != expected:
            raise BadInput(f"{file} was altered: its sha256 is {found[:12]}..., the manifest says {expected[:12]}...; export it again")
    try:
        golden = Golden.model_validate_json((path / GOLDEN).read_bytes())
    except (OSError, ValidationError) as error:
        detail = _first(error) if isinstance(error, ValidationError) else error
        raise BadInput(f"{path / GOLDEN} is not a valid golden set: {detail}; export the bundle again") from None
    if GOLDEN not in manifest.files or SEEN not in manifest.files:
        raise BadInput(f"{path / MANIFEST} does not seal {GOLDEN} and {SEEN}: export the bundle again")
    _check_golden(path, golden, manifest)
    return Bundle(path, manifest, golden)


def _check_golden(path: Path, golden: Golden, manifest: Manifest) -> None:
    """Raise BadInput unless the golden pictures are sealed, nothing stands beside them, and the logits fit."""
    if not golden.pictures:
        raise BadInput(f"{path / GOLDEN} names no pictures: expected one or more; export the bundle again")
    for picture in golden.pictures:
        if picture.file not in manifest.files:
            raise BadInput(f"{path / GOLDEN} names {_printable(picture.file)}, which the manifest does not seal: export the bundle again")
    for file in sorted((path / GOLDEN).parent.iterdir()):
        if file.relative_to(path).as_posix() not in manifest.files and not file.name.startswith("."):
            raise BadInput(f"{_printable(str(file))} is not sealed: someone added it; remove it or export the bundle again")
    missing = [artifact.name for artifact in manifest.artifacts if artifact.name not in golden.logits]
    if missing:
        raise BadInput(f"{path / GOLDEN} has no logits of {_printable(', '.join(missing))}: export the bundle again")
    shape = (len(golden.pictures), len(manifest.classes))
    for name, rows in golden.logits.items():
        if len(rows) != shape[0] or any(len(row) != shape[1] for row in rows):
            found = f"logits of {_printable(name)} are not {shape[0]} x {shape[1]} (pictures x classes)"
            raise BadInput(f"{path / GOLDEN}: the {found}; export the bundle again")


def _first(error: ValidationError) -> str:
    """Return the first problem of a validation error in one line."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"]) or "the file"
    return _printable(f"{where}: {problem['msg']}")


def _printable(text: str) -> str:
    """Return `text` as one line."""
    return text if text.isprintable() else repr(text)[1:-1]
